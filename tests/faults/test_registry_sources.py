"""Where clients are read from fails under load: the last good list stays, one line is logged, and nothing is lost."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.faults.conftest import Form, Tell
from tests.faults.embedded_rig import EmbeddedRig, embedded
from tests.faults.rig import CLIENTS, kill, load
from tests.features.registries.list_server import cut, page, serving
from tests.system.site import ISSUER, client
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

UP, FAILED, WELL = "registry_source_up", "registry_source_failed", "registry_source_well"


def rows(made: EmbeddedRig) -> list[dict[str, Any]]:
    """The rig's clients, as a server would list them."""
    return [client(name, made.clients.url(name)) for name in CLIENTS]


def reads(made: EmbeddedRig, **kind: Any) -> None:
    """Have the rig's clients read from there."""
    source = {"name": "theirs", "issuer": ISSUER, "every": "300ms", "timeout": "1s", **kind}
    made.site.config["registry"] = {"cache": "cache", "grace": "5m", "sources": [source]}
    made.site.write()


async def until_told(running: WorkerProcess, event: str, times: int) -> list[dict[str, Any]]:
    """Wait until the worker has logged it so often, and return the lines."""

    async def lines() -> list[dict[str, Any]]:
        return running.said(event)

    return await until(lines, lambda found: len(found) >= times)


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def _hang(_request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(5)
    return web.Response()


async def _half(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "5000"})
    await response.prepare(request)
    await response.write(b'[{"client_id": "healthy"')
    return cut(request)


def _always(**said: Any) -> Answer:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(**said)

    return answer


async def _cut(request: web.Request) -> web.StreamResponse:
    return cut(request)


WRONG: dict[str, tuple[Answer, str]] = {
    "500": (_always(status=500), "500"),
    "429": (_always(status=429, headers={"Retry-After": "60"}), "429"),
    "401": (_always(status=401), "401"),
    "elsewhere": (_always(status=302, headers={"Location": "https://x.example.com/"}), "redirect"),
    "garbage": (_always(body=b"\xff\x00<html>", content_type="application/json"), "JSON"),
    "another shape": (_always(text="7", content_type="application/json"), "list"),
    "half an answer": (_half, "theirs"),
    "no answer": (_cut, "closed"),
    "a hang": (_hang, "within 1 s"),
    "nobody any more": (_always(text="[]", content_type="application/json"), "held back"),
}


class ListServer:
    """A server that lists the rig's clients, until told to answer otherwise."""

    def __init__(self, made: EmbeddedRig) -> None:
        self._made = made
        self.answer: Answer | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer as told."""
        return page(rows(self._made)) if self.answer is None else await self.answer(request)


@contextlib.asynccontextmanager
async def listed(folder: Path) -> AsyncIterator[tuple[EmbeddedRig, ListServer]]:
    """An installation whose clients are read over HTTP."""
    async with embedded(folder) as made:
        server = ListServer(made)
        async with serving(server.handle) as url:
            reads(made, http={"url": f"{url}/clients"})
            yield made, server


@pytest.mark.fault("registry", "a server that lists the clients fails in ten ways, by turns; the worker is restarted")
@pytest.mark.timeout(600)
async def test_a_list_that_cannot_be_read(tmp_path: Path, form: Form[int], tell: Tell) -> None:
    """The list stays, and serves the next worker too, by its cache."""
    wrong = [*WRONG.values()][form(-3, 0) :]
    async with listed(tmp_path) as (made, server):
        async with load(made.publisher, rate=40) as end:
            async with worker(made.site) as running:
                for times, (answer, words) in enumerate(wrong, 1):
                    server.answer = answer
                    told = await until_told(running, FAILED, times)
                    await running.until_metric(0, UP, source="theirs")
                    await asyncio.sleep(0.4)  # read in vain once more
                    assert len(running.said(FAILED)) == times, words
                    assert words in told[-1]["reason"] or words == "theirs"
                    assert told[-1]["kept"] == ("these clients" if words == "held back" else "its last good answer")
                    server.answer = None
                    await until_told(running, WELL, times)
                    await running.until_metric(1, UP, source="theirs")
                server.answer = _cut
                await kill(running)
            async with worker(made.site) as running:
                await until_told(running, FAILED, 1)
                await end()
                await made.until_settled()
                assert await running.metric("registry_source_age_seconds") > 0
                assert await running.stop() == 0
        tell(await made.account(cause="held by a worker that was killed"), times=len(wrong))


@pytest.mark.fault("registry", "the list of clients away at the start, without a cache: events wait")
@pytest.mark.timeout(600)
async def test_no_list_at_all(tmp_path: Path, tell: Tell) -> None:
    """The worker says which source it misses and why, takes nothing, and begins by itself."""
    async with listed(tmp_path) as (made, server):
        server.answer = WRONG["500"][0]
        async with worker(made.site, ready=False) as running:
            await running.until_ready(ready=False)
            async with load(made.publisher, rate=40) as end:
                await until_told(running, FAILED, 1)
                status, body = await running.get("/readyz")
                assert status == 503
                assert "registry source theirs was never read" in json.loads(body)["problem"]
                await asyncio.sleep(0.5)
                assert not made.clients.hits
                server.answer = None
                await running.until_ready()
                await made.more(10)
                await end()
            await made.settle(running)
        tell(await made.account())
