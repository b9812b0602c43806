"""Converts a delivered message into a `Message`, whatever properties a publisher has set.

It protects against:

- A message that pretends to be one of notifier's: see `_find_kind`.
- A message in the queue of a source that was not sent through an exchange, and so bypassed the broker's permissions. It
  is marked `unrouted`.
- A message that pamqp cannot decode, such as with a timestamp in microseconds. It would close the connection, also at
  each redelivery, until it and its neighbours reach the delivery limit.
- A message sent by AMQP 1.0 with a text as its value, which the broker passes on encoded.
- A message too large to be an event. The prefetch counts messages, and hundreds of the broker's largest (16 MiB on 4.x)
  would fill the memory.
- Headers with very many or deeply nested values. pamqp copies the rest of a table for each value and level: 130,000
  values in a table of 128 KiB blocked the loop for 3 s, and 3,000 nested lists in 16 KiB for 25 ms.
"""

import datetime as dt
import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import aiormq.abc
from pamqp import commands, decode

from notifier.model.message import (
    DEAD,
    MIN_SUSPECT_CRASHES,
    PARKED,
    SOURCE,
    CutBody,
    Kind,
    Lane,
    Message,
    NewerKind,
    parse_kind,
)
from notifier.model.reply import parse_reply_to
from notifier.model.shared_resources import shared_cache
from notifier.queues.rabbitmq.delays import DELAY_QUEUES

MAX_PASS_RETURNS = 1  # returns of a message to its bucket by passes over pending deliveries
MAX_HEADER_BYTES = 16 * 1024  # larger tables are not decoded, nor are those above 4 KiB with …
MAX_UNCOUNTED_BYTES = 4 * 1024  # 2 ms at most, 0.1 ms usually; 24 entries of `x-death` have 3.6 KiB, and 200 values
MAX_HEADER_VALUES = 500  # … more values, nested ones included
MAX_HEADER_NESTING = 8  # … or more tables and lists within each other; `x-death` has four

# Smaller tables are decoded once and cached. Messages from a delay queue have it in their headers, and all that arrive
# within a second have the same table: this saves 10 of 14 µs per header. Decoded tables must not be changed.
MAX_CACHED_TABLE_BYTES = 1024

# The kinds of notifier's messages that each queue may contain. Parts of events and rewritten events are sent to the
# event's lane; deliveries and everything deferred to `retries` or a delay queue (also an upstream's logout while its
# session cannot be looked up); only deliveries to a bucket.
_KINDS_BY_ORIGIN: Mapping[str, frozenset[Kind]] = {
    Lane.EVENTS: frozenset({Kind.EVENT, Kind.SOURCED}),
    Lane.BULK: frozenset({Kind.EVENT, Kind.SOURCED}),
    Lane.RETRIES: frozenset({Kind.EVENT, Kind.DELIVERY, Kind.SOURCED}),
    PARKED: frozenset({Kind.DELIVERY}),
    DEAD: frozenset({Kind.DEAD_LETTER, Kind.UNREADABLE}),
}
AMQP_1_0_TYPE = "amqp-1.0"  # the `type` of a message sent by AMQP 1.0 whose body is not one section of data
MAX_AMQP_1_0_SECTIONS = 100  # of a body; 16 MiB may have three million, which would block the loop for seconds
# A section of a body: the descriptor of data or of a value (AMQP 1.0 §3.2.6, §3.2.8), as smallulong or ulong, and the
# constructor of binary or string, with one or four bytes of length (§1.6.19 and §1.6.20).
_AMQP_1_0_SECTION = re.compile(rb"\x00(?:\x53|\x80\x00{7})[\x75\x77](?:([\xa0\xa1].)|[\xb0\xb1](.{4}))", re.DOTALL)

_VALUE_SIZES = {  # of values in a table, by their type; others have a length of four bytes (AMQP 0-9-1 §4.2.1)
    b"V": 0, b"\0": 0, b"t": 1, b"b": 1, b"B": 1, b"s": 2, b"u": 2, b"I": 4, b"i": 4, b"f": 4, b"D": 5, b"l": 8,
    b"L": 8, b"d": 8, b"T": 8,
}  # fmt: skip
_DELAY_SUFFIXES = tuple(f".{name}" for name in DELAY_QUEUES)
_SOURCE_QUEUE = re.compile(rf"\.{re.escape(SOURCE)}([^.]+)\Z")


