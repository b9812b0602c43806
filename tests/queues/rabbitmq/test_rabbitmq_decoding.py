"""A message's properties: which ones are trusted, and which ones cannot be decoded."""

import datetime as dt
import itertools
from typing import Any

import aiormq
import pytest
from aiormq.abc import DeliveredMessage
from pamqp import commands, decode, encode
from pamqp.header import ContentHeader

from notifier.model.message import DEAD, PARKED, Kind, Lane
from notifier.queues.rabbitmq.wire.decoding import (
    MAX_CACHED_TABLE_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADER_NESTING,
    MAX_HEADER_VALUES,
    MAX_UNCOUNTED_BYTES,
    UnreadableTable,
    to_message,
    tolerate_any_publisher,
)


def delivered(
    exchange: str = "", *, redelivered: bool = False, body: bytes = b"{}", **properties: Any
) -> DeliveredMessage:
    """Return a message as aiormq passes it on, with an unusable channel."""
    return DeliveredMessage(
        delivery=commands.Basic.Deliver("consumer", 1, redelivered=redelivered, exchange=exchange, routing_key="k"),
        header=ContentHeader(properties=commands.Basic.Properties(**properties)),
        body=body,
        channel=aiormq.Channel.__new__(aiormq.Channel),
    )


def death(exchange: str = "", queue: str = "notifier.delay.8s", reason: str = "expired") -> dict[str, object]:
    """An entry of `x-death`: where the message had been published to, where it lay, and why it left."""
    return {"exchange": exchange, "queue": queue, "reason": reason, "count": 1}


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (Lane.EVENTS, {Kind.EVENT, Kind.SOURCED, "notifier.batch"}),
        (Lane.BULK, {Kind.EVENT, Kind.SOURCED, "notifier.batch"}),
        (Lane.RETRIES, {Kind.EVENT, Kind.DELIVERY, Kind.SOURCED, "notifier.batch"}),
        (PARKED, {Kind.DELIVERY, "notifier.batch"}),
        (DEAD, {Kind.DEAD_LETTER, Kind.UNREADABLE}),
    ],
)
def test_our_messages_are_recognised_by_queue(place: str, expected: set[str]) -> None:
    """A kind that workers send only to `retries` is not ours in `events`, and no message from an exchange is ours."""
    types = [*Kind, "notifier.batch"]
    kinds = {to_message(place, delivered("", message_type=type_), None).kind for type_ in types}
    assert kinds - {None} == expected
    for type_ in types:
        assert to_message(place, delivered("notifier.events", message_type=type_), None).kind is None


FORGED: list[object] = [
    [death()], [death(queue="notifier.events")], [], death(), "expired", 1, None, ["expired"], [{"queue": "q"}]
]  # fmt: skip


def test_dead_lettered_message_in_a_publishers_lane_is_not_ours() -> None:
    """The broker keeps a death history that a publisher invented: none of it is trusted."""
    for place, deaths, kind in itertools.product([Lane.EVENTS, Lane.BULK, PARKED, DEAD], FORGED, Kind):
        message = delivered("", message_type=kind.value, headers={"x-death": deaths})
        assert to_message(place, message, None).kind is None, (place, deaths, kind)


@pytest.mark.parametrize(
    ("deaths", "ours"),
    [
        ([death()], True),
        ([death(), death(queue="another.prefix.delay.65536s")], True),
        ([death(queue="notifier.parked-63.delay.1024s")], True),
        ([death("notifier.events")], False),
        ([death(), death("notifier.events")], False),
        ([death(queue="notifier.events")], False),
        ([death(queue="notifier.delay.3s")], False),
        ([death(reason="rejected")], False),
        ([{"queue": "notifier.delay.8s", "reason": "expired"}], False),
        (["forged"], False),
        ("forged", False),
        (death(), False),
        (None, False),
    ],
)
def test_message_from_a_delay_queue_in_retries_is_ours(deaths: object, ours: bool) -> None:
    """By the default exchange, of any prefix, so that shovels may move it; nobody else can write to those queues."""
    message = delivered("", message_type="notifier.delivery", headers={"x-death": deaths})
    assert to_message(Lane.RETRIES, message, None).kind is (Kind.DELIVERY if ours else None)


@pytest.mark.parametrize(("raw", "asked"), [(b"c-1", True), (b"\xff" * 85, True), (b"\xff" * 86, False), (b"", True)])
def test_invalid_correlation_id_gets_no_reply(raw: bytes, *, asked: bool) -> None:
    """Invalid UTF-8 is read with replacement characters of three bytes each, and a name has 255 at most."""
    tolerate_any_publisher()
    _, correlation_id = decode.METHODS["shortstr"](bytes([len(raw)]) + raw)
    message = delivered(reply_to="amq.rabbitmq.reply-to.g1h2.x", correlation_id=correlation_id)
    assert (to_message(Lane.EVENTS, message, None).reply_to is not None) is asked


