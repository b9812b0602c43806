"""A reader that drips an export of the API: it has its seconds, and holds no repair of others any longer."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from notifier.model.documents.dead_letter import dead_letter_raw
from notifier.model.errors import InputIssue
from notifier.model.message import DEAD, Lane, Message
from notifier.model.registry import Registry
from notifier.model.session_ended import SessionEnded
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.listener import Listener, listen
from notifier.network.listeners.operation import routes_of
from notifier.network.listeners.request_counts import RequestCounts
from notifier.operators.deliveries import dead_letter_routes
from notifier.operators.deliveries.dead_letter_routes import DeadLetterRoutes
from notifier.operators.deliveries.job_routes import JobRoutes
from notifier.operators.deliveries.jobs import Jobs
from notifier.operators.deliveries.message_index import MessageIndexes
from notifier.operators.deliveries.message_requests import RouteDependencies
from notifier.publishing.event_requests import ApiSources, EventRequests, build_api_app
from notifier.queues.queue_port import Queue
from tests.contract.dead_letter_samples import RULES, store_dead_letters
from tests.contract.queues import ready
from tests.system.waiting import until

pytestmark = pytest.mark.full

COUNT, SIZE = 150, 100_000  # more than the sockets on either side hold
WITHIN = 1.0  # seconds
EVERY = 0.01  # seconds between two pieces of 10,000 bytes: all of it would take 15 s


@pytest.fixture
async def dead_letters(queue: Queue) -> None:
    """Large dead letters."""
    wrong = [Message(lane=Lane.EVENTS, body=b"%d" % nth + b"x" * SIZE, tag=None) for nth in range(COUNT)]
    await store_dead_letters(queue, *(dead_letter_raw(each, [InputIssue("", "is not JSON")], 1000.0) for each in wrong))


@pytest.fixture
async def api(queue: Queue, dead_letters: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Listener]:
    """Serve the API of this queue."""
    monkeypatch.setattr(dead_letter_routes, "EXPORT_READ_SECONDS", WITHIN)
    jobs = Jobs(queue, time.time, time.monotonic)
    running = asyncio.create_task(jobs.run())
    dependencies = RouteDependencies(
        queue=queue,
        rules=lambda _: RULES,
        registry=Registry,
        jobs=jobs,
        write_audit=lambda action, **_details: None,
        clock=time.time,
        monotonic=time.monotonic,
        indexes=MessageIndexes(time.monotonic),
    )
    authorization = Authorization(lambda: None)
    routes = routes_of(DeadLetterRoutes(dependencies), authorization)
    routes += routes_of(JobRoutes(jobs, lambda action, **_details: None), authorization)
    sources = ApiSources(
        registry=Registry, tokens=lambda: None, clock=time.time, new_id=lambda: "made-up",
        counts=RequestCounts(lambda: None, time.time),
    )  # fmt: skip

    async def accept(event: SessionEnded, lane: Lane) -> None: ...

    requests = EventRequests(accept, sources)
    listener = await listen(build_api_app(requests, routes), "127.0.0.1", 0, key="api.listen", grace=1)
    yield listener
    await listener.close()
    running.cancel()


async def drip(listener: Listener, begun: asyncio.Event) -> tuple[int, bytes]:
    """Request an export and read it slowly. Return the number of bytes, and the last bytes; none after a reset."""
    loop, count, last = asyncio.get_running_loop(), 0, b""
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.setblocking(False)
        await loop.sock_connect(reader, ("127.0.0.1", listener.port))
        await loop.sock_sendall(reader, b"GET /v1/dead-letters/export HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        try:
            while piece := await loop.sock_recv(reader, 10_000):
                count, last = count + len(piece), piece
                begun.set()
                await asyncio.sleep(EVERY)
        except ConnectionResetError:
            return count, b""
    return count, last


async def test_slow_reader_does_not_delay_a_repair(queue: Queue, api: Listener) -> None:
    """Three of them at a time: each is cut off after the other, and the repair comes behind the first."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as http:
        has_them = asyncio.Event()
        dripping = [asyncio.create_task(drip(api, has_them)) for _ in range(3)]
        await has_them.wait()
        async with http.delete(f"{api.url}/v1/dead-letters?all=true&limit=5") as answer:
            job = f"{api.url}{answer.headers['Location']}"

        async def reported() -> Any:
            async with http.get(job) as answer:
                return await answer.json()

        await until(reported, lambda reported: reported["discarded"] == 5)
        assert not all(each.done() for each in dripping)
        for count, last in await asyncio.gather(*dripping):
            assert count < COUNT * SIZE
            assert not last.endswith(b"0\r\n\r\n")  # half an export does not look like a whole one
    await ready(queue, DEAD, COUNT - 5)


async def test_normal_reader_gets_the_whole_export(api: Listener) -> None:
    """However large it is: only waits for the reader count."""
    async with (
        asyncio.timeout(60),
        aiohttp.ClientSession() as http,
        http.get(f"{api.url}/v1/dead-letters/export") as answer,
    ):
        assert len((await answer.read()).splitlines()) == COUNT
