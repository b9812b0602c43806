"""The plug-in in real Keycloaks, the oldest and the newest that it supports: from the sign-in to the tokens.

    NOTIFIER_TEST_KEYCLOAK_FORM=whole pytest tests/publishers/keycloak

Each version is started once, for all tests. Left out of the short form is what needs a start of its own.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from joserfc import jws

from tests.databases import DatabaseServer
from tests.keycloak_installation import NEWEST
from tests.publishers.keycloak.account import hold, nothing_else
from tests.publishers.keycloak.conftest import had
from tests.publishers.keycloak.ground import Ground, ground
from tests.publishers.keycloak.plugged import metric, new_database, plugged_in
from tests.publishers.keycloak.plugin_settings import plugin_settings
from tests.publishers.keycloak.shop_realm import GOODBYE
from tests.publishers.keycloak.ways import WAYS, Ending, sessions_expire
from tests.system.tcp_proxy import Ending as Cut
from tests.system.waiting import until

OLDEST = "26.4.5"
WHOLE = os.environ.get("NOTIFIER_TEST_KEYCLOAK_FORM") == "whole"
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[OLDEST, NEWEST])
async def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: DatabaseServer, amqp_url: str
) -> AsyncIterator[Ground]:
    """One version, with everything around it. What waits for Keycloak's clock has begun.

    With the newest the worker knows clients by the events alone; with the oldest by Keycloak's Admin API.
    """
    folder, inline = tmp_path_factory.mktemp("keycloak"), request.param == NEWEST
    async with had(ground(request.param, folder, postgres, amqp_url, inline=inline)) as made:
        made.expiring = asyncio.create_task(sessions_expire(made))
        yield made
        made.expiring.cancel()


@pytest.mark.parametrize("way", [way for way in WAYS if way != "the_realm_is_deleted"])
async def test_every_client_is_told(way: str, running: Ground) -> None:
    """However a session ends: once, with the `sub` and `sid` it knows, by a token that Keycloak's JWK Set verifies."""
    await hold(running, await WAYS[way](running))


async def test_a_row_that_cannot_be_read_breaks_no_sign_out(running: Ground) -> None:
    """The client whose row it is is not told, since nobody knows of which issuer; the others are."""
    visit = await running.sign_in("web", "app")
    broken = "UPDATE offline_client_session SET data = '{\"no' WHERE user_session_id = :sid AND client_id = :client"
    await running.sql(broken, sid=visit.sid, client=(await running.client("app"))["id"])
    await visit.browser.sign_out(visit.claims["web"]["raw"], GOODBYE)
    await hold(running, [Ending(visit=visit, clients=("web",))])


async def test_expired_sessions_are_told(running: Ground) -> None:
    """By Keycloak's cleaner, or when a browser comes back too late."""
    await hold(running, await running.expiring)


async def test_events_outlive_keycloak(running: Ground) -> None:
    """It is killed with events in its outbox. They come after its restart."""
    if running.version != NEWEST and not WHOLE:
        pytest.skip("the whole form does it with each version")
    visits = [await running.sign_in("web", "app") for _ in range(3)]
    running.proxy.refuse()
    running.proxy.end(Cut.RESET)
    for visit in visits:
        await visit.browser.sign_out(visit.claims["web"]["raw"], GOODBYE)
    await running.restart()
    await hold(running, [Ending(visit=visit, clients=("web", "app")) for visit in visits])


async def test_an_outbox_that_takes_nothing_breaks_no_sign_out(running: Ground) -> None:
    """Its folder is gone, and a file is in its place. The event comes from memory, and the log says what to do."""
    visit = await running.sign_in("web", "pair")
    away = running.outbox.with_name("outbox-away")
    running.outbox.rename(away)
    running.outbox.write_text("in the way")
    try:
        await visit.browser.sign_out(visit.claims["web"]["raw"], GOODBYE)
        await hold(running, [Ending(visit=visit, clients=("web", "pair"))])
    finally:
        running.outbox.unlink()
        away.rename(running.outbox)
    assert "ERROR" in running.keycloak.log.read_text()


async def test_the_end_of_a_realm(running: Ground) -> None:
    """Its clients are told, too."""
    await hold(running, await WAYS["the_realm_is_deleted"](running))


async def test_nobody_else_was_told(running: Ground) -> None:
    """Of nothing that a test has not asked for; nor by Keycloak itself, which signs with keys of its own alone."""
    [ending] = await WAYS["another_client_signs_the_user_out"](running)
    await hold(running, [ending])
    if (expired := await running.expiring)[0] not in running.endings:  # where this test is run alone
        await hold(running, expired)
    nothing_else(running)
    headers = [jws.extract_compact(claims["raw"].encode()).headers() for claims in ending.visit.claims.values()]
    assert not running.kids & {header["kid"] for header in headers}


async def test_what_became_of_events_is_on_the_page_of_metrics(running: Ground) -> None:
    """All are published that were handed over, and those that an earlier process left; none is lost, and none waits."""
    await hold(running, await WAYS["another_client_signs_the_user_out"](running))
    await until(lambda: metric(running.keycloak, "waiting"), lambda waiting: waiting == 0)
    written, published, lost = [
        await metric(running.keycloak, name) for name in ("written_total", "published_total", "lost_total")
    ]
    assert published >= written > 0
    assert lost == 0


async def test_what_the_logs_do_not_say(running: Ground) -> None:
    """Neither who, nor which session, nor any secret."""
    log = running.keycloak.log.read_text()
    ours = "".join(line for line in log.splitlines(keepends=True) if "dev.notifier" in line)
    assert ours
    visits = [ending.visit for ending in running.endings]
    words = {word for visit in visits for word in (visit.sid, visit.sub, visit.user + "@")}
    assert not [word for word in words if word in ours]


@pytest.mark.skipif(not WHOLE, reason="the whole form does it: it builds and starts one more Keycloak")
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
async def test_sessions_that_are_in_no_table_are_warned_of(
    version: str, tmp_path: Path, postgres: DatabaseServer
) -> None:
    """Without the feature `persistent-user-sessions` most endings cannot be seen. The log says so at the start."""
    settings = plugin_settings("amqp://guest:guest@127.0.0.1:9/", "notifier", tmp_path)
    build = "--features-disabled=persistent-user-sessions"
    keycloak = plugged_in(version, tmp_path, new_database(postgres), settings, build=[build])
    try:
        keycloak.start()
        keycloak.wait()
        said = [line for line in keycloak.log.read_text().splitlines() if "dev.notifier" in line]
    finally:
        keycloak.kill()
    assert [line for line in said if "persistent-user-sessions" in line], said


@pytest.mark.skipif(not WHOLE, reason="the whole form does it: it starts one more Keycloak")
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
async def test_mistakes_stop_the_start(version: str, tmp_path: Path, postgres: DatabaseServer) -> None:
    """All of them are listed, each by its setting."""
    settings = {"url": "amqp://guest@127.0.0.1:9/", "secret-file": tmp_path / "none", "outbox-max-events": "many"}
    keycloak = plugged_in(version, tmp_path, new_database(postgres), settings)
    try:
        keycloak.start()
        with pytest.raises(AssertionError, match="did not start"):
            keycloak.wait()
    finally:
        keycloak.kill()
    log = keycloak.log.read_text()
    wrong = ("secret-file", "outbox-folder", "outbox-max-events")
    assert [name for name in wrong if f"spi-notifier--publisher--{name}" not in log] == []
