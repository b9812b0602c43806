"""Sign-outs while Keycloak is killed, while the outbox is full, and thousands at once: none forgotten, none untrue.

    NOTIFIER_TEST_FAULTS=long pytest -s tests/publishers/keycloak/test_hard_endings.py

Sessions are copied into Keycloak's tables, which are the truth (`crowd`). One Keycloak on PostgreSQL serves all tests.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import median

import aiohttp
import pytest
import pytest_asyncio

from tests.databases import DatabaseServer
from tests.keycloak_browser import KeycloakBrowser
from tests.publishers.keycloak.conftest import Form, had, long_form_alone
from tests.publishers.keycloak.debugger import debugged, stop_in
from tests.publishers.keycloak.nodes import MANY, Nodes, nodes
from tests.publishers.keycloak.plugged import metric
from tests.rabbitmq_node import free_ports
from tests.small_disk import disk_if_we_may, filled
from tests.system.tcp_proxy import Ending
from tests.system.waiting import until

LIMIT = 2.0  # seconds that a sign-out may wait for us; how long Keycloak itself takes is seen just before
ROOM = 200  # events that the outbox takes
DISK_MIB = 4
[PORT] = free_ports(1)
MOMENTS = {
    "written, not committed": ("outbox.Slip.written", False),
    "committed, not renamed": ("Endings.afterCompletion", True),
}
"""The method that comes next, and whether the session is gone from the table by then."""
IN_MEMORY = "events are kept in memory alone"
pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3000)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    tmp_path_factory: pytest.TempPathFactory, postgres: DatabaseServer, amqp_url: str
) -> AsyncIterator[Nodes]:
    """One Keycloak with a small outbox, on a small disk where we may mount one."""
    folder = tmp_path_factory.mktemp("hard")
    java = {"JAVA_OPTS_APPEND": f"-XX:TieredStopAtLevel=1 {debugged(PORT)}"}
    with disk_if_we_may(folder / "outbox", DISK_MIB):
        started = nodes(folder, postgres, amqp_url, environment=java, outbox_max_events=ROOM, publish_limit="2s")
        async with had(started) as made:
            yield made


@contextlib.asynccontextmanager
async def away(running: Nodes) -> AsyncIterator[None]:
    """The broker."""
    running.proxy.refuse()
    running.proxy.end(Ending.RESET)
    try:
        yield
    finally:
        await running.proxy.accept()


@pytest.mark.parametrize("moment", MOMENTS)
async def test_killed_at_a_set_moment(moment: str, running: Nodes) -> None:
    """The file says that the session may live. It is gone: the event is told; or lives: it is dropped."""
    method, ended = MOMENTS[moment]
    [sid] = await running.more(1)
    async with stop_in(PORT, f"dev.notifier.keycloak.{method}") as stop:
        ending = asyncio.create_task(running.end([sid]))
        await stop.reached()
        assert (running.files(".pending"), running.files(".json")) == (1, 0)
        assert (sid not in await asyncio.to_thread(running.crowd.living)) is ended
        await running.node.kill()
    ending.cancel()
    await running.node.start()
    await until(_files(running), lambda files: files == running.files("lock"))
    verdict = await running.verdict([sid])
    assert verdict.holds, verdict
    assert verdict.ended == int(ended)


def _files(running: Nodes) -> Callable[[], Awaitable[int]]:
    return lambda: asyncio.to_thread(running.files, "")


@long_form_alone
async def test_killed_amid_sign_outs(running: Nodes, postgres: DatabaseServer, chance: random.Random) -> None:
    """At any moment, every other time with the database frozen in the middle of commits. What ended is told."""
    kills, pending = 12, []
    sids = await running.more(kills * 400)
    for turn in range(kills):
        living = await asyncio.to_thread(running.crowd.living)
        ending = asyncio.create_task(running.end([sid for sid in sids if sid in living]))
        enough = running.answered + chance.randint(5, len(sids) // kills - 50)
        await running.until_answered(enough)
        await asyncio.sleep(chance.uniform(0, 0.05))
        if turn % 2:
            with postgres.frozen():
                await asyncio.sleep(0.2)
                await running.node.kill()
        else:
            await running.node.kill()
        pending.append(running.files(".pending"))
        ending.cancel()
        await running.node.start()
    verdict = await running.verdict(sids)
    print(f"{kills} kills: {verdict.ended} ended, {len(sids) - verdict.ended} live, files pending at kills: {pending}")  # noqa: T201
    assert verdict.holds, verdict
    assert verdict.ended > 0
    assert running.files("") == running.files("lock"), "something is left"


async def test_the_outbox_is_full(running: Nodes) -> None:
    """Sign-outs go on; what finds no room is kept in memory. The log and a metric say so, and all is told later."""
    usual = await running.end(await running.more(20))
    sids = await running.more(ROOM + 40)
    async with away(running):
        took = await running.end(sids)
        assert len(took) == len(sids)
        assert median(took) < median(usual) + LIMIT
        assert await metric(running.node.server, "waiting") == len(sids)
        assert await metric(running.node.server, "waiting_in_memory") == len(sids) - ROOM
        assert IN_MEMORY in running.log()
        assert "outbox-max-events" in running.log()
    verdict = await running.verdict(sids)
    assert verdict.holds, verdict
    assert verdict.ended == len(sids)
    assert await metric(running.node.server, "lost_total") == 0


async def test_all_sessions_of_the_realm_end(running: Nodes, form: Form) -> None:
    """Of thousands, by `logout-all`: each is told once. So is who signs in meanwhile, if that was ended too."""
    sids = [*await running.more(form(150, 5000)), running.template]
    users = form(2, 8)
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        browsers = [
            await stack.enter_async_context(KeycloakBrowser(running.node.server.url, MANY)) for _ in range(users)
        ]
        status, *found = await asyncio.gather(
            running.node.ask(session, "POST", "/logout-all"),
            *(running.sign_in(browser) for browser in browsers),
            return_exceptions=True,
        )
        assert status == 200
    signed_in = [sid for sid in found if isinstance(sid, str)]
    verdict = await running.verdict([*sids, *signed_in])
    print(f"logout-all: {verdict.ended} ended, {len(sids)} of them old, {len(signed_in)} signed in meanwhile")  # noqa: T201
    assert verdict.holds, verdict
    assert verdict.ended >= len(sids)
    assert {each.lane for each in running.tap.seen if each.sid in sids} == {"bulk"}


async def test_the_disk_is_full(running: Nodes, form: Form) -> None:
    """Sign-outs go on, in memory. In the long form the broker is away until there is room, and Keycloak is killed."""
    if not await asyncio.to_thread(running.outbox.is_mount):
        pytest.skip("no small file system can be mounted here")
    async with KeycloakBrowser(running.node.server.url, MANY) as browser:
        running.template = await running.sign_in(browser)
    usual = await running.end(await running.more(20))
    sids = await running.more(60)
    async with away(running):
        with filled(running.outbox):
            took = await running.end(sids)
            assert await metric(running.node.server, "waiting_in_memory") == len(sids)
            assert "No space left on device" in running.log()
        if form(0, 1):
            await _until_on_disk(running)
            await running.node.kill()
            await running.node.start()
    assert median(took) < median(usual) + LIMIT
    verdict = await running.verdict(sids)
    assert verdict.holds, verdict
    assert verdict.ended == len(sids)


async def _until_on_disk(running: Nodes) -> None:
    for _ in range(60):
        if not await metric(running.node.server, "waiting_in_memory"):
            return
        await asyncio.sleep(1)
    raise AssertionError("the outbox takes nothing yet")
