"""Reads the messages of a queue on RabbitMQ once, without consuming them and without changing their order.

A pass takes the messages in runs. A consumer gets as many as its prefetch and is cancelled: it keeps these, and gets
no more. So a run bounds the memory; of each message only the requested part is kept, a summary or all of it. The
prefetch counts messages, not bytes. So the first run is short, and the size of a run determines the length of the next.
When the channel ends, the broker returns the messages that are still held: consumer by consumer, in the order of their
tags (3.10) or ages (4.0), the messages of each in order. This applies to up to 32 consumers, for which Erlang keeps a
map sorted. It does not apply to a nack, which returns more than 32 messages in any order (3.10.8).

Returned messages precede messages that were never taken, but follow earlier returned messages. So a pass that ends
early first takes the remaining messages that had been returned before. Only a killed pass changes the order. A pass
counts as a delivery, so the queue's delivery limit is out of reach.

An ack has no answer, and the broker's channel holds acks back while more than 32 are on their way to the queue. If the
channel is closed then, they are lost (on 3.10.8 and 4.0.5), and the removed messages reappear. So a pass with acks
ends with one more consumer, which is cancelled at once. Both commands go through the queue's log, after the sent acks:
the first reports these as done to the channel, which then sends the acks that it held back. That consumer may get a
message, which is returned with the rest. In a shared queue, where this would add a delivery, a pass with few acks
omits that consumer.

A removed message is never returned: another consumer could take it, in addition to its replacement.

The broker returns the messages of an ended channel up to seconds later. It counts consumers that hold messages, also
cancelled ones, until it returns these. So a pass begins when the queue has no consumer, also after a killed pass.

A queue of dead letters has one pass at a time. A queue of pending deliveries is *shared*: due messages leave it
during the pass, and workers fetch from buckets. There a pass ends as soon as the queue is empty, and returned
messages may have left before they are taken again.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

import aiormq
import aiormq.abc

from notifier.model.documents.unreadable import MAX_BODY_BYTES
from notifier.model.errors import QueueError, QueueUnavailable
from notifier.model.message import Message, MessageDraft, Transfer, TransferResult
from notifier.model.shared_resources import shared_bound
from notifier.queues.passes import Reader, ReadMessage
from notifier.queues.rabbitmq.acks import AckLedger
from notifier.queues.rabbitmq.connection import broker_request
from notifier.queues.rabbitmq.delays import to_first_hop
from notifier.queues.rabbitmq.wire.aiormq_hooks import callback_of
from notifier.queues.rabbitmq.wire.decoding import to_message

FIRST_RUN_LENGTH, MAX_RUN_LENGTH = 8, 5000  # messages; longer if MAX_RUNS requires it
MAX_WHOLE_RUN_LENGTH = shared_bound(500)  # messages with bodies: 64 MiB of the largest that workers write
MAX_RUN_GROWTH = 8  # maximum factor between two runs, since the next messages may be larger
MAX_RUNS = 30  # at most 32 consumers keep the order
MAX_PREFETCH = 65_535  # of AMQP; so 1,900,000 messages keep their order
RUN_BYTES = 16 * 1024 * 1024  # kept per run, by the average of the previous run
ROW_BYTES = 2048  # of a message without its body
SILENCE_TIMEOUT_SECONDS = 20.0  # without a message: the queue is empty or the broker is stuck
SHARED_SILENCE_TIMEOUT_SECONDS = 0.2  # in a shared queue, twice: other messages may have left it
FORGET_TIMEOUT_SECONDS = 30.0
RETURN_TIMEOUT_SECONDS = 10.0  # for the messages of another pass to return, and for a queue that is too busy to count
RETURN_POLL_SECONDS = 0.02
PROMPT_SECONDS = 0.2  # the broker answers 0 for a queue that has not counted its messages within 0.25 s
MAX_UNCONFIRMED_ACKS = shared_bound(24)  # acks that the broker's channel does not hold back

PublishMessage = Callable[[str, MessageDraft], Awaitable[None]]


S = TypeVar("S")


class _Run(Generic[S]):
    """The messages of one consumer (a *run*). Without `read`, they are only counted."""

    def __init__(self, origin: str, read: Reader[S] | None) -> None:
        self._origin = origin
        self._read = read
        self.entries: list[ReadMessage[S]] = []
        self.count = 0
        self.size = 0
        self.last_was_redelivered = False
        self.arrived = asyncio.Event()
        self.cancelled = False

    def on_message(self, delivered: aiormq.abc.DeliveredMessage) -> None:
        """Record a message of the consumer."""
        self.count += 1
        self.last_was_redelivered = bool(delivered.redelivered)
        if self._read is not None:
            self.entries.append(
                self._read(to_message(self._origin, delivered, delivered.delivery_tag, keep=MAX_BODY_BYTES))
            )
            self.size += ROW_BYTES + len(self.entries[-1].message.body)
        self.arrived.set()

    def cancel(self, _frame: object) -> None:
        """Record that the broker has cancelled the consumer."""
        self.cancelled = True
        self.arrived.set()


class RabbitPass(Generic[S]):
    """One pass over a queue (its full name), for one task: a sequence of consumers that take some messages each.

    `origin`: the queue's name for `to_message`. `what`: the name of its messages in errors. `shared`: other consumers
    may take messages, too. `left`: how many messages have not been read yet. `last_was_redelivered`: the last taken
    message had been redelivered before.
    """

    def __init__(
        self,
        channel: aiormq.Channel,
        queue: str,
        publish: PublishMessage,
        read: Reader[S],
        *,
        origin: str,
        what: str,
        shared: bool = False,
    ) -> None:
        self._read = read
        self._origin = origin
        self._what = what
        self._shared = shared
        self._channel = channel
        self._callback = callback_of(channel, lambda message: self._run.on_message(message))  # noqa: PLW0108  `_run` changes
        self._queue = queue
        self._publish = publish
        self.left = 0
        self._runs = 0
        self._length = FIRST_RUN_LENGTH
        self._acks = AckLedger()  # tags count from 1, as on the pass's channel
        self._unconfirmed_acks = 0  # upper bound of acks that may not have reached the queue
        self._run = _Run[S](origin, None)  # the current run
        self.last_was_redelivered = False

    async def begin(self, within: float = RETURN_TIMEOUT_SECONDS) -> None:
        """Count the present messages; wait up to `within` seconds for those of an ended pass. Ignore later ones."""
        self.left = await count_ready(self._channel, self._queue, within)

    async def next_page(self) -> Sequence[ReadMessage[S]]:
        """Return the next messages, oldest first; none at the end. Raises QueueUnavailable."""
        if self.left <= 0:
            return ()
        run = await self._take_next_run(min(self.left, self._length), self._read)
        self._plan_next_run(run)
        return tuple(run.entries)

    async def take_returned(self) -> None:
        """Take the remaining messages that were redelivered before, so that all return in their order. Never raises."""
        with suppress(QueueError):
            while self.last_was_redelivered and self.left > 0:
                await self._take_next_run(min(self.left, MAX_PREFETCH), None)

    async def _take_next_run(self, count: int, read: Reader[S] | None) -> "_Run[S]":
        """Take the next `count` messages by a new consumer; fewer if the queue is empty. Raises QueueUnavailable."""
        self._runs += 1
        run, channel, tag = _Run(self._origin, read), self._channel, f"visit-{self._runs:06}"
        channel.on_consumer_cancel_callbacks.add(run.cancel)
        async with broker_request(f"lost {self._what} on the way"):
            await self._start_consumer(run, count, tag)
        await self._wait_until_filled(run, count)
        if run.cancelled or channel.is_closed:
            raise QueueUnavailable(f"the broker took {self._what} away: their queue was deleted or has moved")
        async with broker_request(f"lost {self._what} on the way"):
            await channel.basic_cancel(tag)
        channel.on_consumer_cancel_callbacks.discard(run.cancel)
        self.last_was_redelivered = run.last_was_redelivered
        self._unconfirmed_acks = 0
        self.left = max(0, self.left - run.count)
        return run

    async def _wait_until_filled(self, run: "_Run[S]", count: int) -> None:
        """Wait until the run has `count` messages, is cancelled, or the queue is empty. Raises QueueUnavailable."""
        silent_seconds = 0.0
        while run.count < count and not run.cancelled:
            run.arrived.clear()
            if await self._wait_for_message(run.arrived):
                silent_seconds = 0.0
                continue
            silent_seconds += self._silence_seconds
            if await count_ready(self._channel, self._queue):
                if silent_seconds >= SILENCE_TIMEOUT_SECONDS:
                    raise QueueUnavailable(
                        f"the broker has {self._what}, and sent none for {SILENCE_TIMEOUT_SECONDS:.0f} s"
                    )
            elif silent_seconds > SHARED_SILENCE_TIMEOUT_SECONDS:
                self.left = 0  # other consumers took the remaining messages
                return

    @property
    def _silence_seconds(self) -> float:
        return SHARED_SILENCE_TIMEOUT_SECONDS if self._shared else SILENCE_TIMEOUT_SECONDS

    def _plan_next_run(self, run: "_Run[S]") -> None:
        """Set the length of the next run: as many messages as fit into RUN_BYTES, but enough to end within MAX_RUNS."""
        count, size = run.count, run.size
        has_bodies = size > ROW_BYTES * count
        max_length = MAX_WHOLE_RUN_LENGTH if has_bodies else MAX_RUN_LENGTH
        fitting = min(max_length, MAX_RUN_GROWTH * count, RUN_BYTES * count // max(1, size))
        needed = math.ceil(self.left / max(1, MAX_RUNS - self._runs))
        self._length = min(MAX_PREFETCH, max(1, fitting, needed))

    async def _wait_for_message(self, arrived: asyncio.Event) -> bool:
        """Return True if a message arrives in time. Raises QueueUnavailable at once if the channel is closed."""
        closing = self._channel.closing
        waiting = asyncio.ensure_future(arrived.wait())
        try:
            done, _ = await asyncio.wait(
                {waiting, closing}, timeout=self._silence_seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiting.cancel()
            closing.cancel()
        if closing in done or self._channel.is_closed:
            raise QueueUnavailable(f"lost the connection while looking at {self._what}")
        return bool(done)

    async def remove(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Delete these messages, and return all, since only this pass holds them. Raises QueueUnavailable."""
        await self._ack(messages)
        return messages

    async def move(self, transfers: Sequence[Transfer]) -> TransferResult:
        """Publish each message to its new queue, and delete the old ones whose publish was confirmed.

        If the process dies in between, both remain. Raises errors other than QueueError, which the result contains.
        """
        results = await asyncio.gather(
            *(self._publish(*_to_first_queue(transfer)) for transfer in transfers), return_exceptions=True
        )
        done: list[Message] = []
        failure: QueueError | None = None
        for transfer, result in zip(transfers, results, strict=True):
            if isinstance(result, QueueError):
                failure = result
            elif isinstance(result, BaseException):
                raise result
            else:
                done.append(transfer.taken)
        await self._ack(done)
        return TransferResult(done=tuple(done), failure=failure)

    async def _ack(self, messages: Sequence[Message]) -> None:
        """Ack these messages with as few frames as possible, since the broker handles each frame once per run."""
        for message in messages:
            assert isinstance(message.tag, int), "a message of this pass"
            self._acks.settle(message.tag)
        async with broker_request("lost the connection"):
            for tag, multiple in self._acks.take():
                self._unconfirmed_acks += self._runs if multiple else 1
                await self._channel.basic_ack(tag, multiple=multiple, wait=False)

    async def wait_until_deleted(self) -> None:
        """Return once all acked messages are deleted. Raises QueueUnavailable."""
        if not self._unconfirmed_acks:
            return
        if self._shared and self._unconfirmed_acks < MAX_UNCONFIRMED_ACKS:
            await count_ready(self._channel, self._queue)
            return
        self._runs += 1
        run, tag = _Run[S](self._origin, None), f"visit-{self._runs:06}"
        text = f"the broker has not confirmed the end: some of {self._what} may be there again; a copy does no harm"
        async with broker_request(text, FORGET_TIMEOUT_SECONDS):
            await self._start_consumer(run, 1, tag)
            await self._channel.basic_cancel(tag)

    async def _start_consumer(self, run: "_Run[S]", count: int, tag: str) -> None:
        self._run = run
        await self._channel.basic_qos(prefetch_count=count)
        await self._channel.basic_consume(self._queue, self._callback, consumer_tag=tag)


async def count_ready(channel: aiormq.Channel, queue: str, returned_within: float = 0.0) -> int:
    """Return the number of ready messages. Wait up to `returned_within` seconds while a consumer holds others.

    A late 0 may be wrong, so the queue is counted again. Raises QueueUnavailable.
    """
    monotonic = asyncio.get_running_loop().time
    began_at = monotonic()
    while True:
        asked_at = monotonic()
        async with broker_request(f"cannot look into {queue}"):
            declared = await channel.queue_declare(queue, passive=True)
        now, ready = monotonic(), declared.message_count or 0
        is_held = bool(declared.consumer_count) and now < began_at + returned_within
        is_doubtful = not ready and now > asked_at + PROMPT_SECONDS and now < began_at + RETURN_TIMEOUT_SECONDS
        if not (is_held or is_doubtful):
            return ready
        await asyncio.sleep(RETURN_POLL_SECONDS)


def _to_first_queue(transfer: Transfer) -> tuple[str, MessageDraft]:
    if transfer.wait:
        return to_first_hop(transfer.outgoing, transfer.wait, "down")
    return transfer.queue, transfer.outgoing
