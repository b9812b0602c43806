"""Test connections of a listener: limits, TLS, and the listener for browsers."""

import asyncio
import contextlib
import socket
import ssl
import time
from asyncio.subprocess import PIPE, STDOUT
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web
from cryptography import x509

from notifier.model.errors import ConfigurationError
from notifier.network.counted_tls import MAX_CLIENT_HANDSHAKE_BYTES, CountedContext, new_context
from notifier.network.listeners.bounded_connection import BoundedConnection
from notifier.network.listeners.certificates import ListenerContext
from notifier.network.listeners.held_bytes import MAX_HEAD_BYTES, ConnectionBudget
from notifier.network.listeners.listener import (
    HANDSHAKE_TIMEOUT_SECONDS,
    MAX_CONNECTIONS,
    MAX_HANDSHAKES,
    Listener,
    listen,
)
from notifier.network.listeners.turns import CONNECTIONS_PER_ROUND
from notifier.network.listeners.web_app import web_app
from notifier.settings.policies import ListenerTls
from tests.publishing.serving import serving
from tests.support.certificates import Authority, authority
from tests.support.hanging_files import hanging
from tests.support.tls_peer import TlsPeer
from tests.system.waiting import until

# ── Memory of a connection outside of a request, and requests that stay complete ─────────────────────────────────────


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
async def listening(budget: ConnectionBudget | None = None, **more: Any) -> AsyncIterator[Listener]:
    """Start a listener that echoes."""
    app = web.Application(client_max_size=10**6)
    app.add_routes([web.route("*", "/{path:.*}", echo)])
    async with serving(app, budget=budget, **more) as listener:
        yield listener


async def answers(listener: Listener, *parts: bytes) -> bytes:
    """Send these parts one by one, and return all that is received until the connection is closed."""
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
    """Return a request's line and fields."""
    return "\r\n".join([f"{method} /x HTTP/{version}", "Host: localhost", *fields, "", ""]).encode()


def chunked(body: bytes, size: int) -> bytes:
    """Return the body in chunks of this size."""
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


@pytest.mark.parametrize("size", [10**6, 4096, 61, pytest.param(1, marks=pytest.mark.full)])
async def test_requests_behind_one_another_are_answered_in_order(size: int) -> None:
    """Each with its complete body, however it is split on the way."""
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
async def test_broken_body_closes_the_connection(broken: bytes) -> None:
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
    assert len(large) > MAX_HEAD_BYTES
    async with listening() as listener:
        assert (await answers(listener, large)).startswith(b"HTTP/1.1 400")
        assert (await answers(listener, large[:-2] + b"Y: " + b"b" * 5000)).startswith(b"HTTP/1.1 400")


async def test_head_of_30_kib_is_accepted() -> None:
    """A header of 8 KiB is accepted, also several times."""
    async with listening() as listener:
        got = await answers(listener, head("GET", "Connection: close", *(f"X{n}: " + "a" * 7400 for n in range(4))))
    assert got.startswith(b"HTTP/1.1 200")


HTTP_2 = b"PRI * HTTP/2.0\r\n\r\n"  # aiohttp's parser waits for more, and the connection counted as busy until then
MANY_FIELDS = head("GET", *(f"X{n}: a" for n in range(200)))
LONG_URI = b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "line",
    [b"\x16\x03\x01", b"GET /\r\n", b"nonsense\r\n", b"GET / HTTP/9.9\r\n", b"{}", HTTP_2, MANY_FIELDS, LONG_URI],
    ids=range(8),
)
async def test_invalid_request_is_refused_at_once(line: bytes) -> None:
    """Without waiting for the rest of it; likewise very many fields and a very long URI."""
    async with listening(header_timeout=TIMEOUT) as listener:
        assert b" 400 " in (await asyncio.wait_for(answers(listener, line), TIMEOUT / 2))[:20]


async def test_over_the_budget_the_largest_connection_is_closed() -> None:
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


async def test_complete_request_of_a_closed_connection_counts() -> None:
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


# ── TLS of the API's listener: renewed certificates, and clients with certificates ───────────────────────────────────


PATIENCE = 30.0


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return authority(tmp_path / "ca")