class UnreadableTable(dict[str, Any]):
    """An undecoded table. It is empty, and its contents are unknown."""


def to_message(
    origin: str,
    delivered: aiormq.abc.DeliveredMessage,
    tag: object,
    *,
    keep: int | None = None,
    source: str | None = None,
) -> Message:
    """Return the message for the pipeline. `origin`: the queue from which it was taken: a lane, `dead`, `parked`.

    `tag` is for the later ack. At most `keep` bytes of a publisher's body are kept; bodies of notifier are never cut.
    `source`: the message is from this source's queue, which feeds the lane and has no messages of notifier.
    """
    properties = delivered.header.properties
    headers: Mapping[str, Any] = {} if properties.headers is None else properties.headers
    kind = None if source is not None else _find_kind(origin, delivered.exchange, properties, headers)
    body, cut_from = delivered.body, None
    if properties.message_type == AMQP_1_0_TYPE:
        body = _read_amqp_1_0(body)
    if kind is None and keep is not None and len(body) > keep:
        cut_from = CutBody(size=len(body), sha256=hashlib.sha256(body).hexdigest())
        body = body[:keep]
    return Message(
        lane=origin if isinstance(origin, Lane) else Lane.RETRIES,
        body=body,
        tag=tag,
        kind=kind,
        content_type=properties.content_type or None,
        headers=headers,
        message_id=properties.message_id or None,
        timestamp=_read_timestamp(properties, headers),
        user_id=properties.user_id or None,
        app_id=properties.app_id or None,
        delivery_count=_read_delivery_count(headers) if delivered.redelivered else 0,
        reply_to=None if not properties.reply_to else parse_reply_to(properties.reply_to, properties.correlation_id),
        survived=MAX_PASS_RETURNS if origin == PARKED else 0,
        cut_from=cut_from,
        source=_find_source_of_dead(delivered.exchange, headers) if origin == DEAD and kind is None else source,
        unrouted=source is not None and not delivered.exchange,
    )


def _read_amqp_1_0(body: bytes) -> bytes:
    """Return the bytes and texts in the sections of an AMQP 1.0 body; the body itself if it has any other value."""
    parts: list[bytes] = []
    position = 0
    while position < len(body):
        if len(parts) == MAX_AMQP_1_0_SECTIONS:
            return body
        section = _AMQP_1_0_SECTION.match(body, position)
        if section is None:
            return body
        start = section.end()
        position = start + (section[1][1] if section[2] is None else int.from_bytes(section[2], "big"))
        if position > len(body):
            return body
        parts.append(body[start:position])
    return b"".join(parts)


def _find_kind(
    origin: str, exchange: str | None, properties: commands.Basic.Properties, headers: Mapping[str, Any]
) -> Kind | NewerKind | None:
    """Return the kind of a message of notifier; None for a publisher's message.

    A user who may write only to the two exchanges can send messages to `events`, `bulk` and, if the broker moves them,
    `dead`: through an exchange other than the default exchange, or with `x-death`. The contents of `x-death` are not
    proof: up to 3.12, and from 3.13.3 until 4.0, the broker increases the count of an entry that a publisher forged,
    and leaves the rest unchanged. So in these queues any message with `x-death` counts as a publisher's. Messages reach
    `retries` only through the default exchange, our delay queues and buckets; buckets only through the first.
    """
    kind = parse_kind(properties.message_type)
    if kind is None or exchange != "" or isinstance(headers, UnreadableTable):
        return None  # the table may contain `x-death`
    if isinstance(kind, Kind) and kind not in _KINDS_BY_ORIGIN.get(origin, _KINDS_BY_ORIGIN[Lane.RETRIES]):
        return None
    if "x-death" not in headers:
        return None if origin == DEAD and isinstance(kind, NewerKind) else kind
    deaths = headers["x-death"]
    came_due = origin == Lane.RETRIES and isinstance(deaths, list) and all(map(_is_expiry, deaths))
    return kind if came_due else None


def _is_expiry(death: object) -> bool:
    """Return True for a delay queue or bucket of any prefix, since a shovel may have moved the message."""
    if not isinstance(death, dict) or death.get("exchange") != "" or death.get("reason") != "expired":
        return False
    queue = death.get("queue")
    return isinstance(queue, str) and queue.endswith(_DELAY_SUFFIXES)


