"""Fetches deliveries from the buckets, in which they wait for a client whose circuit is open or that
requested a pause.

A bucket is a queue without a consumer: an unfetched message moves to `retries` after `MAX_PARKED_SECONDS`. Messages are
fetched by `basic.get` and acked. They are never returned to the bucket, since each delivery increments their delivery
count.
"""

import asyncio
import hashlib
from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress

import aiormq
from aiormq.abc import ChannelFrame, DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp import commands, frame

from notifier.model.errors import QueueUnavailable
from notifier.model.message import PARKED, PARKED_LARGE, Message
from notifier.model.printable import counted
from notifier.model.shared_resources import shared_lock
from notifier.queues.rabbitmq.acks import AckTag, ChannelAcks
from notifier.queues.rabbitmq.connection import (
    CONNECTION_ERRORS,
    Connection,
    broker_request,
    broker_timeout,
    close_channel,
    open_channel,
    retrieve_error,
)
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.wire.aiormq_hooks import is_installed
from notifier.queues.rabbitmq.wire.decoding import to_message
from notifier.queues.rabbitmq.wire.frames import hand_over


def bucket_names(options: RabbitOptions) -> tuple[str, ...]:
    """Return the names of the buckets without prefix: `parked-00.delay.1024s`, with the suffix of delay queues.

    The large buckets follow: `parked-large-00.delay.1024s`.
    """
    suffix = f"delay.{options.parked_for}s"
    large = (f"{PARKED_LARGE}-{number:02d}.{suffix}" for number in range(_large_count(options.buckets)))
    return (*(f"{PARKED}-{number:02d}.{suffix}" for number in range(options.buckets)), *large)


def bucket_number(client: tuple[str, str], buckets: int, *, large: bool = False) -> int:
    """Return the index of this client's bucket in `bucket_names`. It is the same at every worker and in every release.

    `buckets`: the number of buckets without the large ones.
    """
    digest = hashlib.sha256("\0".join(client).encode()).digest()
    if large:
        return buckets + int.from_bytes(digest[4:8]) % _large_count(buckets)
    return int.from_bytes(digest[:4]) % buckets