@asynccontextmanager
async def served(
    files: ListenerTls, connections: int = MAX_CONNECTIONS, budget: ConnectionBudget | None = None
) -> AsyncIterator[tuple[Listener, ListenerContext]]:
    async def well(_request: web.Request) -> web.Response:
        return web.Response(text="well")

    app = web.Application()
    app.add_routes([web.get("/", well)])
    certificates = ListenerContext(files, "api")
    listener = await listen(
        app,
        "127.0.0.1",
        0,
        key="api.listen",
        tls=certificates.context,
        grace=1,
        connections=connections,
        budget=budget,
    )
    yield listener, certificates
    await listener.close()


async def ask_tls(listener: Listener, ca: Authority, shown: Path | None = None) -> int:
    """Send GET and return the serial number of the server's certificate."""
    context = ssl.create_default_context(cafile=ca.ca_file)
    if shown is not None:
        context.load_cert_chain(shown)
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=context)
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).endswith(b"well")
            certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        finally:
            writer.close()
    return x509.load_der_x509_certificate(certificate).serial_number


async def test_a_renewed_certificate_serves_the_next_connection(ca: Authority) -> None:
    """Without a restart. An unusable or half-written certificate leaves the old one in use."""
    file = ca.issue("127.0.0.1")
    async with served(ListenerTls(cert_file=file, key_file=file)) as (listener, certificates):
        first = await ask_tls(listener, ca)
        assert await ask_tls(listener, ca) == first
        ca.issue("127.0.0.1")  # the same file
        await certificates.check_files()
        second = await ask_tls(listener, ca)
        assert second != first
        good = file.read_bytes()
        file.write_bytes(good[: len(good) // 2])
        await certificates.check_files()
        assert await ask_tls(listener, ca) == second
        file.write_bytes(good)
        await certificates.check_files()
        assert await ask_tls(listener, ca) == second


async def test_only_clients_of_the_authority_are_accepted(ca: Authority, tmp_path: Path) -> None:
    """`client_ca_file`: without a certificate of the authority no request is read; the file may change, too."""
    other = authority(tmp_path / "other", "Other CA")
    file, trusted = ca.issue("127.0.0.1"), tmp_path / "clients.pem"
    trusted.write_bytes(ca.ca_file.read_bytes())
    ours, theirs = ca.issue("idp"), other.issue("stranger")
    async with served(ListenerTls(cert_file=file, key_file=file, client_ca_file=trusted)) as (listener, certificates):
        assert await ask_tls(listener, ca, ours)
        for shown in (None, theirs):
            with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
                await ask_tls(listener, ca, shown)
        trusted.write_bytes(other.ca_file.read_bytes() + b"\n")
        await certificates.check_files()
        assert await ask_tls(listener, ca, theirs)
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            await ask_tls(listener, ca, ours)


async def test_a_hanging_certificate_leaves_the_old_one_in_use(ca: Authority) -> None:
    """No handshake and no other work waits for it."""
    file = ca.issue("127.0.0.1")
    async with served(ListenerTls(cert_file=file, key_file=file)) as (listener, certificates):
        first = await ask_tls(listener, ca)
        file.unlink()
        with hanging(file):
            await certificates.check_files()
            assert await ask_tls(listener, ca) == first
        ca.issue("127.0.0.1")
        await certificates.check_files()
        assert await ask_tls(listener, ca) != first


def test_unusable_tls_files_are_refused_at_start(tmp_path: Path) -> None:
    """By the setting and the files."""
    file = tmp_path / "no.pem"
    file.write_text("nothing")
    with pytest.raises(ConfigurationError) as error:
        ListenerContext(ListenerTls(cert_file=file, key_file=file), "api")
    assert "api.tls" in str(error.value)
    assert "no.pem" in str(error.value)


async def test_silent_connections_are_limited_before_their_handshake(ca: Authority) -> None:
    """The oldest are closed, and a new connection is accepted."""
    file = ca.issue("127.0.0.1")
    async with served(ListenerTls(cert_file=file, key_file=file), connections=3) as (listener, _):
        silent = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(6)]
        assert await ask_tls(listener, ca)
        for reader, _ in silent[:3]:
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), HANDSHAKE_TIMEOUT_SECONDS / 2) == b""
        for _, writer in silent:
            writer.close()


