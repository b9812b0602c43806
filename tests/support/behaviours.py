"""What a scripted receiver may do to one request: answer, hang, reset, drip, flood, tunnel; each is one `Behaviour`.

A behaviour speaks to its `Peer`, the receiver's end of one raw connection. `tests.support.receivers` runs them.
"""

import asyncio
import contextlib
import gzip
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as it came. `target` is the request line's, byte for byte; header names are in lower case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int

    @property
    def form(self) -> list[tuple[str, str]]:
        """The fields of the body, in their order."""
        return parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True)

    @property
    def token(self) -> str:
        """The one `logout_token` (B19, R9); fails where there is another field or none."""
        [(name, value)] = self.form
        assert name == "logout_token"
        return value

    def header(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key == name.lower()]


@dataclass(slots=True, kw_only=True)
class Peer:
    """The receiver's end of one connection, in the hands of a behaviour."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int

    async def request(self) -> Received | None:
        """The next request; None where the other side closed instead."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
            headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
            body = await self.reader.readexactly(int(dict(headers).get("content-length", "0")))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return None
        method, target, _ = first.split(" ")
        return Received(method=method, target=target, headers=headers, body=body, connection=self.number)

    async def send(self, data: bytes) -> None:
        """Write, and wait until it is written."""
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Return when the other side has closed, or the receiver is closed."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while await self.reader.read(65_536):
                pass

    def close(self) -> None:
        """End the connection in good order."""
        self.writer.close()

    def reset(self) -> None:
        """End the connection by RST."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What is done to one request. `reads` False: done as soon as the connection is there, before anything is read."""

    run: Callable[[Peer], Awaitable[None]]
    reads: bool = True


# ── behaviours ──────────────────────────────────────────────────────────────────────────────────────────────────


def answer(
    status: int = 200, body: bytes = b"", headers: tuple[tuple[str, str], ...] = (), *, close: bool = False
) -> Behaviour:
    """A response with that status, body and further headers; `close` closes the connection without saying so before."""
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers)]
    if status not in (204, 304):
        lines.append(f"Content-Length: {len(body)}")
    return raw("\r\n".join([*lines, "", ""]).encode("latin-1") + body, close=close)


def raw(data: bytes, *, close: bool = False, reset: bool = False) -> Behaviour:
    """These bytes, whatever they mean; then the connection is kept, closed or reset."""

    async def run(peer: Peer) -> None:
        await peer.send(data)
        if reset:
            peer.reset()
        elif close:
            peer.close()

    return Behaviour(run=run)


def redirect(location: str, status: int = 302) -> Behaviour:
    """A redirect, which must not be followed."""
    return answer(status, headers=(("Location", location),))


def hang(*, reads: bool = True) -> Behaviour:
    """Nothing ever, after or before the request is read."""
    return Behaviour(run=Peer.gone, reads=reads)


def reset(*, reads: bool = True) -> Behaviour:
    """RST, after or before the request is read."""

    async def run(peer: Peer) -> None:
        peer.reset()

    return Behaviour(run=run, reads=reads)


def close(*, reads: bool = True) -> Behaviour:
    """An orderly close without a response, after or before the request is read."""

    async def run(peer: Peer) -> None:
        peer.close()

    return Behaviour(run=run, reads=reads)


def drip(before: bytes, drop: bytes, every: float = 0.02) -> Behaviour:
    """`before` at once, then `drop` again and again every so many seconds, until the other side has had enough."""

    async def run(peer: Peer) -> None:
        await peer.send(before)
        gone = asyncio.ensure_future(peer.gone())
        try:
            while not gone.done():
                await peer.send(drop)
                await asyncio.wait({gone}, timeout=every)
        finally:
            gone.cancel()

    return Behaviour(run=run)


def flood(before: bytes, chunk: bytes, most: int = 64 * 1024 * 1024) -> Behaviour:
    """`before`, and then `chunk` as fast as it is taken, up to `most` bytes."""

    async def run(peer: Peer) -> None:
        await peer.send(before)
        for _ in range(most // len(chunk)):
            await peer.send(chunk)
        peer.close()

    return Behaviour(run=run)


def flood_headers(status: int = 200) -> Behaviour:
    """A status line, and then headers without end as fast as they are taken."""
    return flood(b"HTTP/1.1 %d Scripted\r\n" % status, b"X-More: " + b"m" * 1014 + b"\r\n")


def flood_body(status: int = 200) -> Behaviour:
    """Complete headers, and then a huge body as fast as it is taken."""
    size = 64 * 1024 * 1024
    return flood(b"HTTP/1.1 %d Scripted\r\nContent-Length: %d\r\n\r\n" % (status, size), b"m" * 65_536, size)


def gzip_bomb(status: int = 200) -> Behaviour:
    """A small body that would be 32 MiB once decompressed."""
    return answer(status, gzip.compress(bytes(32 * 1024 * 1024)), (("Content-Encoding", "gzip"),))


def tunnel(host: str, port: int) -> Behaviour:
    """As a proxy does: 200 to a CONNECT, and then all bytes to and from that address."""

    async def run(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        reader, writer = await asyncio.open_connection(host, port)
        pumps = [
            asyncio.ensure_future(_pump(peer.reader, writer)),
            asyncio.ensure_future(_pump(reader, peer.writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            writer.close()
            peer.close()

    return Behaviour(run=run)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
