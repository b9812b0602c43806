"""Makes all TLS contexts of connections in an event loop, and bounds the work that a peer causes below HTTP and AMQP.

The layers above count decrypted bytes, which a peer can avoid: OpenSSL processes KeyUpdate records of 27 bytes (12 µs
each, 25 µs if they request a reply), session tickets (6 µs each) and unfinished handshake messages (128 KiB) without a
decrypted byte, and in one call as many as a read of the socket has returned.

asyncio's and uvloop's TLS protocols write what arrives to a buffer, from which OpenSSL reads. `CountedContext.wrap_bio`
gives OpenSSL a second buffer, to which `CountedTls` passes one record at a time. Heads of records are not encrypted:

| counted | limit |
|---|---|
| until the handshake is complete | 32 KiB of a server, 16 KiB of a client, 64 records |
| later records without data, in 10 s | 32 KiB, 32 records of a server, 8 of a client |
| data that records lack to 16 bytes each, in 10 s; larger ones make up for it | 4 KiB |

The layer above counts data, but each record takes 1.5 µs: a response of 48 KiB takes 72 ms in records of one byte, and
5 ms in records of 16. The shortest frequent frames of AMQP, confirms, have 21 bytes. Data before an excess is passed
on: a client that answers 200 and then floods was notified.

Key exchanges in finite fields are not used, since the peer chooses their size. Those of TLS 1.2 take a client up to
0.9 s. In TLS 1.3 a client takes 0.15 s after a HelloRetryRequest, which `CountedTls` refuses, and a listener 0.15 s for
each ClientHello of 1.3 KiB. Before Python 3.15 `ssl` can name one group only: P-256, which every implementation has
(RFC 8446 §9.1).

Only public interfaces are used: `SSLContext.wrap_bio`, `SSLContext.sslobject_class`, and the methods of `SSLObject`.
Renegotiation of TLS 1.2 by a server is allowed, and counted: some servers request a certificate for some paths only.
"""

import ssl
import time
from collections.abc import Callable
from typing import Any

MAX_SERVER_HANDSHAKE_BYTES = 32 * 1024  # mostly certificates: 80 useless ones take 13 ms
MAX_CLIENT_HANDSHAKE_BYTES = 16 * 1024  # with its certificates, if it has some
MAX_HANDSHAKE_RECORDS = 64
MAX_BYTES_WITHOUT_DATA = 32 * 1024  # several session tickets with certificates; 1,000 small tickets take 12 ms
MAX_SERVER_RECORDS_WITHOUT_DATA = 32  # in a row OpenSSL accepts as many empty ones, BoringSSL as many KeyUpdates
MAX_CLIENT_RECORDS_WITHOUT_DATA = 8  # clients send no tickets; many connections may send these in one round of the loop
MIN_MEAN_DATA_BYTES = 16  # of the records with data …
MAX_MISSING_DATA_BYTES = 4 * 1024  # … after 273 of one byte: heads and chunks may be written piece by piece
WINDOW_SECONDS = 10.0  # data in between does not reset the limits
MAX_PASSED_BYTES = 4 * 1024  # at a time, since OpenSSL's buffer keeps the largest size
MAX_DATA_BYTES = 16 * 1024  # of a record (RFC 8446 §5.1). asyncio requests 256 KiB, which Python allocates at each call
_HEAD_BYTES = 5  # of a record: its type, version and length
_HANDSHAKE_RECORD, _SERVER_HELLO = 22, 2
_RETRY_RANDOM = bytes.fromhex(  # of a HelloRetryRequest, which is a ServerHello (RFC 8446 §4.1.3)
    "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c"
)
_FINITE_FIELD_SHARE = b"\x00\x33\x00\x02\x01"  # its key_share, and the first byte of a group of RFC 7919


