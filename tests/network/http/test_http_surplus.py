"""Test heads and surplus bytes of requests."""

import asyncio
import gc
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from weakref import WeakSet

import aiohttp
import pytest

from notifier.model.client import Client, Route, TlsFiles
from notifier.model.record import copy_record
from notifier.network.http.connections import MAX_WIRE_BYTES, OpenConnections, WatchedConnection
from notifier.network.http.requests import MAX_CONTEXTS, Heads
from tests.network.http.http_requests import opened, outcome, request
from tests.support import behaviours as do
from tests.support.receivers import scripted

# ── Clients that send more than the answer: the first complete answer decides ────────────────────────────────────────


CLIENT = Client(iss="https://id.example.com", client_id="shop", backchannel_logout_uri="https://shop.example.com/out")
NONE = b"HTTP/1.1 204 No Content\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\n\r\n"

SURPLUS = {
    "the same again": (NONE, NONE * 16_000),
    "other answers": (NONE, (OK + b"Content-Length: 0\r\n\r\n") * 8_000),
    "a failure": (NONE, b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
    "one byte": (NONE, b"x"),
    "no HTTP": (NONE, b"\0" * 300_000),
    "an empty line": (NONE, b"\r\n"),
    "a body that 204 cannot have": (b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", b"hello"),
    "more than its length": (OK + b"Content-Length: 5\r\n\r\nhello", b"more" * 1000),
    "answers behind a body": (OK + b"Content-Length: 5\r\n\r\nhello", NONE * 16_000),
    "answers behind no body": (OK + b"content-length:0\r\n\r\n", NONE * 16_000),
    "answers behind chunks": (CHUNKS + b"\r\n", NONE * 16_000),
    "answers behind trailers": (CHUNKS + b"A: b\r\nC: d\r\n\r\n", NONE * 16_000),
    "no HTTP behind chunks": (CHUNKS + b"\r\n", b"garbage" * 1000),
    "answers behind early hints": (INTERIM * 3 + NONE, NONE * 16_000),
    "early hints behind it": (NONE, INTERIM * 16_000),
    "lines without CR": (b"HTTP/1.1 204 No\nA: b\n\n", NONE * 16_000),
    "a length with a space": (OK + b"Content-Length : 0\r\n\r\n", NONE * 16_000),
}


class FakeWire(asyncio.Transport):
    """A transport without a peer."""

    closed = False

    def abort(self) -> None:
        """Close the transport."""
        self.closed = True

    close = abort

    def pause_reading(self) -> None:
        """Do nothing."""

    resume_reading = pause_reading


def connection_to(client: Client, seen: list[Client]) -> WatchedConnection:
    """Return a connection on which a request was written."""
    made = WatchedConnection(asyncio.get_running_loop(), OpenConnections(1, [seen.append]), MAX_WIRE_BYTES)
    made.connection_made(FakeWire())
    made.begin(client)
    made.set_response_params(read_until_eof=True, auto_decompress=False, read_bufsize=16 * 1024)
    return made


def calls_of(made: Callable[[], None]) -> int:
    """Count the Python functions that it calls."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        made()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("name", SURPLUS)
async def test_the_first_answer_decides(name: str) -> None:
    """The rest is dropped. The connection is closed, and the client reported, once."""
    answer, behind = SURPLUS[name]
    seen: list[Client] = []
    async with (
        opened(on_surplus=[seen.append]) as transport,
        scripted(do.raw(answer + behind), do.answer(202)) as receiver,
    ):
        wire = await transport.post(copy_record(request(receiver.url), client=CLIENT))
        assert outcome(wire).status in (200, 204)
        assert outcome(await transport.post(copy_record(request(receiver.url), client=CLIENT))).status == 202
    assert receiver.connections == 2
    assert seen == [CLIENT]


@pytest.mark.parametrize("name", SURPLUS)
async def test_late_surplus_closes_the_connection(name: str) -> None:
    """In a later part, also after the answer was read: it is not parsed, and the connection is closed."""
    answer, behind = SURPLUS[name]
    seen: list[Client] = []
    connection = connection_to(CLIENT, seen)
    wire = connection.transport
    connection.data_received(answer)
    message, _ = await connection.read()
    while message.code < 200:
        message, _ = await connection.read()
    assert (connection.should_close, seen) == (False, [])
    connection.data_received(behind[:1000])
    connection.data_received(behind[1000:2000])
    await asyncio.sleep(0)
    assert (connection.should_close, seen) == (True, [CLIENT])
    assert isinstance(wire, FakeWire)
    assert wire.closed


@pytest.mark.parametrize("body", [b"", b"hello", b"HTTP/1.1 204 No Content\r\n\r\n"])
async def test_an_exact_answer_is_no_surplus(body: bytes) -> None:
    """With a length or chunked, also if the body looks like an answer; the connection is used again."""
    seen: list[Client] = []
    chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    length = do.raw(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    chunked = do.raw(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n")
    async with (
        opened(on_surplus=[seen.append]) as transport,
        scripted(length, chunked, length, do.answer(204)) as receiver,
    ):
        for _ in range(3):
            assert outcome(await transport.post(copy_record(request(receiver.url), client=CLIENT))).status == 200
        assert outcome(await transport.post(copy_record(request(receiver.url), client=CLIENT))).status == 204
    assert receiver.connections == 1
    assert not seen


COSTLY = {
    **SURPLUS,
    "early hints before it": (INTERIM * 500, NONE),
    "chunks full of answers": (CHUNKS[:-3] + b"9000\r\n", NONE * 2000),
    "long fields": (OK, b"A: " + b"b" * 300_000),
    "short fields": (OK, b"a:b\r\n" * 60_000),
    "chunk extensions": (OK + b"Transfer-Encoding: chunked\r\n\r\n5;", b"a=b;" * 80_000),
    "trailers without end": (CHUNKS, b"A: b\r\n" * 60_000),
    "both lengths": (OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", NONE * 16_000),
}


@pytest.mark.parametrize("name", COSTLY)
async def test_flood_of_answers_takes_few_calls(name: str) -> None:
    """For any amount a few calls are made: no answer beyond the first is parsed."""
    answer, behind = COSTLY[name]
    connection = connection_to(CLIENT, [])
    assert calls_of(lambda: connection.data_received((answer + behind)[: 256 * 1024])) < 150


# ── The heads of requests: built once per host, with bounded references to TLS contexts ──────────────────────────────


def context(alive: WeakSet[ssl.SSLContext]) -> ssl.SSLContext:
    """Return a new context, which `alive` counts until it is freed."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    alive.add(made)
    return made


async def test_a_head_is_made_once_for_a_host_and_its_certificate() -> None:
    """This is the cost that a request saves, for any number of clients of that host and any TLS files."""
    async with aiohttp.ClientSession() as session:
        heads, alive = Heads(session, {}), WeakSet[ssl.SSLContext]()
        first, second = context(alive), context(alive)
        other = Route(tls=TlsFiles(ca_file=Path("ca.pem")))
        head, of_other = heads.of("https://a.example", Route(), first), heads.of("https://a.example", other, second)
        assert (head.request.ssl, of_other.request.ssl) == (first, second)
        assert heads.of("https://a.example", Route(), first) is head
        assert heads.of("https://a.example", other, second) is of_other
        assert heads.of("https://a.example", Route(), second).request.ssl is second


async def test_tls_context_of_a_replaced_certificate_is_freed() -> None:
    """A context with the system's authorities takes 0.8 MiB, and some certificates are renewed every hour."""
    async with aiohttp.ClientSession() as session:
        heads, alive = Heads(session, {}), WeakSet[ssl.SSLContext]()
        for _ in range(20):
            heads.of("https://a.example", Route(), context(alive))
        gc.collect()
        assert len(alive) == 1


async def test_tls_contexts_of_very_many_clients_are_not_all_held() -> None:
    """The cache of TLS files is bounded, and heads must not keep its evicted entries alive."""
    async with aiohttp.ClientSession() as session:
        heads, alive = Heads(session, {}), WeakSet[ssl.SSLContext]()
        for number in range(MAX_CONTEXTS + 100):
            heads.of(f"https://client-{number}.example", Route(), context(alive))
        gc.collect()
        assert len(alive) <= MAX_CONTEXTS
