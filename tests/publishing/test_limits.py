"""Limits of a listener against slow, large and many requests of strangers, and against one greedy token."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import uvloop
from aiohttp import web

from notifier.model.message import Lane
from notifier.model.session_ended import SessionEnded
from notifier.network.listeners.listener import Listener
from notifier.publishing.event_requests import (
    LARGE_BODY_BYTES,
    MAX_LARGE_EVENTS,
    MAX_LARGE_OF_ONE,
    EventRequests,
    build_api_app,
)
from notifier.publishing.route_steps import ApiLimits
from notifier.settings.api_tokens import ApiToken
from tests.publishing.serving import ISS, serving, sources_of, token
from tests.system.waiting import until

PATIENCE = 30.0
EVENT = json.dumps({"iss": ISS, "sub": "alice", "sid": "s1", "clients": ["shop"]}).encode()
REQUEST = (
    b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
)


class Gate:
    """Hold each event until the test releases it."""

    def __init__(self) -> None:
        self.entered = asyncio.Semaphore(0)
        self.go = asyncio.Event()
        self.go.set()

    async def accept(self, event: SessionEnded, lane: Lane) -> None:
        self.entered.release()
        await self.go.wait()


@asynccontextmanager
async def api(
    gate: Gate,
    tokens: tuple[ApiToken, ...] | None = None,
    limits: ApiLimits | None = None,
    more: Iterable[web.RouteDef] = (),
    **listening: Any,
) -> AsyncIterator[Listener]:
    requests = EventRequests(gate.accept, sources_of(lambda: tokens), limits)
    async with serving(build_api_app(requests, more), **listening) as listener:
        try:
            yield listener
        finally:
            gate.go.set()


@asynccontextmanager
async def connected(listener: Listener) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    try:
        async with asyncio.timeout(PATIENCE):
            yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> int:
    """Read the next answer to its end, and return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return int(head.split(b" ")[1])


# ── slow requests ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_header_has_a_time_limit() -> None:
    """On a new connection, also a silent one, and on a kept one, for any number and rate of bytes."""
    async with api(Gate(), header_timeout=2) as listener:

        async def given_up(*pieces: bytes, kept: bool = True) -> None:
            async with connected(listener) as (reader, writer):
                if kept:
                    writer.write(REQUEST % (len(EVENT), EVENT))
                    assert await answer(reader) == 202
                with contextlib.suppress(ConnectionError):
                    for piece in pieces:
                        writer.write(piece)
                        await asyncio.sleep(0.5)
                    assert await reader.read() == b"", f"answered although it had only sent {pieces!r}"

        beginnings = (b"POST /v1/ev", REQUEST[:70], b"GET / HTTP/1.1\r\nHost: localhost\r\nX: 1\r\n")
        slowly = (REQUEST[n : n + 1] for n in range(8))
        empty_lines = given_up(b"\r\n\r\n", kept=False)
        await asyncio.gather(*map(given_up, beginnings), given_up(*slowly), given_up(b"", kept=False), empty_lines)


async def test_idle_connection_is_kept_for_longer_than_a_header_may_take() -> None:
    """A load balancer that uses it again after a minute would otherwise answer 502 at times, and lose the request."""
    async with api(Gate(), header_timeout=0.5) as listener, connected(listener) as (reader, writer):
        for _ in range(2):
            writer.write(REQUEST % (len(EVENT), EVENT))
            assert await answer(reader) == 202
            await asyncio.sleep(1)
        assert listener.runner.server is not None
        [handler] = listener.runner.server.connections
        assert handler.keepalive_timeout > 600


async def test_slow_body_ends_at_its_time_limit_on_any_route() -> None:
    """A route without a deadline uses the listener's."""
    read: list[bytes] = []

    async def put(request: web.Request) -> web.Response:
        read.append(await request.read())
        return web.Response()

    limits = ApiLimits(body_timeout=-1.5)  # what is left of it and the grace is half a second
    head = b"PUT /thing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"
    routes = [web.put("/thing", put)]
    async with api(Gate(), limits=limits, more=routes) as listener, connected(listener) as (reader, writer):
        writer.write(head + b"bo")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    async with api(Gate(), more=routes) as listener, connected(listener) as (reader, writer):
        writer.write(head + b"body")
        assert await answer(reader) == 200
    assert read == [b"body"]


async def test_unread_answer_is_closed() -> None:
    """It would occupy memory without limit. A client that reads receives all of it."""
    large = bytes(32 * 2**20)

    async def get(_: web.Request) -> web.Response:
        return web.Response(body=large)

    async def connections() -> int:
        assert listener.runner.server is not None
        return len(listener.runner.server.connections)

    routes = [web.get("/large", get)]
    async with (
        api(Gate(), answer_timeout=0.5, more=routes) as listener,
        connected(listener) as (reader, writer),
    ):
        writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await until(connections, lambda count: count == 0)
        read = 0
        with contextlib.suppress(ConnectionError):
            while some := await reader.read(2**20):
                read += len(some)
        assert read < len(large)
    async with (
        api(Gate(), more=routes) as listener,
        aiohttp.ClientSession() as session,
        session.get(f"{listener.url}/large") as whole,
    ):
        assert len(await whole.read()) == len(large)


