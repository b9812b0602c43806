"""Collects the feed from RabbitMQ in batches, by a durable queue of its own, `<prefix>.collected`.

A batch is acked once it is kept. So a collector that dies loses nothing: the notices that it kept come again, and are
recognised by their ids. While nobody collects, the queue holds 256 MiB for a week and drops the oldest first: the feed
must not fill a broker that logouts need.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import aiormq
import aiormq.abc
from aiormq.exceptions import ChannelClosed, ChannelPreconditionFailed

from notifier.model.errors import QueueError, QueueUnavailable
from notifier.queues.rabbitmq.administration import depths_at
from notifier.queues.rabbitmq.connection import Connection, bounded, channel_of, reason_of
from notifier.queues.rabbitmq.link import Link
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.settling import Settling
from notifier.queues.rabbitmq.topology import COLLECTED, NO_LIMIT, OUTCOMES

PREFETCH = 2000
BATCH = 1000  # notices of one transaction
GATHER = 0.1  # seconds in which a batch grows
IDLE = 0.5  # seconds without a notice, until the collector asks the broker whether more wait
ARGUMENTS: dict[str, str | int] = {
    "x-queue-type": "quorum",
    "x-delivery-limit": NO_LIMIT,
    "x-overflow": "drop-head",
    "x-max-length-bytes": 256 * 1024 * 1024,
    "x-message-ttl": 7 * 86_400_000,
}

Keep = Callable[[Sequence[bytes]], Awaitable[None]]
"""Makes a batch durable. If it raises, the connection ends and the batch comes again."""


class FeedCollector:
    """Reads the feed from RabbitMQ, and acks each notice once it is kept.

    `run` it in a task of its own. It goes on after each loss of the connection.
    """

    def __init__(self, options: RabbitOptions, keep: Keep) -> None:
        self._exchange = f"{options.prefix}.{OUTCOMES}"
        self._queue = f"{options.prefix}.{COLLECTED}"
        self._declare = options.topology == "declare"
        self._settling = Settling()
        self._keep = keep
        self._link = Link(options, "collect", self._serve)
        self.drained = asyncio.Event()
        """Set once everything that waited is kept."""

    async def run(self) -> None:
        """Collect, until cancelled."""
        await self._link.run()

    async def ready(self) -> None:
        """Wait until it collects. Raises QueueError if it cannot begin."""
        await self._link.ready()

    @property
    def problem(self) -> str | None:
        """Why it does not collect, or None."""
        return None if self._link.failure is None else str(self._link.failure)

    async def _serve(self, link: Link, connection: Connection) -> None:
        arrivals: asyncio.Queue[aiormq.abc.DeliveredMessage | None] = asyncio.Queue()  # None: the consumer is gone
        if not await depths_at(connection, {self._queue: self._queue}):
            self._settling.missing(self._queue)
        async with channel_of(connection) as channel:
            channel.on_consumer_cancel_callbacks.add(lambda _: arrivals.put_nowait(None))
            channel.closing.add_done_callback(lambda _: arrivals.put_nowait(None))
            try:
                async with bounded():
                    await self._prepare(channel, arrivals)
                link.stand()
                while True:
                    await self._take(channel, arrivals)
            except ChannelPreconditionFailed as failed:
                raise QueueError(f"{reason_of(failed)}; delete the queue, and run notifier collect again") from failed
            except ChannelClosed as refused:
                raise QueueError(reason_of(refused)) from refused

    async def _prepare(
        self, channel: aiormq.Channel, arrivals: "asyncio.Queue[aiormq.abc.DeliveredMessage | None]"
    ) -> None:
        async def on_message(delivered: aiormq.abc.DeliveredMessage) -> None:
            arrivals.put_nowait(delivered)

        await channel.exchange_declare(self._exchange, exchange_type="topic", durable=True, passive=not self._declare)
        await channel.queue_declare(self._queue, durable=True, arguments=dict(ARGUMENTS))
        self._settling.declared(self._queue)
        await self._settling.over()
        await channel.queue_bind(self._queue, self._exchange, routing_key="#")
        await channel.basic_qos(prefetch_count=PREFETCH)
        await channel.basic_consume(self._queue, on_message)

    async def _take(
        self, channel: aiormq.Channel, arrivals: "asyncio.Queue[aiormq.abc.DeliveredMessage | None]"
    ) -> None:
        """Keep one batch, and ack it."""
        try:
            async with asyncio.timeout(IDLE):
                first = await arrivals.get()
        except TimeoutError:
            await self._ask(channel, arrivals)
            return
        if arrivals.qsize() < BATCH:
            await asyncio.sleep(GATHER)
        batch = [first]
        while len(batch) < BATCH and not arrivals.empty():
            batch.append(arrivals.get_nowait())
        messages = [message for message in batch if message is not None]
        if messages:
            await self._keep([message.body for message in messages])
        if len(messages) < len(batch):
            raise QueueUnavailable("the consumer was lost: the queue was deleted, or its leader moved")
        await channel.basic_ack(messages[-1].delivery_tag or 0, multiple=True, wait=False)

    async def _ask(
        self, channel: aiormq.Channel, arrivals: "asyncio.Queue[aiormq.abc.DeliveredMessage | None]"
    ) -> None:
        """Set `drained` if nothing waits. Messages on their way arrive before the answer."""
        async with bounded():
            declared = await channel.queue_declare(self._queue, passive=True)
        if not declared.message_count and arrivals.empty():
            self.drained.set()
