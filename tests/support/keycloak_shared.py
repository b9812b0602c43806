"""One Keycloak for a test run, started on first use: a start takes 20 s of wall clock and of one core.

It has our plug-in, which handles only the realms in `PLUGGED`, and finds no RabbitMQ until a test forwards
`broker_port` to its broker.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from publishers.tests.keycloak.plugin import plugin_jar
from publishers.tests.keycloak.plugin_settings import plugin_options, plugin_settings
from tests.support.apt_programs import ProgramMissing
from tests.support.keycloak_installation import (
    SIGNALS,
    KeycloakMissing,
    features,
    find_keycloak_with,
    keycloak_version,
    required,
)
from tests.support.keycloak_server import Keycloak, KeycloakServer
from tests.support.rabbitmq_node import free_ports
from tests.support.shared_servers import SHARED

PLUGGED = ("shop-plugged", "brief", "doomed")
"""The realms whose session ends the plug-in publishes."""
PREFIX = "test-shared-keycloak"


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedKeycloak:
    """A running Keycloak. Each test creates its realms."""

    keycloak: Keycloak
    broker_port: int


def shared_keycloak(config: pytest.Config) -> SharedKeycloak:
    """Return the run's Keycloak. Skip the test if Keycloak cannot be installed, or fail it if it is required."""
    try:
        shared = config.stash[SHARED].ask("keycloak")
    except (KeycloakMissing, ProgramMissing) as missing:
        (pytest.fail if required() else pytest.skip)(str(missing))
    assert isinstance(shared, SharedKeycloak)
    return shared


@contextlib.contextmanager
def keycloak_of_a_run() -> Iterator[SharedKeycloak]:
    """Start Keycloak, and kill it at the end."""
    version = keycloak_version()
    built = find_keycloak_with(plugin_jar(), version, "--db=dev-mem", "--metrics-enabled=true", *features(version))
    [broker_port] = free_ports(1)
    url = f"amqp://guest:guest@127.0.0.1:{broker_port}/"
    with tempfile.TemporaryDirectory(prefix="keycloak-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        settings = plugin_settings(url, PREFIX, home, include_client_metadata="true", realms=",".join(PLUGGED))
        options = ("--log-level=warn,dev.notifier:info", *plugin_options(settings))
        server = KeycloakServer(home, built, options=options, signals=version in SIGNALS)
        try:
            server.start()
            server.wait()
            keycloak = Keycloak(server.port, server.management, server.log, signals=server.signals)
            yield SharedKeycloak(keycloak=keycloak, broker_port=broker_port)
        finally:
            server.kill()
