"""What a connection may hold outside of a request, and that requests come through whole for all that."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from notifier.network.listeners.bounded_connection import HEAD, ConnectionBudget
from notifier.network.listeners.listener import Deadlines, Listener
from tests.publishing.serving import serving

LONG = 200_000  # bytes of a body: many reads
TIMEOUT = 30.0


async def echo(request: web.Request) -> web.Response:
    """Answer with the length of the body and its end."""
    try:
        body = await request.read()
    except web.RequestPayloadError:
        return web.Response(status=400, text="broken")
    return web.Response(text=f"{len(body)} {body[-3:].decode()}")


@asynccontextmanager
async def listening(budget: ConnectionBudget | None = None, **more: object) -> AsyncIterator[Listener]:
    """A listener that echoes."""
    app = web.Application(client_max_size=10**6)
    app.add_routes([web.route("*", "/{path:.*}", echo)])
    async with serving(app, budget=budget, **more) as listener:
        yield listener


async def answers(listener: Listener, *parts: bytes) -> bytes:
    """Send these parts one by one, and return all that comes until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        return await asyncio.wait_for(reader.read(), TIMEOUT)
    finally:
        writer.close()


def head(method: str, *fields: str, version: str = "1.1") -> bytes:
    """A request's line and fields."""
    return "\r\n".join([f"{method} /x HTTP/{version}", "Host: localhost", *fields, "", ""]).encode()


def chunked(body: bytes, size: int) -> bytes:
    """The body in chunks of this size."""
    parts = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


LAST = head("GET", "Connection: close")
BODIES = {
    "no body": (head("GET"), "0 "),
    "a length": (head("POST", "Content-Length: 5") + b"hello", "5 llo"),
    "a long one": (head("POST", f"content-length:{LONG}") + b"a" * LONG, f"{LONG} aaa"),
    "chunks": (head("POST", "Transfer-Encoding: chunked") + chunked(b"b" * LONG, 8192), f"{LONG} bbb"),
    "chunks of one byte": (head("POST", "Transfer-Encoding: chunked") + chunked(b"c" * 3000, 1), "3000 ccc"),
    "empty lines": (head("POST", "Transfer-Encoding: chunked") + chunked(b"\r\n\r\n" * 3000 + b"end", 7), "12003 end"),
    "lines behind a length": (head("POST", "Content-Length: 8") + b"\r\n\r\n\r\n\r\n", "8 \n\r\n"),
    "trailers": (head("POST", "Transfer-Encoding: chunked") + b"2\r\nok\r\n0\r\nA: b\r\nC: d\r\n\r\n", "2 ok"),
    "an empty line before it": (b"\r\n" + head("GET"), "0 "),
    "an upgrade": (head("GET", "Connection: Upgrade", "Upgrade: websocket"), "0 "),
}


@pytest.mark.parametrize("size", [10**6, 4096, 61, 1], ids=["at once", "parts", "small parts", "bytes"])
async def test_requests_behind_one_another_are_answered_in_order(size: int) -> None:
    """Each with its whole body, however it is cut on the way."""
    few = {name: each for name, each in BODIES.items() if size > 100 or len(each[0]) < 20_000}
    sent = b"".join(each for each, _ in few.values()) * 2 + LAST
    async with listening() as listener:
        got = await answers(listener, *(sent[at : at + size] for at in range(0, len(sent), size)))
    bodies = [answer.partition(b"\r\n\r\n")[2].decode() for answer in got.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [*(text for _, text in few.values()), *(text for _, text in few.values()), "0 "]


@pytest.mark.parametrize(
    "broken",
    [
        b"zz\r\n",
        b"5\r\nhelloXX",
        b"5\r\nhello\r\n0\r\n" + b"A: b\r\n" * 1000,
        b"5" + b";a=b" * 20_000,
        b"5\r\nhello\r\n0\r\nno colon\r\n\r\n",
    ],
    ids=["a size", "an end", "trailers", "extensions", "a trailer"],
)
async def test_nothing_is_read_behind_a_broken_body(broken: bytes) -> None:
    """400, and the connection is closed."""
    async with listening() as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(head("POST", "Transfer-Encoding: chunked") + b"3\r\nyes\r\n" + broken + b"g" * 10**7)
        assert b"HTTP/1.1 400" in await asyncio.wait_for(reader.read(1000), TIMEOUT)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(writer.drain(), TIMEOUT)
        writer.close()


@pytest.mark.parametrize("fields", [8, 5], ids=["62 KiB", "just more"])
async def test_a_head_beyond_32_kib_is_refused(fields: int) -> None:
    """Complete or not: 400, and the connection is closed."""
    large = head("GET", *(f"X{n}: " + "a" * 7000 for n in range(fields)))
    assert len(large) > HEAD
    async with listening() as listener:
        assert (await answers(listener, large)).startswith(b"HTTP/1.1 400")
        assert (await answers(listener, large[:-2] + b"Y: " + b"b" * 5000)).startswith(b"HTTP/1.1 400")


async def test_a_head_of_30_kib_is_taken() -> None:
    """A header of 8 KiB is none too large, and there may be several."""
    async with listening() as listener:
        got = await answers(listener, head("GET", "Connection: close", *(f"X{n}: " + "a" * 7400 for n in range(4))))
    assert got.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("line", [b"\x16\x03\x01", b"GET /\r\n", b"nonsense\r\n", b"GET / HTTP/9.9\r\n", b"{}"])
async def test_what_is_no_request_is_refused_at_once(line: bytes) -> None:
    """Nobody waits for the rest of it."""
    async with listening(deadlines=Deadlines(header=TIMEOUT)) as listener:
        assert b" 400 " in (await asyncio.wait_for(answers(listener, line), TIMEOUT / 2))[:20]


async def test_beyond_the_budget_the_connection_that_holds_most_is_closed() -> None:
    """The others are served."""
    async with listening(ConnectionBudget(30_000)) as listener:
        opened = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(3)]
        for (_, writer), size in zip(opened, (4000, 20_000, 10_000), strict=True):
            writer.write(head("GET", "Connection: close")[:-2])
            writer.write(b"".join(b"Y: " + b"b" * 995 + b"\r\n" for _ in range(size // 1000)))
            await writer.drain()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(opened[1][0].read(), TIMEOUT)
        for reader, writer in (opened[0], opened[2]):
            writer.write(b"\r\n")
            assert (await asyncio.wait_for(reader.read(), TIMEOUT)).startswith(b"HTTP/1.1 200")
            writer.close()
        opened[1][1].close()


async def test_a_request_counts_though_its_sender_has_gone() -> None:
    """Its body was complete before the connection was closed."""
    taken = asyncio.get_running_loop().create_future()

    async def take(request: web.Request) -> web.Response:
        taken.set_result(await request.read())
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/x", take)])
    async with serving(app) as listener:
        _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(head("POST", "Content-Length: 5") + b"hello")
        writer.close()
        assert await asyncio.wait_for(taken, TIMEOUT) == b"hello"