def _find_source_of_dead(exchange: str | None, headers: Mapping[str, Any]) -> str | None:
    """Return the source from whose queue the broker moved the message to `dead`; None if it came otherwise.

    The first entry of `x-death` names the queue of the last move, even if the publisher forged an `x-death`. The header
    `x-first-death-queue` is not used, since the broker keeps a forged one.
    """
    deaths = headers.get("x-death")
    newest = deaths[0] if exchange == "" and isinstance(deaths, list) and deaths else None
    queue = newest.get("queue") if isinstance(newest, dict) else None
    name = _SOURCE_QUEUE.search(queue) if isinstance(queue, str) else None
    return None if name is None else name[1]


def _read_timestamp(properties: commands.Basic.Properties, headers: Mapping[str, Any]) -> float | None:
    milliseconds = headers.get("timestamp_in_ms")
    if isinstance(milliseconds, int) and not isinstance(milliseconds, bool):
        return milliseconds / 1000
    return None if properties.timestamp is None else properties.timestamp.timestamp()


def _read_delivery_count(headers: Mapping[str, Any]) -> int:
    """Return how often a redelivered message was returned. On other messages a publisher set the header."""
    if isinstance(headers, UnreadableTable):
        return MIN_SUSPECT_CRASHES  # the table may contain the count
    count = headers.get("x-delivery-count")
    return count if isinstance(count, int) else 0


def tolerate_any_publisher() -> None:
    """Make pamqp decode unreadable values as None (names: replacement characters, tables: empty) instead of raising.

    pamqp has no setting for that: its decoders are in two tables, which are changed here for the whole process.
    Calling again changes nothing.
    """
    for table, key, tolerant in (
        (decode.METHODS, "timestamp", _decode_timestamp),
        (decode.METHODS, "shortstr", _decode_short_string),
        (decode.METHODS, "table", _decode_table),
        (decode.TABLE_MAPPING, b"T", _decode_timestamp),
        (decode.TABLE_MAPPING, b"F", _decode_table),
    ):
        decoders: dict[Any, Callable[..., tuple[int, Any]]] = table
        decoders[key] = tolerant


def _decode_timestamp(value: bytes) -> tuple[int, dt.datetime | None]:
    try:
        return decode.timestamp(value)
    except (ValueError, OverflowError, OSError):
        return 8, None


def _decode_short_string(value: bytes) -> tuple[int, str]:
    length = value[0]
    return length + 1, value[1 : length + 1].decode("utf-8", errors="replace")


def _decode_table(value: bytes) -> tuple[int, dict[str, Any]]:
    length = int.from_bytes(value[:4], "big")
    if length > MAX_HEADER_BYTES:
        return length + 4, UnreadableTable()
    if length <= MAX_CACHED_TABLE_BYTES:
        return _decode_small_table(value[: length + 4])
    if length <= MAX_UNCOUNTED_BYTES or _has_few_values(value, length + 4):
        return _decode_any_table(value)
    return length + 4, UnreadableTable()


def _has_few_values(table: bytes, size: int) -> bool:
    """Return True unless a table of so many bytes exceeds MAX_HEADER_VALUES or MAX_HEADER_NESTING."""
    position, count, ends = 4, 0, [(size, True)]  # where tables and lists end, and whether their values have names
    while ends and position < size:
        end, has_names = ends[-1]
        if position >= end:
            ends.pop()
            continue
        position += 1 + table[position] if has_names else 0
        kind = table[position : position + 1]
        length = _VALUE_SIZES.get(kind)
        if length is None:
            length = 4 + int.from_bytes(table[position + 1 : position + 5])
            if kind in (b"A", b"F"):
                ends.append((position + 1 + length, kind == b"F"))
                length = 4
        position += 1 + length
        count += 1
        if count > MAX_HEADER_VALUES or len(ends) > MAX_HEADER_NESTING:
            return False
    return True


def _decode_any_table(value: bytes) -> tuple[int, dict[str, Any]]:
    with suppress(ValueError, OverflowError, RecursionError):  # nested too deeply, or an unreadable name
        return decode.field_table(value)
    return int.from_bytes(value[:4], "big") + 4, UnreadableTable()


_decode_small_table = shared_cache(256)(_decode_any_table)
