"""Visits the dead letters on RabbitMQ without using them up and without changing their order.

A visit has a connection of its own. It takes the letters in runs: a consumer gets as many as its prefetch, and is
cancelled, which leaves what it got with it while nothing more comes. So memory is bounded by a run; of each letter only
what is asked is kept, a row or all of it. The prefetch counts messages and not bytes: the first run is short, the next
are as long as what was kept of the last lets them be. At the end the channel is closed, or is lost, and the broker
gives back what was still held: consumer by consumer, in the order of their tags (3.10) or ages (4.0), each one's
letters in their order. That is so up to 32 consumers, where Erlang keeps a map sorted; and not for a nack, which gives
more than 32 messages back in any order (3.10.8).

What was given back stands before what never was taken, but behind what was given back before. So a visit that ends
early first takes the rest, as far as that was given back before; only one that is killed changes the order. A look
counts as a delivery, hence the queue's limit, which is out of reach.

An ack has no answer, and the broker's channel keeps acks back while more than 32 are on their way to the queue: closed
then, it loses them (on 3.10.8 and 4.0.5), and what was discarded is there again. So at the end the oldest letter that
is still held is given back and taken again: it comes only after everything before it. The last ack waits for that.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import aiormq
import aiormq.abc

from notifier.adapters.queues.rabbitmq.connection import (
    asking,
    channel_of,
    connect,
    finish,
    reason_of,
)
from notifier.adapters.queues.rabbitmq.options import RabbitOptions
from notifier.adapters.queues.rabbitmq.visitor_lock import BUSY_FOR, hold_alone
from notifier.adapters.queues.rabbitmq.wire.decoding import to_message
from notifier.domain.errors import QueueError, QueueUnavailable
from notifier.domain.letter_filter import FoundLetter, LetterReader
from notifier.domain.message import DEAD, Message, Outgoing, Transfer, Transferred
from notifier.domain.unreadable import RAW_BYTES

FIRST_RUN, LONGEST_RUN = 8, 5000  # letters; longer where there would be more than RUNS
LONGEST_WHOLE = 500  # letters that are kept whole: 64 MiB of the largest that workers write
GROWTH = 8  # times that a run may be as long as the one before: what comes next may be larger
RUNS = 30  # see above
LARGEST_PREFETCH = 65_535  # of AMQP; so 1,900,000 letters keep their order
RUN_BYTES = 16 * 1024 * 1024  # that are kept of a run, by the average of the run before
ROW_BYTES = 2048  # of a letter without its body
SILENCE = 20.0  # seconds without a letter, after which none is left or the broker is stuck
LOOK_EVERY = 0.01
FORGET_TIMEOUT = 30.0
LOST_ON_THE_WAY = "lost the dead letters on the way"

Publish = Callable[[str, Outgoing], Awaitable[None]]


class RabbitDeadLetters:
    """The dead letters of one prefix. `publish` makes a message durable in a queue, as the queue port says.

    `busy_for`: seconds to wait for another visit's end.
    """

    def __init__(self, options: RabbitOptions, publish: Publish, *, busy_for: float = BUSY_FOR) -> None:
        self._options = options
        self._publish = publish
        self._busy_for = busy_for

    @asynccontextmanager
    async def visit(self, look: LetterReader) -> AsyncIterator["RabbitVisit"]:
        """Open one pass over the present letters. Raises QueueError if the queue is away or somebody else has them."""
        connection = await connect(self._options, "dead letters")
        try:
            await hold_alone(connection, f"{self._options.prefix}.{DEAD}.visitor", self._busy_for)
            async with channel_of(connection) as channel:
                visit = RabbitVisit(channel, f"{self._options.prefix}.{DEAD}", self._publish, look)
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


class _Run:
    """The letters that one consumer gets. A run that nobody reads is only counted."""

    def __init__(self, look: LetterReader | None) -> None:
        self._look = look
        self.seen: list[FoundLetter] = []
        self.count = 0
        self.size = 0
        self.given_back = False
        self.highest = 0
        self.arrived = asyncio.Event()
        self.cancelled = False

    async def on_message(self, delivered: aiormq.abc.DeliveredMessage) -> None:
        """A letter came."""
        self.count += 1
        self.given_back = bool(delivered.redelivered)
        self.highest = delivered.delivery_tag or 0
        if self._look is not None:
            self.seen.append(self._look(to_message(DEAD, delivered, delivered.delivery_tag, keep=RAW_BYTES)))
            self.size += ROW_BYTES + len(self.seen[-1].message.body)
        self.arrived.set()

    def cancel(self, _frame: object) -> None:
        """The broker has cancelled the consumer."""
        self.cancelled = True
        self.arrived.set()


class RabbitVisit:
    """One pass over the dead letters of a prefix. One task uses it."""

    def __init__(self, channel: aiormq.Channel, queue: str, publish: Publish, look: LetterReader) -> None:
        self._look = look
        self._channel = channel
        self._queue = queue
        self._publish = publish
        self._left = 0
        self._runs = 0
        self._length = FIRST_RUN
        self._acked: set[int] = set()  # delivery tags, which count from 1 in a visit
        self._highest = 0  # of the tags
        self._last_ack: Message | None = None  # not sent yet
        self._given_back = False  # whether the last that was taken had been given back before

    @property
    def left(self) -> int:
        """How many are still to be seen."""
        return self._left

    async def begin(self) -> None:
        """Learn how many there are now. What is added later is left to the next visit."""
        self._left = await self._ready()

    async def page(self) -> Sequence[FoundLetter]:
        """The next letters, oldest first; none at the end. Raises QueueUnavailable."""
        if self._left <= 0:
            return ()
        run = await self._next(min(self._left, self._length), self._look)
        self._plan(run)
        return tuple(run.seen)

    async def take_the_rest(self) -> None:
        """Take the remaining letters that were returned before, so that the order stays. Never raises."""
        with suppress(QueueError):
            while self._given_back and self._left > 0:
                await self._next(min(self._left, LARGEST_PREFETCH), None)

    async def _next(self, count: int, look: LetterReader | None) -> "_Run":
        self._runs += 1
        run = await self._take(count, self._runs, look)
        self._left = max(0, self._left - run.count)
        return run

    async def _take(self, count: int, name: int, look: LetterReader | None) -> "_Run":
        run, channel, tag = _Run(look), self._channel, f"visit-{name:06}"
        channel.on_consumer_cancel_callbacks.add(run.cancel)
        async with asking(LOST_ON_THE_WAY):
            await channel.basic_qos(prefetch_count=count)
            await channel.basic_consume(self._queue, run.on_message, consumer_tag=tag)
        while run.count < count and not run.cancelled:
            run.arrived.clear()
            if not await self._heard(run.arrived):
                if await self._ready():
                    raise QueueUnavailable(f"the broker has dead letters, and sent none for {SILENCE:.0f} s")
                self._left = 0  # somebody else has the rest
                break
        if run.cancelled or channel.is_closed:
            raise QueueUnavailable("the broker took the dead letters away: their queue was deleted or has moved")
        async with asking(LOST_ON_THE_WAY):
            await channel.basic_cancel(tag)
        channel.on_consumer_cancel_callbacks.discard(run.cancel)
        self._given_back = run.given_back
        self._highest = max(self._highest, run.highest)
        return run

    def _plan(self, run: "_Run") -> None:
        """How long the next run is: bounded in bytes, unless the order were at stake."""
        got, size = run.count, run.size
        longest = LONGEST_RUN if size <= ROW_BYTES * got else LONGEST_WHOLE
        by_bytes = min(longest, GROWTH * got, RUN_BYTES * got // max(1, size))
        by_order = -(-self._left // max(1, RUNS - self._runs))
        self._length = min(LARGEST_PREFETCH, max(1, by_bytes, by_order))

    async def _heard(self, arrived: asyncio.Event) -> bool:
        """Wait for an arrival. True if something came in time. Ends at once if the channel is gone."""
        closing = self._channel.closing
        waiting = asyncio.ensure_future(arrived.wait())
        try:
            done, _ = await asyncio.wait({waiting, closing}, timeout=SILENCE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            closing.cancel()
        if closing in done or self._channel.is_closed:
            raise QueueUnavailable("lost the connection while looking at the dead letters")
        return bool(done)

    async def _ready(self) -> int:
        async with asking(f"cannot look into {self._queue}"):
            queue = await self._channel.queue_declare(self._queue, passive=True)
        return queue.message_count or 0

    async def remove(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Forget these for good; all of them, since nobody else can. Raises QueueUnavailable."""
        for message in messages:
            await self._ack(message)
        return messages

    async def move(self, transfers: Sequence[Transfer]) -> Transferred:
        """Make each durable where it goes, then forget the letter. Killed in between, a letter is moved again."""
        results = await asyncio.gather(
            *(self._publish(each.queue, each.outgoing) for each in transfers), return_exceptions=True
        )
        done: list[Message] = []
        failure: QueueError | None = None
        for each, result in zip(transfers, results, strict=True):
            if isinstance(result, QueueError):
                failure = result
            elif isinstance(result, BaseException):
                raise result
            else:
                await self._ack(each.letter)
                done.append(each.letter)
        return Transferred(done=tuple(done), failure=failure)

    async def _ack(self, message: Message) -> None:
        """Send the ack before this one: the last is sent at the end."""
        before, self._last_ack = self._last_ack, message
        if before is not None:
            await self._send_ack(before)

    async def _send_ack(self, message: Message) -> None:
        tag = message.tag
        assert isinstance(tag, int), "a letter of this visit"
        self._acked.add(tag)
        async with asking("lost the connection"):
            await self._channel.basic_ack(tag, wait=False)

    async def forget(self) -> None:
        """Return once the broker has forgotten all that were acked. The rest was taken. Raises QueueUnavailable."""
        last = self._last_ack
        if last is None:
            return
        try:
            async with asyncio.timeout(FORGET_TIMEOUT):
                others = (tag for tag in range(1, self._highest + 1) if tag not in self._acked and tag != last.tag)
                oldest = next(others, None)
                again = await self._again(oldest, last)
                await self._send_ack(last if oldest is not None else again)
                if oldest is not None:
                    await self._give_back(again.tag)  # before the others, which go back as the channel closes
                await self._ready()
        except (QueueError, TimeoutError) as error:
            text = "the broker has not confirmed the end: some letters may be there again; a copy does no harm"
            raise QueueUnavailable(f"{text} ({reason_of(error)})") from error

    async def _again(self, oldest: int | None, last: Message) -> Message:
        """Give the oldest letter back, or the last if it is the only one held, and take it again."""
        before = await self._ready()
        await self._give_back(last.tag if oldest is None else oldest)
        while True:
            while await self._ready() <= before:  # noqa: ASYNC110  a broker tells nobody when it changes
                await asyncio.sleep(LOOK_EVERY)
            self._runs += 1
            for found in (await self._take(1, self._runs, self._look)).seen:
                # All that was given back before is held: what comes again is what was given back here.
                if self._given_back and (oldest is not None or found.message.message_id == last.message_id):
                    return found.message
            before = -1

    async def _give_back(self, tag: object) -> None:
        assert isinstance(tag, int), "of a letter of this visit"
        async with asking("lost the connection"):
            await self._channel.basic_nack(tag, requeue=True, wait=False)
