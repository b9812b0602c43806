"""Passes over the pending deliveries on RabbitMQ: over the delay queues, longest first, then over the buckets.

A message that moves during the pass goes to a shorter delay queue or to a bucket, and so is read twice rather than
missed. While the pass reads a queue, it holds all its messages: due messages leave the queue seconds late, and a worker
that fetches from the bucket finds it empty and retries. A pass over the pending deliveries consists of one pass over
each queue (see `queue_pass`). Only one runs at a time.

A pass increments a message's delivery count. In delay queues the count ends with the message's stay. A worker ignores
one return of a message from a bucket. So before the pass would return a message for the second time, it parks the
message again and then acks the old copy. The message stays in its bucket, behind messages that fewer passes returned.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Generic, TypeVar

import aiormq

from notifier.model.errors import QueueError
from notifier.model.message import PARKED, Kind, Message, MessageDraft, Transfer, TransferResult
from notifier.queues.passes import OnWait, Reader, ReadMessage, ignore_holder
from notifier.queues.queue_port import NameHolder, name_another
from notifier.queues.rabbitmq.administration import read_depths
from notifier.queues.rabbitmq.buckets import bucket_names, bucket_number
from notifier.queues.rabbitmq.connection import Connection, close_channel, open_channel
from notifier.queues.rabbitmq.dead_letters import BUSY_TIMEOUT_SECONDS, PassLock
from notifier.queues.rabbitmq.delays import DELAY_QUEUES
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.queue_pass import PROMPT_SECONDS, PublishMessage, RabbitPass
from notifier.queues.rabbitmq.wire.decoding import MAX_PASS_RETURNS

S = TypeVar("S")
RENEWALS_PER_BATCH = 200
BUCKET_RETURN_SECONDS = 2.0  # for messages of an ended pass to return to buckets, of which workers hold others


class RabbitWaiting:
    """The pending deliveries under one prefix. `publish` and `park` make a message durable in a queue or a bucket.

    `lock`: of all passes over them in this process. `busy_for`: seconds to wait for a pass of another process.
    """

    def __init__(
        self,
        options: RabbitOptions,
        publish: PublishMessage,
        park: PublishMessage,
        lock: PassLock,
        name_holder: NameHolder = name_another,
        *,
        busy_for: float = BUSY_TIMEOUT_SECONDS,
    ) -> None:
        self._options = options
        self._publish = publish
        self._park = park
        self._lock, self._name_holder = lock, name_holder
        self._busy_for = busy_for

    @asynccontextmanager
    async def open_pass(
        self,
        read: Reader[S],
        *,
        clients: Collection[tuple[str, str]] | None = None,
        parked: bool = True,
        only: str | None = None,
        on_wait: OnWait = ignore_holder,
    ) -> AsyncIterator["PendingPass[S]"]:
        """Open one pass over the current pending deliveries (`only`: in this queue). Missing queues are skipped.

        Raises QueueError if another pass runs or the broker does not answer.
        """
        queues = self._names(clients, parked=parked) if only is None else (only,)
        names = {name: f"{self._options.prefix}.{name}" for name in queues}
        async with self._lock.hold([*names.values()], self._busy_for, self._name_holder, on_wait) as connection:
            monotonic = asyncio.get_running_loop().time
            asked_at = monotonic()
            depths = await read_depths(connection, names)
            is_prompt = monotonic() < asked_at + PROMPT_SECONDS  # otherwise a queue without messages may have some
            counts = {
                name: depths[name].ready
                for name in names
                if name in depths and (depths[name].ready or depths[name].consumers or not is_prompt)
            }
            prefix = self._options.prefix
            pending_pass = PendingPass(connection, prefix, counts, self._publish, self._park, read, self._lock.noun)
            try:
                yield pending_pass
            except BaseException:
                with suppress(QueueError):  # the first error is reported
                    await pending_pass.leave()
                raise
            await pending_pass.leave()

    def _names(self, clients: Collection[tuple[str, str]] | None, *, parked: bool) -> Iterable[str]:
        """Return the delay queues, the longest delay first, and with `parked` the buckets of these clients."""
        buckets = bucket_names(self._options)
        if not parked:
            buckets = ()
        elif clients is not None:
            count = self._options.buckets
            numbers = {bucket_number(client, count, large=large) for client in clients for large in (False, True)}
            buckets = tuple(buckets[number] for number in sorted(numbers))
        return (*reversed(list(DELAY_QUEUES)), *buckets)


class PendingPass(Generic[S]):
    """One pass over queues, for one task. `waiting`: the messages per queue. `what`: their name in errors."""

    def __init__(
        self,
        connection: Connection,
        prefix: str,
        waiting: dict[str, int],
        publish: PublishMessage,
        park: PublishMessage,
        read: Reader[S],
        what: str,
    ) -> None:
        self._what = what
        self._connection = connection
        self._prefix = prefix
        self._waiting = waiting
        self._publish = publish
        self._park = park
        self._read = read
        self._name = ""
        self._queue_pass: RabbitPass[S] | None = None
        self._channel: aiormq.Channel | None = None
        self._bucket_seconds_left = BUCKET_RETURN_SECONDS
        self._returned: dict[object, Message] = {}  # by delivery tag: whole messages that must not be redelivered

    @property
    def left(self) -> int:
        """Return the number of messages that have not been read yet."""
        return sum(self._waiting.values()) + (0 if self._queue_pass is None else self._queue_pass.left)

    async def next_page(self) -> Sequence[ReadMessage[S]]:
        """Return the next messages of a queue, oldest first; none at the end. Raises QueueError."""
        while True:
            if self._queue_pass is None:
                if not self._waiting:
                    return ()
                await self._begin()
            assert self._queue_pass is not None
            await self._park_copies(self._queue_pass)
            if page := await self._queue_pass.next_page():
                return page
            await self.leave()

    async def remove(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Delete these messages, and return them. Raises QueueError."""
        assert self._queue_pass is not None, "of the last page"
        self._forget_copies(messages)
        return await self._queue_pass.remove(messages)

    async def move(self, transfers: Sequence[Transfer]) -> TransferResult:
        """Make each message durable in its new queue, then delete the old one. Raises QueueError."""
        assert self._queue_pass is not None, "of the last page"
        moved = await self._queue_pass.move(transfers)
        self._forget_copies(moved.done)
        return moved

    async def leave(self) -> None:
        """End the pass over the current queue: remaining messages return to their positions. Raises QueueError."""
        queue_pass, channel, self._queue_pass, self._channel = self._queue_pass, self._channel, None, None
        if queue_pass is None or channel is None:
            return
        try:
            await self._park_copies(queue_pass)
            if self._origin == PARKED:
                # A pass returns a message to its bucket only once: park copies of those that were returned before.
                while queue_pass.last_was_redelivered and await queue_pass.next_page():
                    await self._park_copies(queue_pass)
            await queue_pass.take_returned()
            await queue_pass.wait_until_deleted()
        finally:
            self._returned.clear()
            await close_channel(channel)

    async def _begin(self) -> None:
        self._name = next(iter(self._waiting))
        del self._waiting[self._name]
        self._channel = await open_channel(self._connection)
        origin, queue = self._origin, f"{self._prefix}.{self._name}"
        self._queue_pass = RabbitPass(
            self._channel, queue, self._publish, self._read_message, origin=origin, what=self._what, shared=True
        )
        if origin != PARKED:
            await self._queue_pass.begin()
            return
        monotonic = asyncio.get_running_loop().time
        began_at = monotonic()
        await self._queue_pass.begin(self._bucket_seconds_left)
        self._bucket_seconds_left -= monotonic() - began_at

    @property
    def _origin(self) -> str:
        return PARKED if self._name.startswith(PARKED) else self._name

    def _read_message(self, message: Message) -> ReadMessage[S]:
        if self._origin == PARKED and message.delivery_count >= MAX_PASS_RETURNS:
            self._returned[message.tag] = message
        return self._read(message)

    def _forget_copies(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self._returned.pop(message.tag, None)

    async def _park_copies(self, queue_pass: RabbitPass[S]) -> None:
        """Park copies of the messages that must not be redelivered once more, in order, and delete the old messages."""
        messages = [message for message in self._returned.values() if message.kind is Kind.DELIVERY]
        self._returned.clear()
        for start in range(0, len(messages), RENEWALS_PER_BATCH):
            batch = messages[start : start + RENEWALS_PER_BATCH]
            copies = (
                MessageDraft(
                    kind=Kind.DELIVERY,
                    body=message.body,
                    message_id=message.message_id or "",
                    headers=message.lasting_headers,
                )
                for message in batch
            )
            await asyncio.gather(*(self._park(self._name, copy) for copy in copies))
            await queue_pass.remove(batch)
