"""What the API server asks a kubelet for `kubectl port-forward`: connections to a pod, as SPDY/3.1 in a WebSocket.

Each connection is two streams: one for what goes wrong, which stays empty here, and one for its bytes. Of SPDY there is
what kubectl uses: it has no windows here, and no priorities.
"""

import asyncio
import contextlib
import struct
import zlib
from collections.abc import Mapping

from aiohttp import WSMsgType, web

PROTOCOL = "SPDY/3.1+portforward.k8s.io"
SYN_STREAM, SYN_REPLY, RST_STREAM, PING = 1, 2, 3, 6
FIN = 1
CHUNK = 16 * 1024
WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative"
    " Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500"
    " Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec"
    " 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset="
    "iso-8859-1,utf-,*,enq=0."
)


def dictionary() -> bytes:
    """By which both sides compress headers (SPDY/3, 2.6.10.1)."""
    words = (word.replace("_", " ").encode() for word in WORDS.split())
    return b"".join(struct.pack(">I", len(word)) + word for word in words) + REST.encode()


class Tunnel:
    """One `kubectl port-forward`, to the pod at this address. `serve` lasts as long as it."""

    def __init__(self, socket: web.WebSocketResponse, address: str) -> None:
        self._socket = socket
        self._address = address
        self._inflate = zlib.decompressobj(zdict=dictionary())
        self._deflate = zlib.compressobj(zdict=dictionary())
        self._received = b""
        self._errors: dict[str, int] = {}  # by request: the stream for what goes wrong
        self._writers: dict[int, asyncio.StreamWriter] = {}  # by stream of bytes
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Read frames until kubectl hangs up."""
        try:
            async for message in self._socket:
                if message.type is WSMsgType.BINARY:
                    self._received += message.data
                    await self._take()
        finally:
            for task in self._tasks:
                task.cancel()
            for writer in self._writers.values():
                writer.close()

    async def _take(self) -> None:
        """Act on each frame that is there as a whole."""
        while len(self._received) >= 8:
            first, flags_length = struct.unpack(">II", self._received[:8])
            flags, length = flags_length >> 24, flags_length & 0xFFFFFF
            if len(self._received) < 8 + length:
                return
            body, self._received = self._received[8 : 8 + length], self._received[8 + length :]
            if not first >> 31:
                await self._pass_on(first, flags, body)
            elif (kind := first & 0xFFFF) == SYN_STREAM:
                await self._open(struct.unpack(">I", body[:4])[0], self._headers(body[10:]))
            elif kind == PING:
                await self._send(PING, body)
            elif kind == RST_STREAM and (writer := self._writers.get(struct.unpack(">I", body[:4])[0])):
                writer.close()

    def _headers(self, block: bytes) -> Mapping[str, str]:
        text, at = self._inflate.decompress(block), 4
        found: list[str] = []
        while at < len(text):
            [length] = struct.unpack(">I", text[at : at + 4])
            found.append(text[at + 4 : at + 4 + length].decode())
            at += 4 + length
        return dict(zip(found[::2], found[1::2], strict=True))

    async def _open(self, stream: int, headers: Mapping[str, str]) -> None:
        empty = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        await self._send(SYN_REPLY, struct.pack(">I", stream) + empty)
        if headers["streamtype"] == "error":
            self._errors[headers["requestid"]] = stream
            return
        reader, self._writers[stream] = await asyncio.open_connection(self._address, int(headers["port"]))
        self._tasks.add(asyncio.create_task(self._answer(reader, stream, self._errors[headers["requestid"]])))

    async def _answer(self, reader: asyncio.StreamReader, stream: int, error: int) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(CHUNK):
                await self._socket.send_bytes(struct.pack(">II", stream, len(data)) + data)
            for ended in (stream, error):
                await self._socket.send_bytes(struct.pack(">II", ended, FIN << 24))

    async def _pass_on(self, stream: int, flags: int, data: bytes) -> None:
        if (writer := self._writers.get(stream)) is not None:  # else it is the stream for what goes wrong
            with contextlib.suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
                if flags & FIN:
                    writer.write_eof()

    async def _send(self, kind: int, body: bytes) -> None:
        await self._socket.send_bytes(struct.pack(">HHI", 0x8003, kind, len(body)) + body)
