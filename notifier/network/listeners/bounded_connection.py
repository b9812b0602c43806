"""Bounds the bytes that a connection holds before and between requests, between asyncio's transport and aiohttp.

aiohttp alone keeps a head of 64 lines of 8 KiB, 32 parsed requests behind a slow one, and, for each part that it
receives after a broken body, an error with a copy of that part. So aiohttp receives one request at a time:

| received | effect |
|---|---|
| a head | held here, as bytes, until complete: 32 KiB at most (400). A broken request line is refused at once |
| a body | passed on up to its end, while aiohttp accepts more of it |
| a broken body | nothing after the first broken byte is read. The route answers 400 |
| bytes after a request | held here, as bytes, until the response is made. Beyond 8 KiB nothing more is read |
| a response that the peer does not read | counted from 16 KiB, and dropped after a deadline |

All this is counted, for all listeners of the process together. Beyond the budget the connection that holds most is
closed. Bytes that a running request has read are not counted: listeners limit requests and their bodies.

Only public interfaces of asyncio and aiohttp are needed: `web.Server.request_handler` shows when a request begins.
aiohttp's list of parsed messages shows a broken body at once; without it, it is detected after 32 KiB.
"""

import asyncio
from collections.abc import MutableMapping
from typing import Any, cast

from aiohttp import web

from notifier.network.listeners.held_bytes import (
    MAX_HEAD_BYTES,
    MAX_LINES_PER_ADVANCE,
    PIECE_BYTES,
    ConnectionBudget,
    HeldBytes,
)
from notifier.network.listeners.turns import Parties, Seat

BODY_BUFFER_BYTES = 8 * 1024  # of a body, at which aiohttp pauses reading; it reads up to twice that
_MAX_BODY_BYTES_HELD = 2 * BODY_BUFFER_BYTES + PIECE_BYTES
_MAX_UNREAD_BYTES = 16 * 1024  # bytes of responses from which these are counted
_MAX_TLS_BYTES_HELD = 64 * 1024  # bytes that a TLS connection may hold, encrypted, while nothing is read from it
_TLS_PIECE_BYTES = 1024  # of one read; the loop reads on in its next round. 64 records of `counted_tls` take 0.1 ms
LINGER_SECONDS = 2.0  # seconds for the rest of a refused request, so that the response is read before the reset
MAX_DROPPED_PIECES = 16  # received and dropped in that time
_PIECE_COST = 4  # the fixed cost of a piece, in lines
_MAX_UNWANTED_BYTES = 8 * 1024  # bytes of a request that are passed on after its response; then no more is read

