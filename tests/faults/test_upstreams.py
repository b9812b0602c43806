"""Upstream providers send logouts while the queue or their own keys are unavailable.

What was taken is told in the end, each once; and what one upstream lacks holds up no other.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.embedded_rig import embedded
from tests.faults.rig import load, rig
from tests.faults.web_rig import WebFace, faced, fails, hangs, rubbish
from tests.system.tcp_proxy import Ending, TcpProxy
from tests.system.worker_process import worker

AWAY = "the queue away while upstreams send: they get 503, send again, and each logout is delivered"
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
        async with rig(tmp_path, url, prefix) as made, faced(made, "login") as face:
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
    async with embedded(tmp_path) as made, faced(made, "login", "other") as face:
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
