"""Fetches deliveries from the buckets, in which they wait for a client that is down.

A bucket is a queue without a consumer: what nobody fetches leaves it for `retries` after `LONGEST_PARKED`. Messages are
fetched by `basic.get` and acked, never given back: each time that a message is given out adds to its delivery count.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import suppress

import aiormq
from aiormq.exceptions import ChannelNotFoundEntity

from notifier.adapters.queues.rabbitmq.acks import AckTag, ChannelAcks
from notifier.adapters.queues.rabbitmq.connection import LOST, Connection, asking, close_channel, open_channel
from notifier.adapters.queues.rabbitmq.options import RabbitOptions
from notifier.adapters.queues.rabbitmq.wire.decoding import to_message
from notifier.domain.errors import QueueUnavailable
from notifier.domain.message import PARKED, Message

CHANNELS = 4  # fetches at a time
FLUSH_TIMEOUT = 5.0


def bucket_names(options: RabbitOptions) -> tuple[str, ...]:
    """The buckets, without prefix: `parked-00.delay.1024s`.

    The end is that of a delay queue's name. So a release that knows no buckets trusts what comes out of them.
    """
    return tuple(f"{PARKED}-{number:02d}.delay.{options.parked_for}s" for number in range(options.buckets))


def bucket_number(client: tuple[str, str], buckets: int) -> int:
    """The number of this client's bucket, the same at every worker and in every release."""
    digest = hashlib.sha256("\0".join(client).encode()).digest()
    return int.from_bytes(digest[:4]) % buckets


class _Getter:
    """A channel for one fetch at a time. Its messages are acked here, also while the next are fetched."""

    def __init__(self, channel: aiormq.Channel) -> None:
        self.channel = channel
        self.acks = ChannelAcks(channel)
        self._flushing = asyncio.create_task(self.acks.run())

    def forget(self) -> None:
        self.acks.forget()
        self._flushing.cancel()


class BucketReader:
    """Fetches from buckets on the connection that it is given. Sets `mend_soon` if a bucket is missing."""

    def __init__(self, options: RabbitOptions, mend_soon: asyncio.Event) -> None:
        self._keep = options.max_event
        self._mend_soon = mend_soon
        self._connection: Connection | None = None
        self._turns = asyncio.Semaphore(CHANNELS)
        self._idle: list[_Getter] = []
        self._getters: set[_Getter] = set()

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

        An error costs the channel: all its unacked messages come again, those of earlier fetches too.
        """
        async with self._turns:
            getter = await self._getter()
            try:
                taken = await self._get(getter, queue, most)
            except BaseException as error:
                if isinstance(error.__cause__, ChannelNotFoundEntity):
                    self._mend_soon.set()
                self._forget(getter)
                await close_channel(getter.channel)
                raise
            if getter in self._getters:
                self._idle.append(getter)
            return taken

    async def _getter(self) -> _Getter:
        while self._idle:
            getter = self._idle.pop()
            if not getter.channel.is_closed:
                return getter
            self._forget(getter)
        connection = self._connection
        if connection is None:
            raise QueueUnavailable("not connected")
        getter = _Getter(await open_channel(connection))
        if connection is not self._connection:
            getter.forget()
            raise QueueUnavailable("the connection was lost")
        self._getters.add(getter)
        return getter

    async def _get(self, getter: _Getter, queue: str, most: int) -> list[Message]:
        taken: list[Message] = []
        while len(taken) < most:
            async with asking(f"cannot fetch from {queue}"):
                delivered = await getter.channel.basic_get(queue)
            if delivered.delivery_tag is None:
                break
            taken.append(to_message(PARKED, delivered, AckTag(getter.acks, delivered.delivery_tag), keep=self._keep))
        return taken

    def _forget(self, getter: _Getter) -> None:
        getter.forget()
        self._getters.discard(getter)
        if getter in self._idle:
            self._idle.remove(getter)

    async def flush(self) -> None:
        """Send the acks that wait."""
        for getter in tuple(self._getters):
            with suppress(*LOST):
                async with asyncio.timeout(FLUSH_TIMEOUT):
                    await getter.acks.flush()
