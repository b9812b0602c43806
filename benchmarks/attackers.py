"""The attacks of `benchmarks.attacks`. Each runs in a separate process, on loopback, for a bounded time."""

import asyncio
import contextlib
import json
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tests.support.tls_peer import TlsPeer
from tests.system.site import ISSUER

TOKEN: Final = "benchmark-attacker-token-51d3"
KEY_UPDATES = 40  # in each write
Attack = Callable[[int, float, Counter[str]], Awaitable[None]]
"""Attacks this port until a moment of the monotonic clock, and counts the answers and closed connections."""


def _post(body: bytes, token: str) -> bytes:
    head = (
        "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _event(clients: object) -> bytes:
    return json.dumps({"iss": ISSUER, "sid": "s", "clients": clients}, separators=(",", ":")).encode()


class _Requests:
    """Sends a request again and again, over so many connections, or a new connection for each."""

    def __init__(self, request: bytes, connections: int, *, reconnect: bool = False) -> None:
        self._request = request
        self._connections = connections
        self._reconnect = reconnect

    async def __call__(self, port: int, end: float, counts: Counter[str]) -> None:
        """Attack."""
        await asyncio.gather(*(self._connection(port, end, counts) for _ in range(self._connections)))

    async def _connection(self, port: int, end: float, counts: Counter[str]) -> None:
        while time.monotonic() < end:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                counts["not connected"] += 1
                await asyncio.sleep(0.05)
                continue
            with contextlib.closing(writer):
                try:
                    await self._requests(reader, writer, end, counts)
                except (OSError, asyncio.IncompleteReadError):
                    counts["closed"] += 1

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, end: float, counts: Counter[str]
    ) -> None:
        while time.monotonic() < end:
            writer.write(self._request)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), end + 5 - time.monotonic())
            counts[head[9:12].decode()] += 1
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            if self._reconnect:
                return


async def _key_updates(port: int, end: float, counts: Counter[str]) -> None:
    """Send TLS records without data, over 40 connections, each until it is closed."""

    async def connection() -> None:
        with tempfile.TemporaryDirectory() as folder:
            peer = TlsPeer(Path(folder))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(writer):
                while not peer.is_ready:
                    writer.write(peer.take())
                    if not (data := await reader.read(65536)):
                        raise ConnectionResetError
                    peer.receive(data)
                writer.write(peer.take())
                while not reader.at_eof():
                    writer.write(peer.key_updates(KEY_UPDATES, reply=True))
                    await writer.drain()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.001):
                            await reader.read()

    await asyncio.gather(*(_repeat(connection, end, counts) for _ in range(40)))


async def _hellos(port: int, end: float, counts: Counter[str]) -> None:
    """Begin TLS handshakes and leave, over 200 connections."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    hello = sent.read()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer):
            writer.write(hello)
            await reader.read(1)

    await asyncio.gather(*(_repeat(connection, end, counts) for _ in range(200)))


async def _repeat(connection: Callable[[], Awaitable[None]], end: float, counts: Counter[str]) -> None:
    while (left := end - time.monotonic()) > 0:
        try:
            await asyncio.wait_for(connection(), left)
            counts["ended"] += 1
        except TimeoutError:
            counts["held"] += 1
        except OSError:
            counts["closed"] += 1
            await asyncio.sleep(0.01)


_REFUSED = _post(_event(["client-0"]), "wrong")
_NESTED = _post(b'{"clients":' + b"[" * 120_000, TOKEN)
_MALFORMED = _post(_event([{"client_id": f"c{n}", "sub": 1} for n in range(3000)]), TOKEN)
_INLINE = _post(
    _event([{"client_id": f"c{n}", "backchannel_logout_uri": f"http://127.0.0.1:9/{n}"} for n in range(1700)]), TOKEN
)
ATTACKS: Final[Mapping[str, Attack]] = MappingProxyType(
    {
        "wrong token": _Requests(_REFUSED, 64),
        "wrong token, new connections": _Requests(_REFUSED, 600, reconnect=True),
        "nested JSON": _Requests(_NESTED, 8),
        "malformed event": _Requests(_MALFORMED, 8),
        "event with addresses": _Requests(_INLINE, 8),
        "key updates": _key_updates,
        "hellos": _hellos,
    }
)
OVER_TLS = frozenset({"key updates", "hellos"})


def attack(name: str, port: int, seconds: float) -> dict[str, int]:
    """Attack this port for so many seconds. Returns what came back."""
    counts: Counter[str] = Counter()
    asyncio.run(ATTACKS[name](port, time.monotonic() + seconds, counts))  # type: ignore[arg-type]
    return dict(counts)
