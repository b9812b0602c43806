"""Behaviours of a scripted receiver for one request: answer, hang, reset, drip, flood or tunnel.

A behaviour acts on its `Peer`, the receiver's end of one raw connection. `tests.support.receivers` runs them.
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
    """One received request. `target` is copied byte for byte from the request line; header names are in lower case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int

    @property
    def form(self) -> list[tuple[str, str]]:
        """Return the fields of the body, in order."""
        return parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True)

    @property
    def token(self) -> str:
        """Return the only `logout_token` (B19, R9); fail if there is another field or none."""
        [(name, value)] = self.form
        assert name == "logout_token"
        return value

    def header(self, name: str) -> list[str]:
        """Return all values of a header."""
        return [value for key, value in self.headers if key == name.lower()]


@dataclass(slots=True, kw_only=True)
class Peer:
    """The receiver's end of one connection, used by a behaviour."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int

    async def request(self) -> Received | None:
        """Return the next request, or None if the client closed the connection."""
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
        """Write and flush."""
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Return when the client or the receiver has closed."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while await self.reader.read(65_536):
                pass

    def close(self) -> None:
        """Close the connection in good order."""
        self.writer.close()

    def reset(self) -> None:
        """Reset the connection (RST)."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """The action for one request. With `reads` False it runs on connect, before anything is read."""

    run: Callable[[Peer], Awaitable[None]]
    reads: bool = True


# ── behaviours ──────────────────────────────────────────────────────────────────────────────────────────────────


def answer(
    status: int = 200, body: bytes = b"", headers: tuple[tuple[str, str], ...] = (), *, close: bool = False
) -> Behaviour:
    """Send a response with this status, body and further headers; `close` closes the connection unannounced."""
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers)]
    if status not in (204, 304):
        lines.append(f"Content-Length: {len(body)}")
    return raw("\r\n".join([*lines, "", ""]).encode("latin-1") + body, close=close)


def raw(data: bytes, *, close: bool = False, reset: bool = False) -> Behaviour:
    """Send these bytes unchanged; then keep, close or reset the connection."""

    async def run(peer: Peer) -> None:
        await peer.send(data)
        if reset:
            peer.reset()
        elif close:
            peer.close()

    return Behaviour(run=run)


def redirect(location: str, status: int = 302) -> Behaviour:
    """Send a redirect, which the client must not follow."""
    return answer(status, headers=(("Location", location),))


def hang(*, reads: bool = True) -> Behaviour:
    """Never respond, before or after reading the request."""
    return Behaviour(run=Peer.gone, reads=reads)


def reset(*, reads: bool = True) -> Behaviour:
    """Reset, before or after reading the request."""

    async def run(peer: Peer) -> None:
        peer.reset()

    return Behaviour(run=run, reads=reads)


def close(*, reads: bool = True) -> Behaviour:
    """Close in good order without a response, before or after reading the request."""

    async def run(peer: Peer) -> None:
        peer.close()

    return Behaviour(run=run, reads=reads)


def drip(before: bytes, drop: bytes, every: float = 0.02) -> Behaviour:
    """Send `before` at once, then `drop` at this interval in seconds until the client closes."""

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
    """Send `before`, then `chunk` as fast as the client reads, up to `most` bytes."""

    async def run(peer: Peer) -> None:
        await peer.send(before)
        for _ in range(most // len(chunk)):
            await peer.send(chunk)
        peer.close()

    return Behaviour(run=run)


def flood_headers(status: int = 200) -> Behaviour:
    """Send a status line, then endless headers as fast as the client reads."""
    return flood(b"HTTP/1.1 %d Scripted\r\n" % status, b"X-More: " + b"m" * 1014 + b"\r\n")


def flood_body(status: int = 200) -> Behaviour:
    """Send complete headers, then a huge body as fast as the client reads."""
    size = 64 * 1024 * 1024
    return flood(b"HTTP/1.1 %d Scripted\r\nContent-Length: %d\r\n\r\n" % (status, size), b"m" * 65_536, size)


def gzip_bomb(status: int = 200) -> Behaviour:
    """Send a small body that decompresses to 32 MiB."""
    return answer(status, gzip.compress(bytes(32 * 1024 * 1024)), (("Content-Encoding", "gzip"),))


def tunnel(host: str, port: int) -> Behaviour:
    """Act as a proxy: answer CONNECT with 200 and forward all bytes to and from that address."""

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
