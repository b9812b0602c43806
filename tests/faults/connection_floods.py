"""What strangers send to hold memory of a worker, without a token: broken, unfinished, unread and endless requests."""

import contextlib
import selectors
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """Each connection sends `head` once and `more` again and again, up to `size` bytes, and reads nothing."""

    head: bytes = b""
    more: bytes = b""
    size: int = 10 * MIB
    connections: int = 60


def _fields(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode()


_HOST = "Host: localhost"
_JSON = "Content-Type: application/json"
_CHUNKED = "Transfer-Encoding: chunked"
_POST = _fields("POST /v1/events HTTP/1.1", _HOST, _JSON, _CHUNKED)
_GOOD = b"5\r\nhello\r\n"
_LINE = "X%d: " + "a" * 7990
_GET = _fields("GET /livez HTTP/1.1", _HOST)
_TINY = _fields("GET /livez HTTP/1.1", _HOST, *(f"{chr(97 + n % 26)}:{n}" for n in range(60)))
_GARBAGE = b"garbage " * 1024

FLOODS: Mapping[str, Flood] = {
    "a broken chunk": Flood(head=_POST + _GOOD + b"zz", more=_GARBAGE),
    "a chunk broken after 64 KiB": Flood(head=_POST + b"10000\r\n" + b"a" * 65536 + b"\r\nzz", more=_GARBAGE),
    "a broken chunk to any path": Flood(head=_fields("PUT / HTTP/1.1", _HOST, _CHUNKED) + b"zz", more=_GARBAGE),
    "broken chunks, 950 connections": Flood(head=_POST + _GOOD + b"zz", more=_GARBAGE, size=MIB, connections=950),
    "trailers": Flood(head=_POST + _GOOD + b"0\r\n", more=(b"T: " + b"a" * 100 + b"\r\n") * 80),
    "long trailers": Flood(head=_POST + _GOOD + b"0\r\n", more=b"T: " + b"a" * 8000 + b"\r\n"),
    "chunk extensions": Flood(head=_POST + b"5", more=b";a=b" * 2048),
    "chunks of one byte": Flood(head=_POST, more=b"1\r\nx\r\n" * 1365, size=4 * MIB, connections=200),
    "empty lines in chunks": Flood(head=_POST, more=b"2000\r\n" + b"\r\n\r\n" * 2048 + b"\r\n", size=4 * MIB),
    "unfinished headers": Flood(
        head=_fields("GET / HTTP/1.1", _HOST, *(_LINE % n for n in range(62)))[:-2], connections=950
    ),
    "short unfinished headers": Flood(head=_TINY[:-2], connections=950),
    "31 KiB of headers": Flood(
        head=_fields("GET / HTTP/1.1", _HOST, *(_LINE % n for n in range(3)), "Y: " + "b" * 7000)[:-2], connections=950
    ),
    "an endless address": Flood(head=b"GET /", more=b"a" * 8192, connections=200),
    "an endless field": Flood(head=b"GET / HTTP/1.1\r\nX: ", more=b"a" * 8192, connections=200),
    "empty lines": Flood(more=b"\r\n" * 4096),
    "no HTTP": Flood(more=_GARBAGE),
    "binary": Flood(more=bytes(range(256)) * 32),
    "unread answers": Flood(more=_GET * 100, size=2 * MIB, connections=500),
    "unread answers to tiny fields": Flood(more=_TINY * 16, size=MIB, connections=500),
    "unread refusals": Flood(more=_fields("GET /v1/dead-letters HTTP/1.1", _HOST) * 100, size=2 * MIB, connections=500),
    "unread descriptions": Flood(
        more=_fields("GET /v1/openapi.json HTTP/1.1", _HOST) * 100, size=MIB // 8, connections=500
    ),
    "unread metrics": Flood(more=_fields("GET /metrics HTTP/1.1", _HOST) * 100, size=MIB // 8, connections=90),
    "bodies without a token": Flood(
        head=_fields("POST /v1/events HTTP/1.1", _HOST, _JSON, f"Content-Length: {10 * MIB}"),
        more=b"a" * 8192,
        connections=200,
    ),
    "chunked bodies without a token": Flood(head=_POST, more=b"2000\r\n" + b"a" * 8192 + b"\r\n", connections=200),
    "half bodies": Flood(
        head=_fields("POST /v1/events HTTP/1.1", _HOST, _JSON, "Content-Length: 60000") + b"a" * 59_000,
        connections=950,
    ),
    "half bodies of a page": Flood(
        head=_fields("POST /front-channel/x HTTP/1.1", _HOST, _JSON, "Content-Length: 60000") + b"a" * 59_000,
        connections=950,
    ),
    "compressed bodies": Flood(
        head=_fields("POST /v1/events HTTP/1.1", _HOST, _JSON, "Content-Encoding: gzip", _CHUNKED),
        more=b"2000\r\n" + bytes(8192) + b"\r\n",
    ),
    "HTTP/1.0": Flood(head=_fields("POST /v1/events HTTP/1.0", "Connection: keep-alive"), more=b"a" * 8192),
    "HTTP/1.0 again and again": Flood(
        more=_fields("GET /livez HTTP/1.0", _HOST, "Connection: keep-alive") * 100, size=MIB
    ),
    "100-continue": Flood(
        head=_fields("POST /v1/events HTTP/1.1", _HOST, _JSON, _CHUNKED, "Expect: 100-continue"),
        more=b"2000\r\n" + b"a" * 8192 + b"\r\n",
    ),
    "an unknown expectation": Flood(
        head=_fields("POST /v1/events HTTP/1.1", _HOST, _CHUNKED, "Expect: everything"), more=_GARBAGE
    ),
    "a websocket": Flood(
        head=_fields("GET /livez HTTP/1.1", _HOST, "Connection: Upgrade", "Upgrade: websocket"), more=_GARBAGE
    ),
    "websockets": Flood(
        more=_fields("GET /livez HTTP/1.1", _HOST, "Connection: Upgrade", "Upgrade: websocket") * 100, connections=200
    ),
    "a tunnel": Flood(head=_fields("CONNECT localhost:1 HTTP/1.1", _HOST), more=_GARBAGE),
    "HTTP/2": Flood(head=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", more=b"\0" * 8192),
    "both lengths": Flood(
        head=_fields("POST /v1/events HTTP/1.1", _HOST, "Content-Length: 5", _CHUNKED) + _GOOD, more=_GARBAGE
    ),
}


def flood(port: int, one: Flood, seconds: float) -> int:
    """Send it for so many seconds at most, and hold the connections until then. Returns the bytes that were taken."""
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        sent = 0
        for _ in range(one.connections):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", port))
            selector.register(connection, selectors.EVENT_WRITE, [one.head, 0])
        while (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(min(left, 0.2)):
                assert isinstance(key.fileobj, socket.socket)
                rest, total = key.data
                try:
                    count = key.fileobj.send(rest or one.more)
                except BlockingIOError:
                    continue
                except OSError:  # the worker closed it
                    selector.unregister(key.fileobj)
                    continue
                sent += count
                key.data[:] = (rest or one.more)[count:], total + count
                if not key.data[0] and (not one.more or total + count >= one.size):
                    selector.unregister(key.fileobj)
        return sent