class TlsLimitError(ssl.SSLError):
    """The peer exceeded a limit. OpenSSL's errors have a `reason` and a `library`, those made in Python do not."""

    library = "notifier"

    def __init__(self, reason: str) -> None:
        super().__init__(ssl.SSL_ERROR_SSL, reason)
        self.reason = reason


class CountedTls(ssl.SSLObject):
    """One side of a connection. Its methods raise TlsLimitError beyond a limit, and the loop aborts the connection."""

    def start(self, received: ssl.MemoryBIO, passed: ssl.MemoryBIO, counter: "CountedContext") -> None:
        """Pass records from `received` to `passed`, from which OpenSSL reads."""
        self._received = received
        self._passed = passed
        self._counter = counter  # `context` may be another one: a listener's certificate is renewed
        self._clock = counter.clock
        self._head = b""  # the received part of a head
        self._size = 0  # bytes of the current record
        self._rest = 0  # bytes of it that are not passed yet
        self._hello: bytes | None = None if self.server_side else b""  # the record with it; None once it is checked
        self._excess = ""  # the limit that was exceeded
        self._spare_data, self._spare_since = MAX_MISSING_DATA_BYTES, self._clock()
        of_client = self.server_side
        self._max_records = MAX_CLIENT_RECORDS_WITHOUT_DATA if of_client else MAX_SERVER_RECORDS_WITHOUT_DATA
        limit = MAX_CLIENT_HANDSHAKE_BYTES if of_client else MAX_SERVER_HANDSHAKE_BYTES
        self._begin_window(0.0, limit, MAX_HANDSHAKE_RECORDS)

    def read(self, wanted: int = 1024, buffer: Any = None) -> Any:
        """Called by asyncio, until it raises SSLWantReadError."""
        wanted = min(wanted, MAX_DATA_BYTES)
        if self.pending():  # data of the last record that did not fit
            return self._count_data(super().read(wanted, buffer))
        while True:
            part = self._pass_part()
            try:
                data = super().read(wanted, buffer)
                self._spare_data -= MIN_MEAN_DATA_BYTES
                return self._count_data(data)
            except ssl.SSLWantReadError:
                if self._lacks_data():
                    self._excess = "too many small TLS records"
                if not part or self._exceeds_limit():
                    raise

    def do_handshake(self) -> None:
        """Called by asyncio."""
        began = time.monotonic()
        try:
            self._go_on_with_handshake()
        finally:
            self._counter.handshake_seconds += time.monotonic() - began
        self._begin_window(self._clock(), MAX_BYTES_WITHOUT_DATA, self._max_records)

    def _go_on_with_handshake(self) -> None:
        while True:
            try:
                return super().do_handshake()
            except ssl.SSLWantReadError:
                part = self._pass_part()
                if not part:
                    raise
            if self._hello is not None:
                self._check_hello(self._hello + part)
            if self._count(len(part), 0 if self._rest else 1):
                raise TlsLimitError("the handshake is too large")

    def unwrap(self) -> Any:
        """Called by asyncio to end TLS."""
        while True:
            try:
                return super().unwrap()
            except ssl.SSLWantReadError:
                if not self._pass_part() or self._exceeds_limit():
                    raise

    def _pass_part(self) -> bytes:
        """Pass the next record to OpenSSL, or a part of it. Return what was passed."""
        if self._excess:
            raise TlsLimitError(self._excess)
        if self._lacks_data():
            self._received.read()
            return b""
        head = b""
        if not self._rest:
            head = self._head + self._received.read(_HEAD_BYTES - len(self._head))
            if len(head) < _HEAD_BYTES:
                self._head = head
                return b""
            self._head = b""
            self._rest = head[3] << 8 | head[4]
            self._size = _HEAD_BYTES + self._rest
        body = self._received.read(min(self._rest, MAX_PASSED_BYTES))
        self._rest -= len(body)
        part = head + body
        self._passed.write(part)
        return part

    def _check_hello(self, record: bytes) -> None:
        """Refuse a server that requests a key exchange in a finite field. OpenSSL has not processed the record yet.

        The request, or the start of another ServerHello, must be in one record: no implementation divides it.
        """
        if self._rest or record[0] != _HANDSHAKE_RECORD:
            self._hello = record if self._rest else b""  # an alert may come before it
            return
        self._hello = None
        hello = record[_HEAD_BYTES:]
        random = hello[6:38]
        is_whole = len(hello) >= 4 + int.from_bytes(hello[1:4])
        if (
            hello[:1] != bytes([_SERVER_HELLO])
            or len(random) < len(_RETRY_RANDOM)
            or (random == _RETRY_RANDOM and (not is_whole or _FINITE_FIELD_SHARE in hello))
        ):
            raise TlsLimitError("the server requests a key exchange in a finite field")

    def _begin_window(self, now: float, max_bytes: int, max_records: int) -> None:
        self._since, self._spare_bytes, self._spare_records = now, max_bytes, max_records

    def _exceeds_limit(self) -> bool:
        """Count the current record, which has no data, once it is whole. Return True beyond a limit.

        The rest is dropped then: the loop would pause reading because of it, and never receive the error, which the
        next call raises. The error is not raised at once because the loop would drop the data of earlier calls.
        """
        if self._rest:
            return False
        now = self._clock()
        if now - self._since > WINDOW_SECONDS:
            self._begin_window(now, MAX_BYTES_WITHOUT_DATA, self._max_records)
        if self._count(self._size, 1):
            self._excess = "too many TLS records without data"
            self._received.read()
        return bool(self._excess)

    def _lacks_data(self) -> bool:
        """Return True if records lacked more than the limit in WINDOW_SECONDS, unlike heartbeats of a quiet broker."""
        if self._spare_data < 0 and (now := self._clock()) - self._spare_since > WINDOW_SECONDS:
            self._spare_data, self._spare_since = MAX_MISSING_DATA_BYTES, now
        return self._spare_data < 0

    def _count_data(self, data: Any) -> Any:
        """Return the data of a record, which are bytes or their number in a buffer. Beyond the limit none is passed."""
        size = data if isinstance(data, int) else len(data)
        self._spare_data = min(self._spare_data + size, MAX_MISSING_DATA_BYTES)
        return data

    def _count(self, size: int, records: int) -> bool:
        """Return True if these bytes and records exceed a limit."""
        self._spare_bytes -= size
        self._spare_records -= records
        return self._spare_bytes < 0 or self._spare_records < 0


