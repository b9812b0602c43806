"""The frames of a publish, as pamqp reads them."""

import datetime as dt
from typing import Any

import aiormq
import pytest
from pamqp import frame

from notifier.queues.rabbitmq.wire.publish import Publish, frames_of


def channel_for(most: int) -> aiormq.Channel:
    """Channel 7, of which a frame holds so many bytes of a body."""
    channel = aiormq.Channel.__new__(aiormq.Channel)
    channel.number, channel.max_content_size = 7, most
    return channel


def read(payload: bytes) -> list[Any]:
    """Return the method, the header and the pieces of the body."""
    found: list[Any] = []
    while payload:
        size, channel, part = frame.unmarshal(payload)
        assert channel == 7
        found.append(part)
        payload = payload[size:]
    return found


@pytest.mark.parametrize("replies", [True, False])
def test_properties_of_a_published_message(replies: bool) -> None:
    """The method, each property, and the body in frames of the agreed size."""
    publish = Publish(
        exchange="n.events", routing_key="session-ended", body=b"hello world", message_id="é",
        content_type="text/plain", message_type="t", headers={"a": "ü"}, timestamp=1_767_225_600, mandatory=False,
    )  # fmt: skip
    method, header, *pieces = read(frames_of(publish, channel_for(4), replies=replies))
    assert (method.exchange, method.routing_key, method.mandatory) == ("n.events", "session-ended", False)
    properties = header.properties
    assert (properties.content_type, properties.message_id, properties.message_type) == ("text/plain", "é", "t")
    assert (properties.headers, properties.delivery_mode) == ({"a": "ü"}, 2)
    assert properties.timestamp == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    wants = ("amq.rabbitmq.reply-to", "é") if replies else (None, None)
    assert (properties.reply_to, properties.correlation_id) == wants
    assert (header.body_size, [piece.value for piece in pieces]) == (11, [b"hell", b"o wo", b"rld"])


def test_missing_properties_are_absent() -> None:
    """An empty body has no frame."""
    publish = Publish(exchange="", routing_key="q", body=b"", message_id="m", content_type="text/plain")
    method, header = read(frames_of(publish, channel_for(4)))
    assert method.mandatory
    properties = header.properties
    assert (properties.headers, properties.timestamp, properties.message_type) == (None, None, None)


def test_an_id_too_long_for_amqp_is_an_error() -> None:
    """Cut short, it would be the id of another message, and a confirm could be taken for the other's."""
    publish = Publish(exchange="", routing_key="q", body=b"", message_id="é" * 128, content_type="text/plain")
    with pytest.raises(TypeError, match="255"):
        frames_of(publish, channel_for(100))
