"""Where clients are read from fails under load: the last good list stays, one line is logged, and nothing is lost."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.adapters.registries.list_server import cut, page, serving
from tests.databases import PASSWORD, DatabaseServer, postgresql
from tests.faults.conftest import Form, Tell
from tests.faults.embedded_rig import EmbeddedRig, embedded
from tests.faults.rig import CLIENTS, kill, load
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


def _tables(database: DatabaseServer, made: EmbeddedRig) -> None:
    values = ", ".join(f"('{each['client_id']}', '{each['backchannel_logout_uri']}', 'ES256')" for each in rows(made))
    database.run(
        "CREATE TABLE rp (client_id text, backchannel_logout_uri text, id_token_signed_response_alg text)",
        f"INSERT INTO rp VALUES {values}",
        "GRANT SELECT ON rp TO reader",
    )


@pytest.mark.fault("registry", "PostgreSQL with the clients killed, frozen, slow, its password changed, its table gone")
@pytest.mark.timeout(600)
async def test_a_database_that_cannot_be_read(tmp_path: Path, tell: Tell) -> None:
    """Everything is well again by itself, or by a new password in the file."""

    async def fails(running: WorkerProcess, times: int) -> None:
        told = await until_told(running, FAILED, times)
        await running.until_metric(0, UP, source="theirs")
        assert PASSWORD not in running.log
        assert len(told) == times

    async def well(running: WorkerProcess, times: int) -> None:
        await until_told(running, WELL, times)
        await running.until_metric(1, UP, source="theirs")

    with postgresql() as database:
        async with embedded(tmp_path) as made:
            await asyncio.to_thread(_tables, database, made)
            (tmp_path / "url").write_text(database.url)
            reads(made, sql={"url_file": "url", "query": "SELECT * FROM rp"})
            async with worker(made.site) as running:
                async with load(made.publisher, rate=40) as end:
                    await asyncio.to_thread(database.kill)
                    await fails(running, 1)
                    await asyncio.to_thread(database.start)
                    await well(running, 1)
                    with database.frozen():
                        await fails(running, 2)
                    await well(running, 2)
                    await asyncio.to_thread(
                        database.run, "ALTER TABLE rp RENAME TO real",
                        "CREATE VIEW rp AS SELECT real.* FROM real, LATERAL (SELECT pg_sleep(5)) s",
                        "GRANT SELECT ON rp TO reader",
                    )  # fmt: skip
                    await fails(running, 3)
                    await asyncio.to_thread(database.run, "DROP VIEW rp")
                    await asyncio.sleep(1.5)  # another fault, another line
                    await asyncio.to_thread(database.run, "ALTER TABLE real RENAME TO rp")
                    await well(running, 3)
                    count = len(running.said(FAILED))
                    await asyncio.to_thread(database.run, "ALTER ROLE reader PASSWORD 'another-one'")
                    await fails(running, count + 1)
                    (tmp_path / "url").write_text(database.url.replace(PASSWORD, "another-one"))
                    await well(running, 4)
                    assert "another-one" not in running.log
                    await end()
                await made.settle(running)
            tell(await made.account(), times=5)


@pytest.mark.fault("registry", "clients that are registered a moment before their sessions end")
@pytest.mark.timeout(600)
async def test_a_client_that_was_registered_a_moment_ago(tmp_path: Path, tell: Tell) -> None:
    """The source is read when its first logout comes, long before its time."""
    async with embedded(tmp_path) as made:
        known: list[dict[str, Any]] = []

        async def handle(_request: web.Request) -> web.StreamResponse:
            return page(known)

        async with serving(handle) as url:
            reads(made, every="10m", http={"url": f"{url}/clients"})
            async with worker(made.site) as running:
                await until_told(running, "registry_refreshed", 1)
                known += rows(made)
                async with load(made.publisher, rate=10) as end:
                    await made.more(6)
                    await end()
                await made.settle(running)
            tell(await made.account())
