"""AMQP properties as bytes, as a broker passes them on: every type of a field table, in any nesting.

Well-formed as RabbitMQ requires, which refuses the rest before it reaches a worker; the values are random.
"""

import struct
from collections.abc import Sequence

import aiormq
from aiormq.abc import DeliveredMessage
from hypothesis import strategies as st
from pamqp import commands
from pamqp.header import ContentHeader

from tests.fuzz import grammar

Raw = st.SearchStrategy[bytes]

# Basic.Properties in their order, and the bit of each (AMQP 0-9-1 §4.2.6.1).
_SHORT_STRINGS = {
    "content_type": 15, "content_encoding": 14, "correlation_id": 10, "reply_to": 9, "expiration": 8, "message_id": 7,
    "message_type": 5, "user_id": 4, "app_id": 3,
}  # fmt: skip
_HEADERS, _DELIVERY_MODE, _PRIORITY, _TIMESTAMP = 13, 12, 11, 6


def short(text: bytes) -> bytes:
    """Encode a short string."""
    return bytes([len(text[:255])]) + text[:255]


def long(content: bytes) -> bytes:
    """Encode a value with a 32-bit length: a long string, an array, a table."""
    return struct.pack(">I", len(content)) + content


def pair(name: bytes, value: bytes) -> bytes:
    """Encode a field of a table."""
    return short(name) + value


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────

_FIXED = tuple(
    kind + filling * size
    for kind, size in (
        (b"t", 1), (b"b", 1), (b"B", 1), (b"s", 2), (b"u", 2), (b"I", 4), (b"i", 4), (b"l", 8), (b"L", 8), (b"f", 4),
        (b"d", 8), (b"D", 5), (b"T", 8), (b"V", 0),
    )
    for filling in (b"\x00", b"\x01", b"\x7f", b"\x80", b"\xff")
)  # fmt: skip
_TEXTS = tuple(
    text.encode()
    for text in ("1.0", "/idp", "c-1", "t", "", "a\nb", "é" * 200, "%41", grammar.LOUD * 3000, *grammar.MOMENTS)
)
_STRINGS = tuple(b"S" + long(text) for text in (*_TEXTS, b"\xff\xfe", b"\xed\xa0\x80", b"\x00"))
_BYTES = (b"x" + long(b"\xff\x00"), b"x" + long(b""))


def _nested(depth: int, kind: bytes) -> bytes:
    content = b"V"
    for _ in range(depth):
        content = kind + long(content if kind == b"A" else pair(b"a", content))
    return content


_DEEP = tuple(_nested(depth, kind) for depth in (3, 90, 1500, 3000) for kind in (b"A", b"F"))
_PLAIN = (*_STRINGS * 3, *_FIXED, *_BYTES, *_DEEP)
_plain = st.integers(0, len(_PLAIN) - 1).map(_PLAIN.__getitem__)  # not `sampled_from`, which would print all of it


def table(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Encode a table's content, with duplicates."""
    return b"".join(pair(name, value) for name, value in fields)


names = st.sampled_from(
    [
        *(
            prefix.encode() + name
            for prefix in grammar.PREFIXES
            for name in (b"specversion", b"id", b"source", b"type", b"time", b"")
        ),
        b"x-death", b"x-death", b"x-delivery-count", b"x-delivery-count", b"timestamp_in_ms", b"timestamp_in_ms",
        b"\xff\xfe", b"n" * 255, b"exchange", b"reason", b"time", b"queue", b"count", b"traceparent", b"CC",
    ]
)  # fmt: skip
_values = st.recursive(
    _plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda values: b"A" + long(b"".join(values))),
        st.lists(st.tuples(names, inner), max_size=3).map(lambda fields: b"F" + long(table(fields))),
    ),
    max_leaves=4,
)
headers: Raw = st.lists(st.tuples(names, _values), max_size=7).map(table)


# ── properties ──────────────────────────────────────────────────────────────────────────────────────────────────

_short_strings = st.sampled_from(
    [
        b"application/json", b"application/cloudevents+json", b"notifier.delivery", b"notifier.event",
        b"notifier.dead-letter", b"notifier.tomorrow", b"m-1", b"", b"\xff\xfe", "é".encode() * 127, b"L" * 255,
        b"a\x00b", b"60000", b"text/plain",
    ]
)  # fmt: skip
_stamps = st.sampled_from([0, 1, 1_700_000_000, 1_700_000_000_000, 1_700_000_000_000_000, 2**32, 2**63, 2**64 - 1])


@st.composite
def properties(draw: st.DrawFn, headers: Raw = headers) -> bytes:
    """Encode a content header's flags and properties."""
    flags, parts = 0, {}
    for name in draw(st.lists(st.sampled_from([*_SHORT_STRINGS]), max_size=4)):
        parts[_SHORT_STRINGS[name]] = short(draw(_short_strings))
    if draw(st.integers(0, 3)):
        parts[_HEADERS] = long(draw(headers))
    if draw(st.booleans()):
        parts[_TIMESTAMP] = struct.pack(">Q", draw(_stamps))
        parts[_DELIVERY_MODE], parts[_PRIORITY] = b"\x02", b"\xff"
    for bit in parts:
        flags |= 1 << bit
    return struct.pack(">H", flags) + b"".join(parts[bit] for bit in sorted(parts, reverse=True))


def delivered(raw: bytes, body: bytes, *, exchange: str = "", redelivered: bool = False) -> DeliveredMessage:
    """Return the message as aiormq delivers it, its properties decoded from the wire."""
    header = ContentHeader()
    header.unmarshal(struct.pack(">HHQ", commands.Basic.frame_id, 0, len(body)) + raw)
    return DeliveredMessage(
        delivery=commands.Basic.Deliver("consumer", 1, redelivered=redelivered, exchange=exchange, routing_key="k"),
        header=header,
        body=body,
        channel=aiormq.Channel.__new__(aiormq.Channel),
    )