def test_silent_connections_are_limited_on_uvloop(ca: Authority) -> None:
    """The worker's loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_silent_connections_are_limited_before_their_handshake(ca))


async def test_handshakes_count_in_the_budget(ca: Authority) -> None:
    """Beyond it the oldest is closed, and a new one is accepted."""
    file, budget = ca.issue("127.0.0.1"), ConnectionBudget(3 * MAX_CLIENT_HANDSHAKE_BYTES)
    async with served(ListenerTls(cert_file=file, key_file=file), budget=budget) as (listener, _):
        silent = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(4)]
        assert await asyncio.wait_for(silent[0][0].read(), HANDSHAKE_TIMEOUT_SECONDS / 2) == b""
        assert await ask_tls(listener, ca)
        for reader, writer in silent[1:]:
            writer.close()
            assert await asyncio.wait_for(reader.read(), TIMEOUT) == b""
        async with asyncio.timeout(TIMEOUT):
            while budget._held:  # noqa: ASYNC110  no event is set
                await asyncio.sleep(0)


async def begin_many(ca: Authority) -> None:
    """Count the handshakes that a listener begins in each round of the event loop, of many that arrive together."""
    file, rounds, begun = ca.issue("127.0.0.1"), 0, list[int]()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context(cafile=ca.ca_file)
    client.set_ecdh_curve("prime256v1")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1").do_handshake()
    hello = outgoing.read()
    async with served(ListenerTls(cert_file=file, key_file=file)) as (listener, certificates):

        def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            begun.append(rounds)
            certificates._choose(connection, name, context)

        certificates.context.sni_callback = choose
        opened = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(20)]
        for _, writer in opened:
            writer.write(hello)
        async with asyncio.timeout(PATIENCE):
            while len(begun) < len(opened):
                rounds += 1
                await asyncio.sleep(0)
        for _, writer in opened:
            writer.close()
    assert max(Counter(begun).values()) <= 2 * CONNECTIONS_PER_ROUND


async def test_handshakes_begin_by_turns(ca: Authority) -> None:
    """A flood of strangers leaves the loop to others: 900 handshakes that began together blocked it for 0.8 s."""
    await begin_many(ca)


def test_handshakes_begin_by_turns_on_uvloop(ca: Authority) -> None:
    """The worker's loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(begin_many(ca))


async def test_handshakes_leave_half_of_the_time(ca: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """3,000 of them that strangers began in a second took all of it, and publishing took twice as long."""
    monkeypatch.setattr(CountedContext, "take_handshake_seconds", lambda _: 0.02)
    began = time.monotonic()
    await begin_many(ca)
    assert time.monotonic() - began >= 18 * 2 * 0.02


async def test_handshakes_of_networks_alternate(ca: Authority) -> None:
    """A bearer that connects does not wait for all handshakes that strangers at another address begin."""
    file, begun = ca.issue("127.0.0.1"), list[str | None]()
    async with served(ListenerTls(cert_file=file, key_file=file)) as (listener, certificates):

        def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            begun.append(name)
            certificates._choose(connection, name, context)

        certificates.context.sni_callback = choose
        opened = []
        for name, host in [("stranger", "127.0.0.1")] * 40 + [("bearer", "127.0.0.2")]:
            address = (host, 0)
            opened.append((name, await asyncio.open_connection("127.0.0.1", listener.port, local_addr=address)))
        for name, (_, writer) in opened:
            outgoing = ssl.MemoryBIO()
            with contextlib.suppress(ssl.SSLWantReadError):
                ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
            writer.write(outgoing.read())
        await until(lambda: asyncio.sleep(0, begun), lambda names: len(names) == len(opened))
        for _, (_, writer) in opened:
            writer.close()
    assert "bearer" in begun[:10]


async def test_unfinished_handshakes_are_limited(ca: Authority) -> None:
    """Beyond MAX_HANDSHAKES the oldest is closed; connections that are silent do not count."""
    file = ca.issue("127.0.0.1")
    async with served(ListenerTls(cert_file=file, key_file=file)) as (listener, _):
        silent = await asyncio.open_connection("127.0.0.1", listener.port)
        unfinished = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(MAX_HANDSHAKES + 2)]
        for _, writer in unfinished:
            writer.write(b"\x16\x03\x01")
            await asyncio.sleep(0)
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_SECONDS / 2):
            for reader, _ in unfinished[:2]:
                assert await reader.read() == b""
            assert await ask_tls(listener, ca)
        assert not silent[0].at_eof()
        assert not unfinished[-1][0].at_eof()
        for _, writer in (silent, *unfinished):
            writer.close()