def _large_count(buckets: int) -> int:
    return max(1, buckets // 4)


def abridge_buckets(names: Sequence[str]) -> Sequence[str]:
    """Return the names for an error text, with one of the buckets and the number of the others."""
    buckets = [name for name in names if f".{PARKED}-" in name]
    if len(buckets) < 2:
        return names
    others = [name for name in names if name not in buckets]
    return [*others, f"{buckets[0]} and {counted(len(buckets) - 1, 'more bucket')}"]


class _Batch:
    """The answers to the gets of one fetch, of which some may be empty."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.answers: list[DeliveredMessage] = []
        self.is_answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Getter:
    """A channel for the fetches from one queue at a time. Acks of its messages continue meanwhile.

    `fetch_count`: how many fetches are under way.
    """

    def __init__(self, channel: aiormq.Channel) -> None:
        self.channel = channel
        self.acks = ChannelAcks(channel)
        self.fetch_count = 0
        self._flushing = asyncio.create_task(self.acks.run())
        self._batches: deque[_Batch] = deque()
        self._single_gets = shared_lock()
        self._gets_together = is_installed("messages")
        if self._gets_together:
            hand_over(channel, self._on_answer)

    async def get(self, queue: str, most: int) -> list[DeliveredMessage]:
        """Return up to `most` messages of this queue. Raises aiormq's errors, or QueueUnavailable."""
        if not self._gets_together:
            return await self._get_singly(queue, most)
        async with broker_timeout():
            return await self._get_together(queue, most)

    async def _get_singly(self, queue: str, most: int) -> list[DeliveredMessage]:
        answers: list[DeliveredMessage] = []
        async with self._single_gets:  # of one fetch after the other, which keeps their order
            while len(answers) < most:
                async with broker_timeout():
                    answer = await self.channel.basic_get(queue)
                if answer.delivery_tag is None:
                    break
                answers.append(answer)
        return answers

    async def _get_together(self, queue: str, most: int) -> list[DeliveredMessage]:
        """Return up to `most` messages by gets that are written together: one round trip, and half the CPU time."""
        channel, closing, batch = self.channel, self.channel.closing, _Batch(most)
        if channel._close_exception is not None:  # noqa: SLF001  `is_closed` only follows some steps later
            raise channel._close_exception  # noqa: SLF001
        self._batches.append(batch)
        gets = frame.marshal(commands.Basic.Get(queue=queue), channel.number) * most
        await channel.write_queue.put(ChannelFrame(payload=gets, should_close=False))
        try:
            await asyncio.wait({batch.is_answered, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not batch.is_answered.done():
                raise retrieve_error(closing) or RuntimeError("closed")
        finally:
            closing.cancel()
        return [answer for answer in batch.answers if answer.delivery_tag is not None]

    def _on_answer(self, answer: DeliveredMessage) -> None:
        batch = self._batches[0]
        batch.answers.append(answer)
        if len(batch.answers) == batch.most:
            self._batches.popleft()
            if not batch.is_answered.done():
                batch.is_answered.set_result(None)

    def forget(self) -> None:
        self.acks.forget()
        self._flushing.cancel()


class BucketReader:
    """Fetches from buckets on the current connection. Sets `repair_soon` if a bucket is missing.

    Each queue has its own channel while it is fetched from, so that a slow queue does not delay another. How many
    fetches are under way is limited by the caller.
    """

    def __init__(self, options: RabbitOptions, repair_soon: asyncio.Event) -> None:
        self._max_event_bytes = options.max_event
        self._repair_soon = repair_soon
        self._connection: Connection | None = None
        self._busy: dict[str, _Getter] = {}  # by queue
        self._opening: defaultdict[str, asyncio.Lock] = defaultdict(shared_lock)  # by queue
        self._idle: list[_Getter] = []
        self._getters: set[_Getter] = set()
        self._failed_queues: set[str] = set()  # queues whose last fetch failed

    async def serve(self, connection: Connection) -> None:
        """Fetch over this connection, until cancelled."""
        self._connection = connection
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._connection = None
            for getter in tuple(self._getters):
                self._forget(getter)

    async def fetch(self, queue: str, most: int) -> Sequence[Message]:
        """Take up to `most` messages from this queue (full name), oldest first. Raises QueueUnavailable.

        Fetches of one queue are answered in the order of the calls. An error closes the channel, and all its unacked
        messages are redelivered, also from earlier fetches. So a queue whose last fetch failed is tried on a new
        channel.
        """
        async with self._opening[queue]:  # later calls wait for the same channel, and so keep their order
            getter = await self._take_getter(queue)
        getter.fetch_count += 1
        try:
            messages = await self._get(getter, queue, most)
        except BaseException as error:
            self._failed_queues.add(queue)
            if isinstance(error.__cause__, ChannelNotFoundEntity):
                self._repair_soon.set()
            self._forget(getter)
            await close_channel(getter.channel)
            raise
        self._failed_queues.discard(queue)
        getter.fetch_count -= 1
        if not getter.fetch_count and self._busy.get(queue) is getter:
            self._idle.append(self._busy.pop(queue))
        return messages

    async def _take_getter(self, queue: str) -> _Getter:
        """Return the channel of the queue, or an idle one. Open one if there is none, or if the last fetch failed.

        Raises QueueUnavailable.
        """
        while queue not in self._busy and self._idle and queue not in self._failed_queues:
            self._busy[queue] = getter = self._idle.pop()
            if getter.channel.is_closed:
                self._forget(getter)
        if queue not in self._busy:
            if (connection := self._connection) is None:
                raise QueueUnavailable("not connected")
            getter = _Getter(await open_channel(connection))
            if connection is not self._connection:
                getter.forget()
                raise QueueUnavailable("the connection was lost")
            self._getters.add(getter)
            self._busy[queue] = getter
        return self._busy[queue]

    async def _get(self, getter: _Getter, queue: str, most: int) -> list[Message]:
        async with broker_request(f"cannot fetch from {queue}", None):
            fetched = await getter.get(queue, most)
        return [
            to_message(PARKED, message, AckTag(getter.acks, message.delivery_tag or 0), keep=self._max_event_bytes)
            for message in fetched
        ]

    def _forget(self, getter: _Getter) -> None:
        getter.forget()
        self._getters.discard(getter)
        if getter in self._idle:
            self._idle.remove(getter)
        for queue in [queue for queue, busy in self._busy.items() if busy is getter]:
            del self._busy[queue]

    async def flush(self) -> None:
        """Send the pending acks."""
        for getter in tuple(self._getters):
            with suppress(*CONNECTION_ERRORS):
                await getter.acks.flush()