_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class BoundedConnection(asyncio.BufferedProtocol):
    """One connection, which adds itself to `connections` and removes itself.

    `head_seconds`: from the connection's start or the head's first byte. `unread_seconds`: to read a response.
    """

    def __init__(
        self,
        handler: web.RequestHandler,
        budget: ConnectionBudget,
        buffer: memoryview,
        head_seconds: float,
        unread_seconds: float,
        parties: Parties,
        connections: MutableMapping[web.RequestHandler, Any],
    ) -> None:
        """`buffer` receives each read; connections share it, since the bytes are taken out immediately."""
        self.handler = handler
        self._budget = budget
        self._buffer = buffer
        self._head_seconds = head_seconds
        self._unread_seconds = unread_seconds
        self._connections = connections
        self._seat = Seat(budget.turns, parties, self.advance)
        self._transport: asyncio.Transport | None = None
        self._tls = False
        self._bytes = HeldBytes()
        self._content: Any = None  # of the current request
        self._max_passed_bytes = 0  # of the body, after the response
        self._answering = False
        self._broken = False
        self._refused = 0  # pieces that are still read, and dropped, after a refusal
        self._body_paused = False  # by aiohttp
        self._reading = True
        self._head_timer: asyncio.TimerHandle | None = None  # while a head is awaited
        self._unread_timer: asyncio.TimerHandle | None = None  # while the peer does not read its response

    @property
    def busy(self) -> bool:
        """True while a request is in progress."""
        return self._answering or self._bytes.unbegun_head_size > 0

    def end(self) -> None:
        """Close the connection: after the response, if a request is in progress."""
        (self.handler.close if self.busy else self.handler.force_close)()

    def abort(self) -> None:
        """Close the connection at once, and drop its bytes."""
        transport, self._transport = self._transport, None
        self._bytes.held.clear()
        self._seat.leave()
        if transport is not None:
            transport.abort()

    def on_request(self, request: web.BaseRequest) -> None:
        """Record that aiohttp begins with the request whose head was passed on."""
        self._content, self._answering = request.content, True
        self._bytes.on_request(request.content_length)
        if self._transport is None and not request.content.is_eof():
            request.content.set_exception(ConnectionResetError("the connection was closed"))
            return
        self.advance()

    def on_answer(self, seconds: float, rest_factor: float) -> None:
        """Record that the response was made. It is written before the next request is read. See `Seat.on_answer`."""
        self._seat.on_answer(seconds, rest_factor)
        self._answering = False
        self._max_passed_bytes = self._bytes.passed + _MAX_UNWANTED_BYTES
        self._note_next_head()
        self._seat.wait_for_turn()

    # ── asyncio's protocol ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._connections[self.handler] = self
        self._transport = real = cast("asyncio.Transport", transport)
        self._seat.on_connection(real.get_extra_info("peername"))
        real.set_write_buffer_limits(high=_MAX_UNREAD_BYTES)
        self._tls = real.get_extra_info("sslcontext") is not None
        if hasattr(real, "set_read_buffer_limits"):  # TLS
            real.set_read_buffer_limits(high=PIECE_BYTES)
            self._buffer = self._buffer[:_TLS_PIECE_BYTES]
        self.handler.connection_made(cast("asyncio.Transport", _TransportView(real, self)))
        self._head_timer = asyncio.get_running_loop().call_later(self._head_seconds, self.end)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self.abort()
        self._budget.hold(self, 0)
        for timer in filter(None, (self._head_timer, self._unread_timer)):
            timer.cancel()
        if exc is not None and not isinstance(exc, ConnectionError):  # of TLS: it would be logged as one of a handler
            exc = ConnectionResetError(str(exc))
        # Later: aiohttp fails if a connection ends after bytes were passed on, and before it has taken them.
        asyncio.get_running_loop().call_soon(self.handler.connection_lost, exc)
        self._connections.pop(self.handler, None)

    def eof_received(self) -> None:
        """Called by asyncio, which closes the connection then."""
        self.handler.eof_received()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  the signature is asyncio's
        """Called by asyncio before each read."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Called by asyncio after each read."""
        if self._broken:
            self._refused -= 1
            if self._refused <= 0:
                self.abort()
        elif self._transport is not None:
            self._bytes.held += self._buffer[:nbytes]
            self._note_next_head()
            self._seat.wait_for_turn()
            self._apply_limits()

    def pause_writing(self) -> None:
        """Called by asyncio: the peer does not read as fast as responses are written."""
        self.handler.pause_writing()
        self._unread_timer = asyncio.get_running_loop().call_later(self._unread_seconds, self.abort)
        self._apply_limits()

    def resume_writing(self) -> None:
        """Called by asyncio: the peer reads again."""
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
        self._apply_limits()
        self.handler.resume_writing()

    # ── reading ──

    def _note_next_head(self) -> None:
        """If the next head is complete, take turns as its bearer. It waits for other connections now, not its peer."""
        if self._content is not None and not self._answering and self._content.is_eof():
            self._content = None
            self._bytes.on_end()
        if self._content is None and not (self.busy or self._seat.knows_head) and self._bytes.has_head():
            self._seat.on_head(self._bytes.held)
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    def want(self, *, more: bool) -> None:
        """Record whether aiohttp wants more of a body. Pass it on later, as aiohttp may be emptying its buffer now."""
        if self._body_paused is more:
            self._body_paused = not more
            self._seat.wait_for_turn()

    def advance(self) -> None:
        """Pass on the bytes that aiohttp may have now."""
        if self._transport is None:
            return
        lines = 0
        while piece := self._next_piece():
            self.handler.data_received(piece)
            if self._content is not None and self._is_broken():
                self._stop()
            elif (lines := lines + piece.count(b"\n") + _PIECE_COST) > MAX_LINES_PER_ADVANCE:
                if self._content is not None and not self._answering and self._bytes.passed > self._max_passed_bytes:
                    self._stop()
                self._seat.wait_for_turn()
                break
        if self._bytes.held and self._content is None and self._head_timer is None and not self.busy:
            self._head_timer = asyncio.get_running_loop().call_later(self._head_seconds, self.end)
        self._apply_limits()

    def _next_piece(self) -> bytes:
        """Return the next bytes for aiohttp: a head, or a piece of the body. Empty if it may have none now."""
        if self._broken or self._bytes.unbegun_head_size or not self._bytes.held:
            return b""
        if self._content is not None and not self._content.is_eof():
            return b"" if self._body_paused else self._bytes.next_of_body()
        if self._answering:
            return b""
        self._note_next_head()
        if (head := self._bytes.next_head()) is None:
            self._refuse()
        return head or b""

    def _is_broken(self) -> bool:
        """True if the body is broken, or if its chunk framing exceeds the chunks by more than MAX_HEAD_BYTES."""
        content = self._content
        if content.is_eof():
            return False
        if content.exception() is not None or getattr(self.handler, "_messages", None):
            return True
        return self._bytes.left is None and self._bytes.passed - 2 * content.total_bytes > MAX_HEAD_BYTES

    def _stop(self) -> None:
        """Stop reading, and report the error to the route."""
        self._broken = True
        self._bytes.held.clear()
        if self._content.exception() is None:
            self._content.set_exception(web.RequestPayloadError("the body is broken"))

    def _refuse(self) -> None:
        """Answer 400 and close. For a moment, more is read and dropped: a reset would overtake the response."""
        self._broken = True
        self._refused = MAX_DROPPED_PIECES
        self._bytes.held.clear()
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(_BAD_REQUEST)
            if transport.can_write_eof():
                transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self.abort)

    def _apply_limits(self) -> None:
        """Pause or resume reading by the free space, and report the held bytes to the budget."""
        transport = self._transport
        if transport is None:
            return
        held = len(self._bytes.held)
        # The held bytes belong to later requests while the current request is passed on or answered.
        behind = self._bytes.unbegun_head_size > 0 or (self._answering and self._content.is_eof())
        reading = not (
            self._body_paused
            or (self._broken and not self._refused)
            or held >= (PIECE_BYTES if behind else MAX_HEAD_BYTES + PIECE_BYTES)
        )
        if reading is not self._reading and not transport.is_closing():
            self._reading = reading
            (transport.resume_reading if reading else transport.pause_reading)()
        held += 2 * self._bytes.unbegun_head_size + min(self._bytes.passed, _MAX_BODY_BYTES_HELD)
        if self._unread_timer is not None:
            held += transport.get_write_buffer_size()
        if self._tls and not self._reading:
            held += _MAX_TLS_BYTES_HELD
        self._budget.hold(self, held)


class _TransportView:
    """The transport for aiohttp. The connection decides whether anything is read."""

    def __init__(self, transport: asyncio.Transport, connection: BoundedConnection) -> None:
        self._transport = transport
        self._connection = connection

    def pause_reading(self) -> None:
        """Called by aiohttp."""
        self._connection.want(more=False)

    def resume_reading(self) -> None:
        """Called by aiohttp."""
        self._connection.want(more=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
