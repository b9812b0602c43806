"""Publishes events to RabbitMQ as any publisher does. It declares nothing.

So its user only needs write permission on the two exchanges of events. A passive declare needs no permission.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from uuid import uuid4

from aiormq.exceptions import ChannelNotFoundEntity

from notifier.model.errors import QueueUnavailable
from notifier.model.message import Lane, QueueStatus
from notifier.queues.rabbitmq.connection import Connection, broker_request, channel_of
from notifier.queues.rabbitmq.link import Link
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.publishing import BLOCKED_PROBLEM, Publishing
from notifier.queues.rabbitmq.queue_window import describe_refusals
from notifier.queues.rabbitmq.wire.publish import Publish

ROUTING_KEY = "session-ended"  # any: the exchanges are bound with `#`


class EventPublisher:
    """Publishes events as any publisher does."""

    def __init__(self, prefix: str, publishing: Publishing) -> None:
        self._prefix = prefix
        self._publishing = publishing

    async def send_event(
        self, lane: Lane, body: bytes, *, message_id: str | None, content_type: str = "application/json"
    ) -> None:
        """Publish an event to the exchange of events or bulk. Raises QueueUnavailable."""
        if lane is Lane.RETRIES:
            raise ValueError("no event is published to the retries")
        event = Publish(
            exchange=f"{self._prefix}.{lane}", routing_key=ROUTING_KEY, body=body,
            message_id=message_id or uuid4().hex, content_type=content_type,
            timestamp=int(time.time()), user_id=self._publishing.user,
        )  # fmt: skip
        await self._publishing.publish(event)

    def receive_replies(self, on_reply: Callable[[bytes], None]) -> None:
        """Request replies to the events sent here, and pass each to `on_reply`. Call it before `open`."""
        self._publishing.request_replies(on_reply)


class RabbitEventQueue(EventPublisher):
    """Publishes events between `open` and `close`."""

    def __init__(self, options: RabbitOptions) -> None:
        super().__init__(options.prefix, Publishing(asyncio.Event()))
        self._link = Link(options, "publish", self._serve)
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start connecting in the background. Reconnect until `close`."""
        self._task = asyncio.create_task(self._link.run())

    async def wait_until_ready(self) -> None:
        """Return when connected and the exchanges exist. Raises QueueError if the broker refuses the connection."""
        await self._link.wait_until_ready([] if self._task is None else [self._task])

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    def status(self) -> QueueStatus:
        """Return whether the queue is connected, and the current problem."""
        blocked = self._publishing.blocked
        problem = self._link.failure or (BLOCKED_PROBLEM if blocked else describe_refusals(self._publishing.refusals))
        return QueueStatus(
            connected=self._link.connected.is_set(),
            consuming=False,
            blocked=blocked,
            problem=None if problem is None else str(problem),
        )

    async def _serve(self, link: Link, connection: Connection) -> None:
        def opened() -> None:
            if not link.connected.is_set():
                link.mark_connected()

        await self._check_exchanges(connection)
        await self._publishing.serve(connection, opened)

    async def _check_exchanges(self, connection: Connection) -> None:
        """Raise QueueUnavailable if published events would not reach a queue."""
        for lane in (Lane.EVENTS, Lane.BULK):
            name, exists = f"{self._prefix}.{lane}", False
            async with channel_of(connection) as channel, broker_request("cannot ask the broker"):
                with suppress(ChannelNotFoundEntity):
                    await channel.exchange_declare(name, exchange_type="topic", passive=True)
                    await channel.queue_declare(name, passive=True)
                    exists = True
            if not exists:
                raise QueueUnavailable(
                    f"there is no exchange and queue {name} yet: start a worker, or type `notifier topology declare`"
                )