def test_unfinished_handshakes_are_limited_on_uvloop(ca: Authority) -> None:
    """The worker's loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_unfinished_handshakes_are_limited(ca))


async def flood(ca: Authority, tmp_path: Path) -> None:
    """Flood a listener with KeyUpdates until it ends the connection, and ask it."""
    file = ca.issue("127.0.0.1")
    async with served(ListenerTls(cert_file=file, key_file=file)) as (listener, _), asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        peer = TlsPeer(tmp_path)
        while not peer.is_ready:
            writer.write(peer.take())
            peer.receive(await reader.read(65536))
        writer.write(peer.take())
        with pytest.raises(ConnectionError):  # noqa: PT012  one of these calls raises it
            for _ in range(500):
                writer.write(peer.key_updates(10))
                await writer.drain()
                await asyncio.sleep(0)  # the listener reads
        assert await ask_tls(listener, ca)


async def flood_with_small_records(ca: Authority, folder: Path) -> None:
    """Send two requests in records of 16 bytes and of one byte."""
    file = ca.issue("127.0.0.1")
    context = new_context(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    async with listening(tls=context) as listener, asyncio.timeout(PATIENCE):
        for size in (16, 1):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            peer = TlsPeer(folder)
            while not peer.is_ready:
                writer.write(peer.take())
                peer.receive(await reader.read(65536))
            sent = head("POST", "Connection: close", "Content-Length: 32768") + b"a" * 32768
            records = b"".join(peer.data(sent[at : at + size]) for at in range(0, len(sent), size))
            writer.write(peer.take() + records)
            if size == 1:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            else:
                answer = b""
                while not answer:  # session tickets come first
                    peer.receive(await reader.read(65536))
                    answer = peer.read()
                assert answer.startswith(b"HTTP/1.1 200 OK")
            writer.close()


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("loop", LOOPS)
def test_small_records_leave_the_loop_to_others(
    ca: Authority, tmp_path: Path, loop: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At most 1 KiB is read in a round: 64 records of 16 bytes take 0.1 ms. Shorter records end the connection."""
    read: list[int] = []
    on_read = BoundedConnection.buffer_updated

    def record(self: BoundedConnection, size: int) -> None:
        read.append(size)
        on_read(self, size)

    monkeypatch.setattr(BoundedConnection, "buffer_updated", record)
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(flood_with_small_records(ca, tmp_path))
    assert 32768 < sum(read) < 34000
    assert max(read) <= 1024
    assert not caplog.records


async def test_no_client_renegotiates(ca: Authority) -> None:
    """A handshake costs a listener 0.2 ms each time. OpenSSL refuses it."""
    file = ca.issue("127.0.0.1")
    async with served(ListenerTls(cert_file=file, key_file=file)) as (listener, _), asyncio.timeout(PATIENCE):
        options = ["-connect", f"127.0.0.1:{listener.port}", "-tls1_2", "-msg"]
        client = await asyncio.create_subprocess_exec(
            "openssl", "s_client", *options, stdin=PIPE, stdout=PIPE, stderr=STDOUT
        )
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            while b"<<< TLS 1.2, Handshake [length 0010], Finished" not in (line := await client.stdout.readline()):
                assert line
            client.stdin.write(b"R\n")
            while b"no_renegotiation" not in (line := await client.stdout.readline()):
                assert line
            assert await ask_tls(listener, ca)
        finally:
            with contextlib.suppress(ProcessLookupError):  # it may have ended
                client.kill()
            await client.wait()


async def test_a_flood_below_http_ends_the_connection(ca: Authority, tmp_path: Path) -> None:
    """KeyUpdates of a stranger: 290,000 blocked the loop for 5.7 s."""
    await flood(ca, tmp_path)


