"""Test that a client which floods below HTTP ends its own connection only, on real sockets and both event loops."""

import asyncio
import socket
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from notifier.model.client import TlsFiles
from notifier.model.outcome import HttpResponse, Reason, TransportFailure, TransportResult
from notifier.network.counted_tls import MAX_SERVER_RECORDS_WITHOUT_DATA, TlsLimitError
from notifier.network.http.connector import RECEIVE_BUFFER_BYTES
from notifier.network.http.pem_files import build_client_context
from notifier.network.http.transport import HttpTransport
from tests.network.http.http_requests import LOOPBACK, PLENTY, broken, opened, request
from tests.support.certificates import Authority
from tests.support.receivers import scripted
from tests.support.tls_peer import TlsPeer

FLOOD = 10_000  # records
Records = Callable[[TlsPeer], bytes]
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def key_updates(peer: TlsPeer) -> bytes:
    """Return records without data."""
    return peer.key_updates(FLOOD)


def small_records(peer: TlsPeer) -> bytes:
    """Return the beginning of a response, byte by byte."""
    return b"".join(peer.data(bytes([byte])) for byte in b"HTTP/1.1 200 OK\r\nA: " + b"a" * FLOOD)


def post_to_flooder(
    folder: Path, ca: Authority, answer: bytes, records: Records = key_updates
) -> Coroutine[Any, Any, TransportResult]:
    """Return the result of a request to a server that sends `answer` and these records."""
    certificate = ca.issue("127.0.0.1")

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = TlsPeer(folder, certificate)
        while not peer.read():  # the request
            peer.receive(await reader.read(65536))
            writer.write(peer.take())
        writer.write((peer.data(answer) if answer else b"") + records(peer))
        await reader.read(65536)
        writer.close()

    async def post() -> TransportResult:
        server = await asyncio.start_server(flood, "127.0.0.1", 0)
        async with server, opened() as http:
            uri = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            return await http.post(request(uri, tls=TlsFiles(ca_file=ca.ca_file)))

    return post()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("records", "excess"),
    [(key_updates, "too many TLS records without data"), (small_records, "too many small TLS records")],
)
def test_a_flood_in_place_of_an_answer_is_a_failure_of_tls(
    tmp_path: Path, ca: Authority, loop: str, records: Records, excess: str
) -> None:
    """Its reason names the limit. The client may have ended the session."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        result = runner.run(post_to_flooder(tmp_path, ca, b"", records))
    assert broken(result) == (Reason.TLS, True)
    assert isinstance(result, TransportFailure)
    assert result.text == f"TLS: {excess}"


@pytest.mark.parametrize("loop", LOOPS)
def test_an_answer_before_a_flood_counts(tmp_path: Path, ca: Authority, loop: str) -> None:
    """The client was notified, and its connection is not kept."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        assert runner.run(post_to_flooder(tmp_path, ca, answer)) == HttpResponse(status=200)


async def test_one_read_of_a_connection_is_short(transport: HttpTransport, ca: Authority, trusted: TlsFiles) -> None:
    """The kernel holds little of what a client sends, so that one read of small records takes a few milliseconds."""
    async with scripted(tls=ca.server(), host="localhost") as receiver:
        assert await transport.post(request(receiver.url, tls=trusted)) == HttpResponse(status=200)
        [[(kept, _)]] = transport._pools[LOOPBACK].session.connector._conns.values()  # type: ignore[union-attr]
        assert kept.transport is not None
        kernel = kept.transport.get_extra_info("socket")
        assert kernel.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * RECEIVE_BUFFER_BYTES


async def test_renegotiation_by_a_server_is_limited(ca: Authority) -> None:
    """Servers of TLS 1.2 request a certificate for some paths by it. It costs 0.17 ms each time, and four records."""
    certificate = str(ca.issue("localhost"))
    options = ["-accept", "127.0.0.1:0", "-cert", certificate, "-key", certificate, "-tls1_2", "-msg"]
    server = await asyncio.create_subprocess_exec(
        "openssl", "s_server", *options, stdin=PIPE, stdout=PIPE, stderr=STDOUT
    )
    entered, output = server.stdin, server.stdout
    assert entered is not None
    assert output is not None

    async def line_with(text: bytes) -> bytes:
        while text not in (line := await output.readline()):
            assert line
        return line

    try:
        async with asyncio.timeout(PLENTY):
            port = int((await line_with(b"ACCEPT")).rpartition(b":")[2])
            context = build_client_context(TlsFiles(ca_file=ca.ca_file))
            reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
            await line_with(b">>> TLS 1.2, Handshake [length 0010], Finished")
            for _ in range(MAX_SERVER_RECORDS_WITHOUT_DATA // 4):
                entered.write(b"r\n")
                await line_with(b"<<< TLS 1.2, Handshake [length 0010], Finished")
            entered.write(b"r\n")
            await line_with(b"HelloRequest")
            entered.write(b"more\n")
            with pytest.raises(TlsLimitError, match="records without data"):
                await reader.read()
            writer.close()
    finally:
        server.kill()
        await server.wait()
