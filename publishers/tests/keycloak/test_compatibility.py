"""A Keycloak in which the plug-in could not do its work does not start, and its log names what is in the way."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from publishers.tests.keycloak.altered import altered, stands_before
from publishers.tests.keycloak.conftest import missing
from publishers.tests.keycloak.plugged import OFTEN, new_database
from publishers.tests.keycloak.plugin_settings import plugin_options, plugin_settings
from tests.support.databases import DatabaseServer
from tests.support.keycloak_installation import NEWEST, KeycloakMissing, find_keycloak
from tests.support.keycloak_server import KeycloakServer

PERSISTER = "org.keycloak.models.session.UserSessionPersisterProviderFactory"
PARENT = "org.keycloak.models.jpa.session.JpaUserSessionPersisterProviderFactory"


@pytest.fixture(scope="module", autouse=True)
def keycloak() -> None:
    """It can be had here."""
    try:
        find_keycloak(NEWEST)
    except KeycloakMissing as reason:
        missing(reason)


pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]


def _started(
    folder: Path, postgres: DatabaseServer, *, stranger: bool = False, renamed: Mapping[str, str] | None = None
) -> tuple[bool, str]:
    """Whether it starts, and the lines of its log that are the plug-in's."""
    jars = [stands_before(folder, NEWEST, PERSISTER, PARENT)] if stranger else []
    database = new_database(postgres)
    installation = altered(folder, NEWEST, database.build, jars=jars, renamed=renamed)
    options = (*OFTEN, *plugin_options(plugin_settings("amqp://guest:guest@127.0.0.1:9/", "notifier", folder)))
    server = KeycloakServer(folder, installation, options=options, settings=database.settings)
    try:
        server.start()
        server.wait()
        started = True
    except AssertionError:
        started = False
    finally:
        server.kill()
    return started, server.log.read_text()


def test_a_missing_method_or_class_is_named(tmp_path: Path, postgres: DatabaseServer) -> None:
    """As in a version that has given a method and a class other names, and works with them."""
    renamed = {"onRealmRemoved": "onRealmErasing", "PersistentClientSessionEntity": "PersistentClientSessionsTable"}
    started, log = _started(tmp_path, postgres, renamed=renamed)
    assert not started
    assert "is not supported, because it lacks UserSessionPersisterProvider.onRealmRemoved" in log
    assert "PersistentClientSessionEntity: remove the plug-in from providers/" in log


def test_another_plug_in_before_the_session_table_is_named(tmp_path: Path, postgres: DatabaseServer) -> None:
    """The plug-in would never see a session end."""
    started, log = _started(tmp_path, postgres, stranger=True)
    assert not started
    assert "since stranger.BeforeJpaUserSessionPersisterProviderFactory does: take that out of providers/" in log
