"""Keeps received bytes that a connection has not passed on yet, cut into requests, and bounds those of all."""

import re
import time
from typing import Protocol

import structlog

from notifier.model.shared_resources import shared_bound
from notifier.network.listeners.turns import Turns

BUDGET_BYTES = shared_bound(32 * 1024 * 1024)  # held outside of requests; a TLS handshake counts 16 KiB
MAX_HEAD_BYTES = 32 * 1024  # bytes of a request's line and fields
PIECE_BYTES = 8 * 1024  # bytes per read
MAX_LINES_PER_ADVANCE = shared_bound(12)  # of chunked bodies, 10 µs each; then the other connections advance
_SHORT_PIECE_BYTES = 64  # bytes passed on of a body with more lines than that
_LOG_INTERVAL_SECONDS = 60.0  # seconds

_END = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb"[A-Z][A-Z-]* [^ \r\n]+ HTTP/1\.[01]\r\n")
_LENGTH = re.compile(rb"\r\nContent-Length:[ \t]*([0-9]{1,15})[ \t]*\r\n", re.IGNORECASE)


class Holder(Protocol):
    """A connection, as used by the budget."""

    def abort(self) -> None:
        """Close the connection at once, and drop the bytes that it holds."""


class ConnectionBudget:
    """Counts the bytes that connections hold. Beyond `max_bytes` bytes, it closes the largest holders."""

    def __init__(self, max_bytes: int = BUDGET_BYTES) -> None:
        self._max_bytes = max_bytes
        self._total = 0
        self._held: dict[Holder, int] = {}
        self._closed = 0
        self._logged_at = float("-inf")
        self.turns = Turns()  # of the connections of all listeners

    def hold(self, connection: Holder, count: int) -> None:
        """Set how many bytes the connection holds now."""
        self._total += count - self._held.get(connection, 0)
        self._held[connection] = count
        if not count:
            del self._held[connection]
        while self._total > self._max_bytes:
            largest = max(self._held, key=self._held.__getitem__)
            self._total -= self._held.pop(largest)
            largest.abort()
            self._closed += 1
            self._log()

    def _log(self) -> None:
        now = time.monotonic()
        if now - self._logged_at >= _LOG_INTERVAL_SECONDS:
            self._logged_at = now
            structlog.get_logger().warning("connections_closed", count=self._closed, reason="they held too many bytes")
            self._closed = 0


class HeldBytes:
    """The bytes `held` of one connection, which passes on a head, then pieces of the body, then the next head.

    `unbegun_head_size`: bytes of a head that was passed on, 0 once its request begins. `left`: remaining bytes of the
    body, None if it is chunked. `passed`: bytes of the body that were passed on.
    """

    def __init__(self) -> None:
        self.held = bytearray()
        self.unbegun_head_size = 0
        self.left: int | None = None
        self.passed = 0
        self._searched = 0  # bytes of a head that were searched for its end
        self._blank = 0  # bytes of empty lines before it

    def has_head(self) -> bool:
        """Return whether the held bytes have the whole head of the next request."""
        held = self.held.lstrip(b"\r\n") if self.held[:1] in b"\r\n" else self.held
        return held.find(_END, self._searched) >= 0

    def on_request(self, length: int | None) -> None:
        """Note that the request of the last head begins. `length`: its Content-Length."""
        self.unbegun_head_size = 0
        if self.left is None and length is not None:
            self.left = max(0, length - self.passed)

    def on_end(self) -> None:
        """Record that the whole body was passed on and the response was made."""
        self.left, self.passed = None, 0

    def next_head(self) -> bytes | None:
        """Return the next head and the received part of its body: empty until it is complete, None if it is refused."""
        held = self.held
        if held[0] in b"\r\n":
            lines = held.lstrip(b"\r\n")
            self._blank += len(held) - len(lines)
            held[:] = lines
        end = held.find(_END, self._searched)
        size = len(held) if end < 0 else end + len(_END)
        if size + self._blank > MAX_HEAD_BYTES or self._is_no_request():
            return None
        if end < 0:
            self._searched = max(0, size - len(_END) + 1)
            return b""
        self._searched, self._blank, self.unbegun_head_size = 0, 0, size
        length = _LENGTH.search(held, 0, size)
        if length is not None:
            whole = int(length[1])
            self.passed = min(len(held) - size, whole)
            self.left = whole - self.passed
        return self._take(size + self.passed)

    def _is_no_request(self) -> bool:
        """Return True if the held bytes cannot become a head."""
        held = self.held
        if not held:
            return False
        line = held.find(b"\n") + 1
        return not held[:1].isalpha() or (line > 0 and _REQUEST_LINE.match(held, 0, line) is None)

    def next_of_body(self) -> bytes:
        """Return a piece that ends within the body: a chunked body ends with an empty line."""
        size = min(len(self.held), PIECE_BYTES)
        if self.left is not None:
            size = min(size, self.left)
            self.left -= size
        else:
            size = self._chunked_size(size)
        self.passed += size
        return self._take(size)

    def _chunked_size(self, size: int) -> int:
        """Return the size of the next piece of a chunked body, which ends with _END. Many lines make it smaller."""
        if self.held.count(b"\n", 0, size) > MAX_LINES_PER_ADVANCE:
            size = min(size, _SHORT_PIECE_BYTES)
        end = self.held.find(_END, 0, size)
        if end >= 0:
            return end + len(_END)
        # A part of _END at the end of the piece is kept, so that _END is found as soon as the rest has arrived.
        return size - next((count for count in (3, 2, 1) if self.held.endswith(_END[:count], 0, size)), 0)

    def _take(self, size: int) -> bytes:
        taken = bytes(self.held[:size])
        del self.held[:size]
        return taken
