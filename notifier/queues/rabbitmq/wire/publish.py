"""A message to publish, and its frames: a retry, a deferral, a dead letter, or a notice of the feed."""

from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime
from types import MappingProxyType

import aiormq
from aiormq.abc import ChannelFrame
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from notifier.model.frozen import frozen

DIRECT = "amq.rabbitmq.reply-to"
_PERSISTENT = 2


@frozen
class Publish:
    """A persistent message. `timestamp` in whole seconds since the epoch.

    `user_id` is the connection's own user: the broker refuses any other. A `mandatory` message comes back if no queue
    takes it. A `patient` one may be written some milliseconds later, with others.
    """

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    content_type: str
    message_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    timestamp: int | None = None
    user_id: str | None = None
    mandatory: bool = True
    patient: bool = False


def frames_of(publish: Publish, channel: aiormq.Channel, *, replies: bool = False) -> bytes:
    """Return the frames of this message on the channel. With `replies`, it asks for replies by direct reply-to.

    Raises TypeError for an id or type of more than 255 bytes.
    """
    body, most = publish.body, channel.max_content_size
    properties = properties_of(publish, replies=replies)
    method = commands.Basic.Publish(
        exchange=publish.exchange, routing_key=publish.routing_key, mandatory=publish.mandatory
    )
    header = ContentHeader(properties=properties, body_size=len(body))
    pieces = (ContentBody(body[at : at + most]) for at in range(0, len(body), most))
    return ChannelFrame.marshall(channel.number, [method, header, *pieces]).payload


async def publish_singly(
    publish: Publish, channel: aiormq.Channel, within: float | None, *, replies: bool = False
) -> None:
    """Publish by aiormq's public method. It returns once the message is confirmed, or written.

    Raises what aiormq does, TimeoutError, TypeError for an id or type of more than 255 bytes.
    """
    await channel.basic_publish(
        publish.body,
        exchange=publish.exchange,
        routing_key=publish.routing_key,
        properties=properties_of(publish, replies=replies),
        mandatory=publish.mandatory,
        timeout=within,
        wait=not channel.publisher_confirms,
    )


def properties_of(publish: Publish, *, replies: bool = False) -> commands.Basic.Properties:
    """Return the properties of this message. With `replies`, they request replies by direct reply-to."""
    return commands.Basic.Properties(
        content_type=publish.content_type,
        headers=dict(publish.headers) or None,
        delivery_mode=_PERSISTENT,
        message_id=publish.message_id,
        message_type=publish.message_type,
        timestamp=None if publish.timestamp is None else datetime.fromtimestamp(publish.timestamp, UTC),
        correlation_id=publish.message_id if replies else None,
        reply_to=DIRECT if replies else None,
        user_id=publish.user_id,
    )
