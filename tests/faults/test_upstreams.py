"""Upstream providers send logouts while the queue, their own keys, or those who know the sessions are away.

What was taken is told in the end, each once; and what one upstream lacks holds up no other.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.embedded_rig import embedded
from tests.faults.rig import Rig, load, rig
from tests.faults.web_rig import SAME_SUB, SessionServer, WebFace, faced, fails, hangs, rubbish
from tests.support.databases import DatabaseServer, postgresql
from tests.system.tcp_proxy import Ending, TcpProxy
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

AWAY = "the queue away while upstreams send: they get 503, send again, and each logout is delivered"
UNTOLD = "who knows the sessions hangs, is down or talks rubbish: those logouts wait, those of others do not"
MANY, FEW = 300, 15  # logouts: the listener serves 256 requests at a time
REFUSED = 20  # requests that are answered 503 before the queue comes back


@contextlib.asynccontextmanager
async def sending(face: WebFace, rate: float = 50.0) -> AsyncIterator[None]:
    """Let every upstream send while the block lasts."""
    async with contextlib.AsyncExitStack() as stack:
        for name, sender in face.upstreams.items():
            await stack.enter_async_context(load(sender, rate, face.first(name)))
        yield


async def sees_it_away(face: WebFace) -> None:
    """Wait until the queue was away for many of an upstream's requests."""
    sender = face.upstreams["login"]
    await sender.until_answered(503, sender.answers[503] + REFUSED, 60)


@pytest.mark.fault("upstream", AWAY)
@pytest.mark.timeout(600)
async def test_the_broker_is_away(tmp_path: Path, amqp_url: str, prefix: str, form: Form[int], tell: Tell) -> None:
    """Connections are reset, and no new ones are accepted."""
    times, at = form(1, 5), urlsplit(amqp_url)
    async with TcpProxy(at.hostname or "", at.port or 5672) as way:
        url = at._replace(netloc=f"{at.username}:{at.password}@127.0.0.1:{way.port}").geturl()
        async with rig(tmp_path, url, prefix) as made, faced(made, {"login": SAME_SUB}) as face:
            async with worker(made.site) as running:
                async with sending(face):
                    for _ in range(times):
                        await made.more(60)
                        way.refuse()
                        way.end(Ending.RESET)
                        await sees_it_away(face)
                        await way.accept()
                        await running.until_ready()
                await made.settle(running)
            tell(await made.account(cause="held when the connection was lost"), times=times)


@pytest.mark.fault(
    "upstream", "its keys hang or cannot be read: its logouts are delivered later, those of others at once"
)
@pytest.mark.timeout(600)
async def test_the_keys_of_one_are_away(tmp_path: Path, form: Form[int], tell: Tell) -> None:
    """A first worker has no keys yet. More of that upstream's requests come than the listener serves at a time."""
    troubles = [hangs, fails, rubbish][: form(1, 3)]
    async with embedded(tmp_path) as made, faced(made, {"login": SAME_SUB, "other": SAME_SUB}) as face:
        sender, other = face.upstreams["login"], face.upstreams["other"]
        for nth, trouble in enumerate(troubles):
            face.servers["login"].trouble = trouble
            numbers = range(nth * MANY, (nth + 1) * MANY)
            async with worker(made.site) as running:
                async with asyncio.TaskGroup() as group:
                    group.create_task(sender.publish([face.first("login") + each for each in numbers], rate=1000))
                    await sender.until_answered(503, sender.answers[503] + REFUSED, 60)
                    await other.publish([face.first("other") + each for each in numbers[:FEW]], rate=50)
                    await face.until_told("other")
                    assert await running.metric("upstream_requests_total", upstream="login", result="accepted") == 0
                    face.servers["login"].trouble = None
                await made.settle(running)
        assert 503 not in other.answers
        assert sender.answers.keys() >= {200, 503}
        tell(await made.account(), times=len(troubles))


async def send(face: WebFace, numbers: range) -> None:
    """Have every upstream send these, and wait until they are taken."""
    async with asyncio.TaskGroup() as group:
        for name, sender in face.upstreams.items():
            group.create_task(sender.publish([face.first(name) + number for number in numbers], rate=25))


async def put_off(running: WorkerProcess, name: str) -> float:
    """How often nobody could tell this upstream's sessions."""
    return await running.metric("upstream_lookups_total", upstream=name, result="away")


async def strangers_ask(face: WebFace, name: str) -> None:
    """Have browsers ask about made-up sessions at this upstream, more than there are turns."""
    url = f"http://127.0.0.1:{face.web}/upstreams/{name}/frontchannel-logout"
    query = {"iss": face.servers[name].base, "sid": "made-up"}

    async def ask(session: aiohttp.ClientSession) -> int:
        async with session.get(url, params=query) as answer:
            return answer.status

    async with aiohttp.ClientSession() as session:
        assert set(await asyncio.gather(*(ask(session) for _ in range(20)))) == {503}


def trouble(nth: int, asked: SessionServer, database: DatabaseServer) -> contextlib.AbstractContextManager[None]:
    """The database of one upstream and the server of another are in trouble meanwhile."""
    asked.trouble = (hangs, fails, rubbish)[nth % 3]
    return database.frozen() if nth % 2 == 0 else down(database)


@contextlib.contextmanager
def down(database: DatabaseServer) -> Iterator[None]:
    """It is killed, and started again at the end."""
    database.kill()
    yield
    database.start()


@pytest.mark.parametrize(
    "installation",
    [
        pytest.param("rabbitmq", marks=pytest.mark.fault("upstream", UNTOLD)),
        pytest.param("sqlite", marks=pytest.mark.fault("embedded queue", UNTOLD)),
    ],
    indirect=True,
)
@pytest.mark.timeout(600)
async def test_nobody_can_tell_the_sessions(installation: Rig, form: Form[int], tell: Tell) -> None:
    """A PostgreSQL and a server are in trouble at once, and browsers of strangers ask there too. Messages wait."""
    times = form(1, 6)
    with postgresql() as database:
        sql = {"url": database.url, "query": "SELECT 'alice' AS sub, :sid AS sid"}
        async with SessionServer() as asked, SessionServer() as well:
            resolve = {"table": {"sql": sql}, "asked": asked.resolve, "well": well.resolve, "same": SAME_SUB}
            async with faced(installation, resolve) as face, worker(installation.site) as running:
                for nth in range(times):
                    with trouble(nth, asked, database):
                        await send(face, range(nth * FEW, (nth + 1) * FEW))
                        await strangers_ask(face, "asked")
                        await asyncio.gather(face.until_told("well"), face.until_told("same"))
                        for name in ("table", "asked"):
                            await until(lambda name=name: put_off(running, name), bool)  # type: ignore[misc]
                            assert face.told(name) == nth * FEW
                    asked.trouble = None
                    await installation.until_settled()
                assert await running.stop() == 0
    tell(await installation.account(), times=times)
