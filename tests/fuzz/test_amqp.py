"""AMQP properties of every type and nesting: each message is read, and only internal ones are treated as internal."""

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model.documents.dead_letter import dump_dead_letter, load_dead_letter
from notifier.model.errors import UnknownVersion
from notifier.model.message import DEAD, MIN_SUSPECT_CRASHES, Lane
from notifier.queues.rabbitmq.wire.decoding import to_message, tolerate_any_publisher
from tests.fuzz import amqp, grammar
from tests.fuzz.conftest import many
from tests.fuzz.promises import open_fully, read
from tests.fuzz.test_documents import WAITING

PLACES = (*Lane, DEAD)
BODIES = st.one_of(st.sampled_from([WAITING, b"{}", b""]), grammar.events.map(str.encode))


@pytest.fixture(autouse=True, scope="module")
def _tolerant() -> None:
    tolerate_any_publisher()


@pytest.mark.timeout(1200)
@many(300, 30_000)
@given(amqp.properties(), BODIES, st.sampled_from(["", "notifier.events"]), st.booleans(), st.sampled_from(PLACES))
def test_every_message_is_read(raw: bytes, body: bytes, exchange: str, redelivered: bool, place: str) -> None:
    """For any properties it becomes a message, and then an event, or is refused; its headers are a table."""
    message = to_message(
        place, amqp.delivered(raw, body, exchange=exchange, redelivered=redelivered), None, keep=grammar.MOST
    )
    assert all(isinstance(name, str) for name in message.headers)
    assert redelivered or message.delivery_count == 0
    assert not exchange or message.kind is None
    assert message.kind is None or place == Lane.RETRIES or "x-death" not in message.headers
    if message.kind is None:
        read(message)
    open_fully(message)
    with suppress(UnknownVersion):
        dump_dead_letter(load_dead_letter(message))  # as an operator would see it, had the broker moved it there


def test_unreadable_nested_table_removes_only_itself() -> None:
    """The CloudEvents attributes beside it are read, and the broker's count."""
    unreadable = b"F" + amqp.long(amqp.pair(b"\xff", b"V"))
    raw = amqp.table(
        [(b"cloudEvents:id", b"S" + amqp.long(b"c-1")), (b"odd", unreadable), (b"x-delivery-count", b"b\x07")]
    )
    message = to_message(Lane.EVENTS, amqp.delivered(b"\x20\x00" + amqp.long(raw), b"{}", redelivered=True), None)
    assert message.headers["cloudEvents:id"] == "c-1"
    assert message.delivery_count == 7


def test_message_with_unreadable_headers_is_not_trusted() -> None:
    """Unreadable headers may contain an `x-death` with the exchange, and any count."""
    unreadable = amqp.long(amqp.pair(b"\xff", b"V"))
    typed = amqp.short(b"notifier.delivery")
    assert to_message(Lane.RETRIES, amqp.delivered(b"\x00\x20" + typed, WAITING), None).kind is not None
    came = to_message(Lane.RETRIES, amqp.delivered(b"\x20\x20" + unreadable + typed, WAITING, redelivered=True), None)
    assert came.kind is None
    assert came.delivery_count == MIN_SUSPECT_CRASHES


@pytest.mark.parametrize("value", [b"V" * 130_000, b"V" * 20_000], ids=["130,000", "20,000"])
def test_headers_of_very_many_values_do_not_hold_the_loop(value: bytes) -> None:
    """Decoding copies the rest of a table for each value in it: 130,000 in one header took 3 s."""
    began = time.process_time()
    amqp.delivered(b"\x20\x00" + amqp.long(amqp.pair(b"a", b"A" + amqp.long(value))), b"{}")
    assert time.process_time() - began < 0.1