def test_a_flood_below_http_ends_the_connection_on_uvloop(ca: Authority, tmp_path: Path) -> None:
    """The worker's loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(flood(ca, tmp_path))


# ── The web listener for strangers: its answers, limits, headers and log ─────────────────────────────────────────────


SECRET = "gAAAAABsealed"


@asynccontextmanager
async def face(*routes: web.RouteDef, **limits: int) -> AsyncIterator[Listener]:
    async with serving(web_app(routes, **limits)) as listener:
        yield listener


async def test_unknown_route_is_404_with_restrictive_headers() -> None:
    """No answer is cached, framed, sniffed or indexed by a search engine."""
    async with face() as listener, aiohttp.ClientSession() as session:
        for path in ("/", "/livez", "/metrics", "/v1/events", f"/{SECRET}?sid=s1"):
            async with session.get(listener.url + path) as answer:
                assert answer.status == 404
                assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
                assert (answer.headers["Cache-Control"], answer.headers["X-Robots-Tag"]) == ("no-store", "noindex")
                assert not {"Set-Cookie", "Server"} & set(answer.headers)
                assert SECRET not in await answer.text()


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nExpect: x\r\nConnection: close\r\n\r\n",
    ],
)
async def test_no_answer_shows_versions_of_libraries(sent: bytes) -> None:
    """Neither do the pages for requests that cannot be parsed."""
    async with face() as listener:
        reader, writer = await asyncio.open_connection(listener.host, listener.port)
        writer.write(sent)
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
    assert answer.startswith((b"HTTP/1.0 4", b"HTTP/1.1 4"))
    assert not any(name in answer for name in (b"aiohttp", b"Python", b"3."))


async def test_route_overrides_the_default_headers() -> None:
    """A page that may be cached or framed sets the header itself."""

    async def kept(_request: web.Request) -> web.Response:
        return web.Response(headers={"Cache-Control": "max-age=60"})

    async with (
        face(web.get("/x", kept)) as listener,
        aiohttp.ClientSession() as session,
        session.get(listener.url + "/x") as answer,
    ):
        assert (answer.headers["Cache-Control"], answer.headers["Referrer-Policy"]) == ("max-age=60", "no-referrer")


async def test_large_bodies_and_too_many_requests_are_refused() -> None:
    """413 for a body over the limit; 429 for one request too many, before its body is read."""
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        entered.set()
        await go.wait()
        return web.Response(text=str(len(await request.read())))

    async with face(web.post("/x", slow), max_body=10, requests=1) as listener, aiohttp.ClientSession() as session:
        first = asyncio.create_task(session.post(listener.url + "/x", data=b"a" * 11))
        await entered.wait()
        async with session.post(listener.url + "/x", data=b"a") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        go.set()
        assert (await first).status == 413


async def test_log_contains_nothing_of_a_request(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Not even of a request that fails or is not HTTP."""

    async def fail(_request: web.Request) -> web.Response:
        raise RuntimeError("broken")

    async with face(web.get("/{context}", fail)) as listener:
        async with aiohttp.ClientSession() as session, session.get(f"{listener.url}/{SECRET}?sid={SECRET}") as answer:
            assert answer.status == 500
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(f"GET /{SECRET} nonsense\r\n\r\n".encode())
        assert b"400" in (await reader.read()).split(b"\r\n")[0]
        writer.close()
    assert "broken" in caplog.text
    assert SECRET not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("host", "reached"),
    [("*", {"127.0.0.1", "::1"}), ("0.0.0.0", {"127.0.0.1"}), ("::", {"::1"}), ("127.0.0.1", {"127.0.0.1"})],
)
async def test_a_listener_is_reached_by_the_families_that_are_documented(host: str, reached: set[str]) -> None:
    """`*` is all addresses of both, on every system: no name is looked up for it."""
    async with listening(host=host) as listener:
        ports = {each.family: each.getsockname()[1] for each in listener.server.sockets}
        found = set()
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with contextlib.suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection(address, ports.get(family, listener.port))
                writer.close()
                found.add(address)
        assert found == reached