JSON = b'{"sub": "alice"}'
LONG = b'"' + b"x" * 300 + b'"'


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (b"\x00Sw\xa1" + bytes([len(JSON)]) + JSON, JSON),
        (b"\x00Sw\xa0" + bytes([len(JSON)]) + JSON, JSON),
        (b"\x00Sw\xb1" + len(LONG).to_bytes(4, "big") + LONG, LONG),
        (b"\x00\x80" + bytes(7) + b"w\xb0" + len(LONG).to_bytes(4, "big") + LONG, LONG),
        (b"\x00Su\xa0\x04" + JSON[:4] + b"\x00Su\xa0" + bytes([len(JSON) - 4]) + JSON[4:], JSON),
        (JSON, JSON),
        (b"", b""),
        (b"\x00Su\xa0\x00" * 101, b"\x00Su\xa0\x00" * 101),
        *(
            (body, body)
            for body in (b"\x00Sw\xc1\x01\x00", b"\x00Sv\x45", b"\x00Sw\xa1\x09{}", b"\x00Sw\xa1\x02{}{", b"\x00Sw")
        ),
    ],
)
def test_text_of_an_amqp_1_0_message_is_read(body: bytes, content: bytes) -> None:
    """The broker passes on a value, or several sections of data, as encoded (rabbitmq_amqp1_0's README)."""
    assert (
        to_message(Lane.EVENTS, delivered("notifier.events", message_type="amqp-1.0", body=body), None).body == content
    )
    assert to_message(Lane.EVENTS, delivered("notifier.events", body=body), None).body == body
    cut = to_message(Lane.EVENTS, delivered("notifier.events", message_type="amqp-1.0", body=body), None, keep=4)
    assert cut.body == content[:4]


def test_the_brokers_clock_comes_first() -> None:
    """`timestamp_in_ms`, which the broker writes, wins over the publisher's `timestamp`, which has whole seconds."""
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    both = delivered(timestamp=moment, headers={"timestamp_in_ms": 1_767_225_600_123})
    assert to_message(Lane.EVENTS, both, None).timestamp == 1_767_225_600.123
    assert to_message(Lane.EVENTS, delivered(timestamp=moment), None).timestamp == moment.timestamp()
    assert to_message(Lane.EVENTS, delivered(headers={"timestamp_in_ms": "now"}), None).timestamp is None


def test_the_delivery_count_is_the_brokers() -> None:
    """A first delivery cannot claim a redelivery; a redelivered message has the broker's count."""
    headers = {"x-delivery-count": 7}
    assert to_message(Lane.EVENTS, delivered(headers=headers), None).delivery_count == 0
    assert to_message(Lane.EVENTS, delivered(headers=headers, redelivered=True), None).delivery_count == 7


@pytest.mark.parametrize("padding", [0, MAX_CACHED_TABLE_BYTES, 2 * MAX_CACHED_TABLE_BYTES])
def test_a_table_is_read_the_same_every_time(padding: int) -> None:
    """Small ones are decoded once; whatever follows a table in the header does not belong to it."""
    tolerate_any_publisher()
    table: dict[str, Any] = {"x-death": [death()], "padding": "x" * padding}
    raw = encode.field_table(table)
    for behind in (b"", b"\x02", b"other"):
        assert decode.METHODS["table"](raw + behind) == (len(raw), table)


def _nested(levels: int) -> Any:
    return None if levels == 0 else [_nested(levels - 1)]


_PADDING = "x" * MAX_UNCOUNTED_BYTES
_EVERY_TYPE: list[Any] = [
    True,
    -1,
    255,
    -1000,
    60_000,
    2**31,
    2**40,
    1.5,
    None,
    bytearray(b"x"),
    "x",
    dt.datetime.now(dt.UTC),
]


@pytest.mark.parametrize(
    ("value", "is_read"),
    [
        ([_PADDING] + [None] * (MAX_HEADER_VALUES - 2), True),
        ([_PADDING] + [None] * (MAX_HEADER_VALUES - 1), False),
        ([_PADDING, *[{"list": [None] * 47}] * 10], True),  # each table has 49 values
        ([_PADDING, *[{"list": [None] * 48}] * 10], False),
        ([_PADDING, _nested(MAX_HEADER_NESTING - 2)], True),
        ([_PADDING, _nested(MAX_HEADER_NESTING - 1)], False),
        ([_PADDING, *[_nested(290)] * 5], False),
        ([_PADDING, *_EVERY_TYPE, {"last": [None] * 400}], True),
        ([_PADDING, *_EVERY_TYPE, {"last": [None] * 500}], False),
        ([_PADDING, *[death()] * 24], True),
    ],
)
def test_a_table_of_many_or_nested_values_is_not_read(value: Any, is_read: bool) -> None:
    """Decoding copies the rest of a table for each value and level: 16 KiB of nested lists took 25 ms."""
    tolerate_any_publisher()
    raw = encode.field_table({"name": value})
    assert MAX_UNCOUNTED_BYTES < len(raw) < MAX_HEADER_BYTES
    length, table = decode.METHODS["table"](raw + b"other")
    assert length == len(raw)
    assert isinstance(table, UnreadableTable) is not is_read
    assert table == ({} if not is_read else decode.field_table(raw)[1])


@pytest.mark.parametrize("cut", [1, 2, 5, 9])
def test_a_table_whose_lengths_are_wrong_ends_where_it_says(cut: int) -> None:
    """A text or list beyond the end of its table affects no other property."""
    tolerate_any_publisher()
    tables: list[dict[str, Any]] = [
        {"a": [None] * 20, "b": _PADDING},
        {"a": _PADDING, "b": [None] * 20},
        {"a": _PADDING, "b": 2**40},
    ]
    for table in tables:
        raw = encode.field_table(table)[4:-cut]
        assert decode.METHODS["table"](len(raw).to_bytes(4) + raw)[0] == len(raw) + 4
