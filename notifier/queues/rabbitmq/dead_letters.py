"""Opens visits to the dead letters on RabbitMQ (see `visit`), each over a connection of its own, one at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from notifier.model.errors import QueueError
from notifier.model.message import DEAD
from notifier.queues.passes import Reader
from notifier.queues.rabbitmq.connection import channel_of, connect, finish
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.visit import PublishMessage, RabbitVisit
from notifier.queues.rabbitmq.visitor_lock import BUSY_FOR, hold_alone

S = TypeVar("S")


class RabbitDeadLetters:
    """The dead letters of one prefix. `publish` makes a message durable in a queue, as the queue port says.

    `busy_for`: seconds to wait for another visit's end.
    """

    def __init__(self, options: RabbitOptions, publish: PublishMessage, *, busy_for: float = BUSY_FOR) -> None:
        self._options = options
        self._publish = publish
        self._busy_for = busy_for

    @asynccontextmanager
    async def visit(self, read: Reader[S]) -> AsyncIterator[RabbitVisit[S]]:
        """Open one pass over the present letters. Raises QueueError if the queue is away, or another visit has them."""
        connection = await connect(self._options, "dead letters")
        try:
            await hold_alone(connection, f"{self._options.prefix}.{DEAD}.visitor", self._busy_for)
            async with channel_of(connection) as channel:
                queue = f"{self._options.prefix}.{DEAD}"
                visit = RabbitVisit(channel, queue, self._publish, read, origin=DEAD, what="the dead letters")
                try:
                    await visit.begin()
                    yield visit
                except BaseException:
                    await visit.take_the_rest()
                    with suppress(QueueError):  # the first error is the one to tell
                        await visit.forget()
                    raise
                await visit.take_the_rest()
                await visit.forget()
        finally:
            await finish(connection.close())
