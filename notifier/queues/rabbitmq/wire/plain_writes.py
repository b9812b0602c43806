"""Publishes by aiormq's own `basic_publish`, if its inside has changed and `ConfirmedWrites` cannot be used."""

import asyncio
from datetime import UTC, datetime

import aiormq
from aiormq.exceptions import DeliveryError, PublishError
from pamqp import commands

from notifier.model.errors import QueueUnavailable
from notifier.queues.rabbitmq.connection import LOST, bounded, reason_of
from notifier.queues.rabbitmq.wire.confirmed_writes import Confirmation
from notifier.queues.rabbitmq.wire.publish import DIRECT, Publish


class PlainWrites:
    """Has the methods of `ConfirmedWrites`. A patient message goes out like any other."""

    def __init__(self, channel: aiormq.Channel, timeout: float, *, replies: bool = False) -> None:
        self._channel = channel
        self._timeout = timeout
        self._replies = replies
        self._under_way: dict[asyncio.Task[None], Confirmation] = {}

    def write(self, publish: Publish) -> Confirmation:
        """Begin a mandatory publish. The future ends with its confirm."""
        confirmation: Confirmation = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(self._publish(publish, confirmation))
        self._under_way[task] = confirmation
        task.add_done_callback(lambda done: self._under_way.pop(done, None))
        return confirmation

    async def _publish(self, publish: Publish, confirmation: Confirmation) -> None:
        error: Exception | None = None
        try:
            async with bounded(self._timeout):
                await publish_plainly(self._channel, publish, replies=self._replies)
        except (PublishError, DeliveryError, TimeoutError, QueueUnavailable, ValueError) as told:
            error = told
        except LOST as lost:
            error = QueueUnavailable(f"connection lost before the confirm: {reason_of(lost)}")
        if confirmation.done():  # whoever waited was cancelled, or `end` was quicker
            return
        if error is None:
            confirmation.set_result(None)
        else:
            confirmation.set_exception(error)

    def forget(self, message_id: str) -> None:
        """aiormq forgets by itself."""

    async def run(self) -> None:
        """Nothing gathers here."""

    def end(self, error: Exception) -> None:
        """End all publishes with this error: the channel is gone, and no confirm follows."""
        for task, confirmation in list(self._under_way.items()):
            if not confirmation.done():
                confirmation.set_exception(error)
            task.cancel()

    def end_overdue(self) -> None:
        """Each has its own deadline."""


async def publish_plainly(channel: aiormq.Channel, publish: Publish, *, replies: bool = False) -> None:
    """Write one, and wait for its confirm where the channel has any. Raises what aiormq does."""
    properties = commands.Basic.Properties(
        content_type=publish.content_type,
        headers=dict(publish.headers) or None,
        delivery_mode=2,
        message_id=publish.message_id,
        message_type=publish.message_type,
        timestamp=None if publish.timestamp is None else datetime.fromtimestamp(publish.timestamp, UTC),
        correlation_id=publish.message_id if replies else None,
        reply_to=DIRECT if replies else None,
    )
    await channel.basic_publish(
        publish.body,
        exchange=publish.exchange,
        routing_key=publish.routing_key,
        properties=properties,
        mandatory=publish.mandatory,
    )
