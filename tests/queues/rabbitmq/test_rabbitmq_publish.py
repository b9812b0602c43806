"""The frames of a publish as pamqp, which did not write them, reads them."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from notifier.queues.rabbitmq.wire.publish import Frames, Publish

_names = st.text(st.characters(codec="utf-8"), max_size=60)


def read(payload: bytes) -> tuple[commands.Basic.Publish, ContentHeader, bytes, list[int]]:
    """The method, the header, the body and the sizes of its pieces; all for channel 7."""
    found: list[Any] = []
    while payload:
        size, channel, one = frame.unmarshal(payload)
        assert channel == 7
        found.append(one)
        payload = payload[size:]
    method, header, *bodies = found
    assert isinstance(method, commands.Basic.Publish)
    assert isinstance(header, ContentHeader)
    assert all(isinstance(one, ContentBody) for one in bodies)
    body = b"".join(one.value for one in bodies)
    assert header.body_size == len(body)
    assert header.properties.delivery_mode == 2
    return method, header, body, [len(one.value) for one in bodies]


@settings(max_examples=30)
@given(
    message_id=_names,
    message_type=st.none() | _names.filter(bool),
    headers=st.dictionaries(_names.filter(bool), st.text(st.characters(codec="utf-8")), max_size=3),
    timestamp=st.none() | st.integers(0, 2**32 - 1),  # pamqp takes a later one for milliseconds
    body=st.binary(max_size=600),
    most=st.integers(1, 500),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_they_say_what_is_meant(
    message_id: str,
    message_type: str | None,
    headers: dict[str, str],
    timestamp: int | None,
    body: bytes,
    most: int,
    flags: tuple[bool, bool],
) -> None:
    """The method, each property, those that are absent too, and the body in frames of the agreed size."""
    mandatory, replies = flags
    publish = Publish(
        exchange="n.events",
        routing_key="session-ended",
        body=body,
        message_id=message_id,
        content_type="application/json",
        message_type=message_type,
        headers=headers,
        timestamp=timestamp,
        mandatory=mandatory,
    )
    method, header, read_body, sizes = read(Frames(7, most, replies=replies).of(publish))
    assert (method.exchange, method.routing_key, method.mandatory) == ("n.events", "session-ended", mandatory)
    properties = header.properties
    assert (properties.content_type, properties.message_id) == ("application/json", message_id)
    assert (properties.message_type, properties.headers) == (message_type, headers or None)
    assert properties.timestamp == (None if timestamp is None else dt.datetime.fromtimestamp(timestamp, dt.UTC))
    wants = ("amq.rabbitmq.reply-to", message_id) if replies else (None, None)
    assert (properties.reply_to, properties.correlation_id) == wants
    assert read_body == body
    assert all(size <= most for size in sizes)


def test_an_id_too_long_for_amqp_is_an_error() -> None:
    """Cut short, it would be the id of another message, and a confirm could be taken for the other's."""
    publish = Publish(exchange="", routing_key="q", body=b"", message_id="é" * 128, content_type="text/plain")
    with pytest.raises(ValueError, match="bytes must be in range"):
        Frames(7, 100).of(publish)
