"""Records events on a connection that aiohttp does not report.

An outcome depends on three such facts: whether a connection was used before, whether any byte of a response arrived,
and the status line of a response that aiohttp cannot parse. So `connector` makes connections of this class. Each
request has an `Exchange` for these records, which aiohttp's tasks find by a context variable.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import aiohttp
from aiohttp.client_proto import ResponseHandler

from notifier.model.client import Client

MAX_HEAD_BYTES = 16 * 1024  # bytes of a response's status line and headers
# Bytes of any kind that are parsed for one request. Chunk extensions never become part of a body. Unrequested responses
# cost 10 µs each, and accumulate in a connection that is kept for reuse (1.6 GiB within 3 s).
MAX_WIRE_BYTES = MAX_HEAD_BYTES + 32 * 1024
GOODBYE_SECONDS = 1.0  # seconds for a TLS peer to answer our close_notify; asyncio would hold its socket for 30
MAX_INTERIM_RESPONSES = 16  # informational responses before the final one; each costs 6 µs
MAX_PIECES = 16  # pieces in which a chunked response is parsed, each up to a possible start of another response

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})[ \r\n]")
_LENGTH = re.compile(rb"\nContent-Length:[ \t]*([0-9]{1,15})[ \t]*\r?\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\nTransfer-Encoding:", re.IGNORECASE)
MAX_HEADER_VALUE_BYTES = 100  # bytes of a header of a broken response
_BODILESS_STATUSES = (101, 204, 304)  # after 101 another protocol follows
_FINAL_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (101|[2-9][0-9]{2})[ \r\n]")


@dataclass(slots=True)
class Exchange:
    """Records of one request. `denied`: why an address was refused. `tried`: the last address that was not refused.

    `reached`: True once a connection exists (with a proxy, to the proxy). `connection` carries the request, which is
    written as soon as it is set. `reused` is True if that connection served an earlier request. `repeated`: if the
    connection breaks, aiohttp's session may repeat a GET on another one.
    """

    new_connection: bool = False
    client: Client | None = None
    denied: str | None = None
    tried: str | None = None
    reached: bool = False
    connection: "WatchedConnection | None" = None
    reused: bool = False
    repeated: bool = False


current_exchange: ContextVar[Exchange] = ContextVar("current_exchange")


class OpenConnections:
    """Counts the open connections that carried a request, in all connectors.

    Beyond `keep` connections none is kept alive, so that a logout at 100,000 clients does not leave 100,000 idle
    sockets. A connection counts from its first request: a protocol that requested a tunnel from a proxy is not notified
    of its loss.
    """

    def __init__(self, keep: int, on_surplus: Sequence[Callable[[Client], None]] = ()) -> None:
        self.keep = keep
        self.count = 0
        self.on_surplus = on_surplus


class WatchedConnection(ResponseHandler):
    """aiohttp's protocol. It keeps the head of the response, and aborts if the head is too large.

    The first complete response decides. Bytes after it are dropped unparsed, and the connection is closed: each further
    response would cost 6 µs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, open_connections: OpenConnections, wire_limit: int) -> None:
        super().__init__(loop=loop)
        self._wire_limit = wire_limit
        self.uses = 0
        self.head = b""  # includes all informational responses before the final one
        self.head_too_large = False
        self._parsed_bytes = 0  # since the last request was written
        self._response_start = 0  # offset in `head` at which the response begins
        self._head_complete = False
        self._interim_count = 0  # of informational responses
        self._body_bytes_left: int | None = None  # negative if only aiohttp finds the end; None: not known yet
        self._surplus_reported = False
        self._client: Client | None = None
        self._lost = False
        self._open_connections = open_connections

    def begin(self, client: Client | None = None) -> None:
        """Record that a request to this client is about to be written."""
        if self._lost:
            return  # the connection was lost before: the request will fail
        if not self.uses:
            self._open_connections.count += 1
        self.uses += 1
        self.head = b""
        self._parsed_bytes = 0
        self._response_start = 0
        self._head_complete = False
        self._body_bytes_left = None
        self._client = client

    @property
    def status(self) -> int | None:
        """Return the status of the final response; None until its status line is read."""
        line = _STATUS_LINE.match(self.head, self._response_start)
        return int(line[1]) if line is not None and int(line[1]) >= 200 else None

    @property
    def has_too_many_interim_responses(self) -> bool:
        """Return True if the connection was closed because of its informational responses."""
        return self._interim_count > MAX_INTERIM_RESPONSES

    def header(self, name: str) -> str | None:
        """Return a header of a response that is otherwise broken, by its name in lower case; None if not read."""
        end = _HEAD_END.search(self.head, self._response_start)
        lines = self.head[self._response_start : None if end is None else end.start()].split(b"\n")[1:]
        fields = (line.partition(b":") for line in lines)
        value = next((value.strip() for field, _, value in fields if field.lower() == name.encode()), b"")
        return value[:MAX_HEADER_VALUE_BYTES].decode("latin-1") or None

    def close(self) -> None:
        """Called by aiohttp. Close the connection; abort it if a TLS peer does not answer in time."""
        transport = self.transport
        super().close()
        if transport is not None and transport.get_extra_info("sslcontext") is not None:
            self._loop.call_later(GOODBYE_SECONDS, transport.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by asyncio."""
        self._lost = True
        if self.uses:
            self._open_connections.count -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio. Parse the data up to the end of the response.

        Close the connection beyond the limit of the head, or of all bytes for one request.
        """
        size = len(data)
        if self._parsed_bytes + size > self._wire_limit:
            data = data[: self._wire_limit - self._parsed_bytes]
            size = len(data)
            self.force_close()
            if self.transport is not None:
                self._loop.call_soon(self.transport.abort)  # after the data so far has been read
        self._parsed_bytes += size
        if self._head_complete:
            if data:
                self._body_received(data, 0, len(self.head))
            else:
                super().data_received(data)  # aiohttp's own call, to go on after a pause
            return
        if self.uses:
            self.head += data[:MAX_HEAD_BYTES]
            if end := self._head_end():
                self._head_complete = True
                if end < len(self.head) or size > MAX_HEAD_BYTES:
                    self._body_received(data, end - len(self.head) + min(size, MAX_HEAD_BYTES), end)
                    return
            elif len(self.head) >= MAX_HEAD_BYTES or self._interim_count > MAX_INTERIM_RESPONSES:
                self.head_too_large = True
                if self.transport is not None:
                    self.transport.abort()
                return
        super().data_received(data)

    def _head_end(self) -> int:
        """Return the offset at which the head of the final response ends; 0 if it is not complete."""
        end = self.head.find(b"\r\n\r\n") + 4
        if end > 3 and _FINAL_STATUS_LINE.match(self.head):  # nearly all responses
            return end
        while (match := _HEAD_END.search(self.head, self._response_start)) is not None:
            if _FINAL_STATUS_LINE.match(self.head, self._response_start):
                self._interim_count = 0
                return match.end()
            self._response_start = match.end()
            self._interim_count += 1
            if self._interim_count > MAX_INTERIM_RESPONSES:
                break
        return 0

    def _body_received(self, data: bytes, start: int, head_end: int) -> None:
        """Parse the part of the data that belongs to the response. Its body begins at `start`."""
        if self._body_bytes_left is None:
            self._body_bytes_left = self._find_body_length(head_end)
        if self._body_bytes_left < 0:
            if self._parse_to_response_end(data, start):
                self._close_for_surplus()
            return
        size = len(data) - start
        taken = min(size, self._body_bytes_left)
        self._body_bytes_left -= taken
        if start + taken:
            super().data_received(data if taken == size else data[: start + taken])
        if taken < size:
            self._close_for_surplus()

    def _find_body_length(self, head_end: int) -> int:
        """Return the length of the body; -1 if only aiohttp finds its end."""
        if self.status in _BODILESS_STATUSES:
            return 0
        length = _LENGTH.search(self.head, self._response_start, head_end)
        return -1 if length is None or _CHUNKED.search(self.head, self._response_start, head_end) else int(length[1])

    def _parse_to_response_end(self, data: bytes, start: int) -> bool:
        """Parse up to the end of the response, as aiohttp finds it. Return True if more bytes follow it.

        A response of more than MAX_PIECES pieces counts as ended.
        """
        end = start
        for _ in range(MAX_PIECES):
            if end:
                super().data_received(data[:end])
                data = data[end:]
            if not data or self._is_whole() or self.exception() is not None:
                break
            found = data.find(b"HTTP/1.", 1)
            end = len(data) if found < 0 else found
        if self.exception() is None:
            return bool(data)
        if not self._is_whole() and self._payload is not None:
            self._payload.set_exception(aiohttp.ClientPayloadError("the body is broken"))  # aiohttp would never end it
        return self._is_whole()

    def _is_whole(self) -> bool:
        return self._payload is not None and self._payload.is_eof()

    def _close_for_surplus(self) -> None:
        if self._surplus_reported:
            return
        self._surplus_reported = True
        self.force_close()
        if self.transport is not None:
            self._loop.call_soon(self.transport.abort)
        if self._client is not None:
            for report in self._open_connections.on_surplus:
                report(self._client)