class CountedContext(ssl.SSLContext):
    """A context whose connections are counted. `new_context` makes it."""

    sslobject_class = CountedTls
    clock: Callable[[], float] = time.monotonic
    handshake_seconds = 0.0  # for which handshakes have blocked the event loop, since they were taken

    def take_handshake_seconds(self) -> float:
        """Return for how many seconds handshakes have blocked the event loop since the last call."""
        seconds, self.handshake_seconds = self.handshake_seconds, 0.0
        return seconds

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **options: Any) -> CountedTls:
        """Called by asyncio."""
        passed = ssl.MemoryBIO()
        counted = super().wrap_bio(passed, outgoing, *args, **options)
        assert isinstance(counted, CountedTls)
        counted.start(incoming, passed, self)
        return counted


def new_context(protocol: int, clock: Callable[[], float] = time.monotonic) -> CountedContext:
    """Return a context of TLS 1.2 and newer without key exchanges in finite fields.

    `protocol`: PROTOCOL_TLS_CLIENT, which verifies the server, or PROTOCOL_TLS_SERVER.
    """
    context = CountedContext(protocol)
    context.clock = clock
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join(cipher["name"] for cipher in context.get_ciphers() if cipher["kea"] != "kx-dhe"))
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        if hasattr(context, "set_groups"):  # since Python 3.15
            context.set_groups("X25519:P-256")
        else:
            context.set_ecdh_curve("prime256v1")
    return context
