"""Replies to publishers, on a connection of their own that stands only while there are any.

A publisher may write any name of direct reply-to into its event, and RabbitMQ (3.10.8) closes the connection over one
that it cannot decode. So these names never come near a connection that logouts need.
"""

import asyncio
from collections.abc import Coroutine

from notifier.adapters.queues.rabbitmq.connection import Connection, Link, open_channel
from notifier.adapters.queues.rabbitmq.options import RabbitOptions
from notifier.adapters.queues.rabbitmq.outbox import Outbox
from notifier.domain.errors import QueueUnavailable

IDLE = 60.0  # seconds without a reply, after which the connection is given up


class Outside:
    """The connection for replies to names that publishers gave. `run` in a task of its own."""

    def __init__(self, options: RabbitOptions) -> None:
        self._link = Link(options, "replies", self._serve)
        self.outbox = Outbox()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.outbox.filled.wait()
            await _beside(self._link.run(), self._idle())
            self.outbox.clear()

    async def _idle(self) -> None:
        before = -1
        while before != self.outbox.written or self._link.connection is None:
            before = self.outbox.written
            await asyncio.sleep(IDLE)
            if self._link.connection is None:  # whoever asked has gone
                self.outbox.clear()
                return

    async def _serve(self, link: Link, connection: Connection) -> None:
        channel = await open_channel(connection)
        link.stand()
        closing = channel.closing
        try:
            await _beside(self.outbox.write(channel, connection), _end_of(closing))
        finally:
            closing.cancel()
        raise QueueUnavailable("the channel for replies was closed")


async def _end_of(closing: "asyncio.Future[object]") -> None:
    await asyncio.wait({closing})


async def _beside(one: Coroutine[object, object, None], other: Coroutine[object, object, None]) -> None:
    """Run both until one ends; the other is cancelled. Raises what ended it."""
    tasks = [asyncio.ensure_future(one), asyncio.ensure_future(other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
