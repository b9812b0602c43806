"""Clients that speak TLS, for the benchmark of a start: one uvloop process, each client at a port of its own.

Started as `python -m tests.benchmarks.tls_clients PEM CA COUNT`, PEM a certificate with its key, CA the authority of
client certificates or `-`. Says the ports as a JSON line on stdout; for each line on stdin, what came so far; ends with
stdin.
"""

import asyncio
import json
import ssl
import sys
from dataclasses import asdict, dataclass

import uvloop

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass(slots=True)
class Seen:
    """What came so far: `open` connections now, `most` at a time."""

    requests: int = 0
    handshakes: int = 0
    open: int = 0
    most: int = 0


class _Client(asyncio.Protocol):
    """Answers whenever a whole body has come; a request is never pipelined."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio: the handshake is done."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass
        self._seen.handshakes += 1
        self._seen.open += 1
        self._seen.most = max(self._seen.most, self._seen.open)

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self._seen.open -= 1

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(body) >= length:
            self._buffer = b""
            self._seen.requests += 1
            assert self._transport is not None
            self._transport.write(ANSWER)


async def main(pem: str, ca: str, count: int) -> None:
    """See the module."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    if ca != "-":
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ca)
    loop, seen = asyncio.get_running_loop(), Seen()
    servers = [
        await loop.create_server(lambda: _Client(seen), "127.0.0.1", 0, ssl=context, backlog=1024) for _ in range(count)
    ]
    _say([server.sockets[0].getsockname()[1] for server in servers])
    while await loop.run_in_executor(None, sys.stdin.readline):
        _say(asdict(seen))


def _say(words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