# ── large requests ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_body_larger_than_the_limit_is_not_read() -> None:
    """413 by Content-Length before the first byte; without that header as soon as the limit is passed."""
    async with api(Gate(), limits=ApiLimits(max_event=1000)) as listener:
        async with connected(listener) as (reader, writer):
            writer.write(REQUEST % (10**12, b""))
            assert await answer(reader) == 413
        async with connected(listener) as (reader, writer):
            head = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n" + b"800\r\n%s\r\n" % (b"x" * 2048))
            assert await answer(reader) == 413


async def test_large_events_of_one_token_wait_for_each_other() -> None:
    """However many one token sends while the queue is slow, a large event of another token is published next."""
    gate = Gate()
    gate.go.clear()
    large = EVENT + b" " * LARGE_BODY_BYTES
    async with (
        api(gate, (token("greedy"), token("other"))) as listener,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as http,
        asyncio.TaskGroup() as group,
    ):

        async def post(name: str) -> int:
            async with http.post(f"{listener.url}/v1/events", data=large, headers=_json(name)) as answer_:
                return answer_.status

        greedy = [group.create_task(post("greedy")) for _ in range(MAX_LARGE_EVENTS + 1)]
        for _ in range(MAX_LARGE_OF_ONE):
            await gate.entered.acquire()
        other = group.create_task(post("other"))
        async with asyncio.timeout(ApiLimits().accept_timeout / 2):
            await gate.entered.acquire()
        gate.go.set()
        assert {await task for task in (other, *greedy)} == {202}


# ── many requests ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_oldest_of_too_many_connections_is_closed() -> None:
    """It has had the most time for a request; the new one and the remaining ones are served."""
    async with (
        api(Gate(), connections=2) as listener,
        connected(listener) as (oldest, _),
        connected(listener) as (second, write),
        connected(listener) as (third, further),
    ):
        for read, writer in ((third, further), (second, write)):
            writer.write(REQUEST % (len(EVENT), EVENT))
            assert await answer(read) == 202
        assert await oldest.read() == b""


async def test_connection_with_a_running_request_is_answered_before_closing() -> None:
    """A new connection does not interrupt a running publish."""
    gate = Gate()
    gate.go.clear()
    async with api(gate, connections=2) as listener, connected(listener) as (busy, writer):
        writer.write(REQUEST % (len(EVENT), EVENT))
        await gate.entered.acquire()
        async with connected(listener), connected(listener) as (newcomer, further):
            further.write(b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await answer(newcomer) == 200
            gate.go.set()
            assert await answer(busy) == 202
            assert await busy.read() == b""


async def test_new_connection_is_503_while_all_have_running_requests() -> None:
    """503 with Retry-After, and the connection is closed; after one has ended there is room."""
    gate = Gate()
    gate.go.clear()
    async with api(gate, connections=2) as listener:
        async with connected(listener) as (reader, writer), connected(listener) as (other, further):
            for write in (writer, further):
                write.write(REQUEST % (len(EVENT), EVENT))
                await gate.entered.acquire()
            async with connected(listener) as (refused, _):
                answer_ = await refused.read()
            assert answer_.startswith(b"HTTP/1.1 503")
            assert b"Retry-After: 1\r\n" in answer_
            gate.go.set()
            assert [await answer(reader), await answer(other)] == [202, 202]
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as http:

            async def post() -> int:
                async with http.post(f"{listener.url}/v1/events", data=EVENT, headers=_json()) as answer_:
                    return answer_.status

            await until(post, lambda status: status == 202)  # the listener notices the ends asynchronously


def test_new_connection_is_503_on_uvloop() -> None:
    """The worker's loop, whose transports do not derive from asyncio's."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_new_connection_is_503_while_all_have_running_requests())


def _json(bearer: str | None = None) -> dict[str, str]:
    sent = {"Content-Type": "application/json"}
    return sent if bearer is None else {**sent, "Authorization": f"Bearer {bearer}-secret"}


async def test_concurrency_limit_of_one_token_and_of_all() -> None:
    """429 with Retry-After above each limit, which bound the events in memory; accepted later.

    Others are served above the limit of one token.
    """
    gate = Gate()
    gate.go.clear()
    tokens = token("greedy"), token("other")
    async with (
        api(gate, tokens, ApiLimits(requests=3, requests_of_token=2)) as listener,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as http,
    ):

        async def post(name: str) -> tuple[int, str | None]:
            async with http.post(f"{listener.url}/v1/events", data=EVENT, headers=_json(name)) as answer_:
                return answer_.status, answer_.headers.get("Retry-After")

        async with asyncio.TaskGroup() as group:
            running = [group.create_task(post("greedy")) for _ in range(2)]
            for _ in running:
                await gate.entered.acquire()
            assert await post("greedy") == (429, "1")
            assert await post("nobody") == (401, None)
            others = group.create_task(post("other"))
            await gate.entered.acquire()
            assert await post("other") == (429, "1")
            gate.go.set()
        assert [task.result() for task in (*running, others)] == [(202, None)] * 3
        assert await post("greedy") == (202, None)
