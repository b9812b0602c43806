"""Settles deliveries: makes each verdict durable as a retry, a deferral or a dead letter that the queue confirms.

A retry, deferral or dead letter is reported, and its message acked, only after the confirm. While the queue is
unavailable, deliveries stay in memory; the worker's window bounds their number. A deferral is given up once it is due,
since the delivery can then be attempted without the queue. If only the bucket of a delivery takes nothing for some
seconds, or the queue of dead letters, the delivery waits in a delay queue instead: one queue must not fill the memory
that all clients share. A delivery that was given up is decided again when it returns: one that was refused is attempted
again, as after the death of a worker.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import islice

from notifier.delivery import facts
from notifier.delivery.ports import MessageOfDelivery
from notifier.delivery.verdict import Dead, Defer, RetryAt, WaitKind, queue_delay
from notifier.model.backoff import MIN_EARLY_FACTOR, MIN_WAIT_SECONDS, Rounding
from notifier.model.client import ClientKey
from notifier.model.delivery import Delivery
from notifier.model.documents import dead_letter, documents
from notifier.model.documents.dead_letter import DeadLetter
from notifier.model.errors import OneQueueUnavailable, QueueUnavailable
from notifier.model.message import DEAD, MAX_PARKED_SECONDS, Kind, Lane, MessageDraft, crash_headers
from notifier.model.moment import Clock
from notifier.model.record import copy_record, record
from notifier.model.reply import ReplyTo
from notifier.queues.queue_port import BucketQueues, WorkerQueue

MIN_TRY_SECONDS = 1.0  # for which a deferral is tried at least: a thousand deferrals must not block the event loop
LARGE_BACKLOG = 1000  # parked deliveries of one client, from which on they would delay others in the same bucket
UNPARKED_SECONDS = 16.0  # for which a delivery waits instead of being parked: until its bucket is tried again
DECIDED_AGAIN_SECONDS = 128.0  # for which a delivery waits instead of being a dead letter, also after a short outage
BATCH_MESSAGES = 16  # messages made and confirmed together: making more at once would block the event loop
SHORT_WAIT_SECONDS = 16.0  # shorter waits are counted by eighths of a second: several may follow within a second
SHORT_STEPS = 8  # … these


@record
class OutgoingMessage:
    """A message to be made durable, and the fact to report then.

    It is published to `queue`. With `due` (epoch seconds) it waits in delay queues and then returns as a retry. With
    `bucket` it is parked there instead, until it is fetched, and at most for the time that `Queue.park` documents.
    `make_other` returns what is published in its place while only its queue takes nothing.
    """

    message: MessageDraft
    queue: str = Lane.RETRIES
    bucket: str | None = None
    due: float | None = None
    rounding: Rounding = "down"
    fact: facts.Fact | None = None
    make_other: "Callable[[], OutgoingMessage] | None" = None


def to_dead_letter_message(
    letter: DeadLetter,
    reply_to: ReplyTo | None,
    delivery: Delivery | None = None,
    make_other: Callable[[], OutgoingMessage] | None = None,
) -> OutgoingMessage:
    """Return the message of a dead letter, and the fact that reports it. `make_other`: see OutgoingMessage."""
    fact = facts.DeadLettered(
        iss=letter.iss, client_id=letter.client_id, event_id=letter.event_id, reason=letter.reason, text=letter.text,
        delivery=delivery or letter.delivery, reply_to=reply_to,
    )  # fmt: skip
    return OutgoingMessage(queue=DEAD, message=dead_letter.dump_dead_letter(letter), fact=fact, make_other=make_other)


class Settlement:
    """Publishes what verdicts require, and reports it. `parked` and `delayed` count the pending deliveries."""

    def __init__(self, queue: WorkerQueue, *, clock: Clock, observe: facts.Observer) -> None:
        self._queue = queue
        self._clock = clock
        self._observe = observe
        self.parked = BucketCounts(queue)
        self.delayed = DelayCounts(clock)

    async def settle(self, delivery: Delivery, verdict: RetryAt | Defer | Dead, message: MessageOfDelivery) -> bool:
        """Return True once the verdict is durable; False if a deferral became due before that.

        A deferral keeps the crash count of the delivery's `message`; a retry follows an ended attempt and resets it.
        """
        now = self._clock()
        match verdict:
            case RetryAt():
                outgoing = self._to_outgoing(delivery, verdict, now, crashes=0)
                await self.send(outgoing)
                self._count_delayed(delivery.key, outgoing)
                self._observe(facts.RetryScheduled(delivery=delivery, due=verdict.due))
            case Defer():
                outgoing = self._to_outgoing(delivery, verdict, now, message.crashes)
                if not await self.send(outgoing, max_seconds=max(MIN_TRY_SECONDS, verdict.due - now)):
                    return False
                self._count_delayed(delivery.key, outgoing)
                deferred = facts.Deferred(
                    iss=delivery.iss, client_id=delivery.client_id, event_id=delivery.event_id, cause=verdict.cause,
                    due=verdict.due, text=verdict.text, delivery=delivery, reply_to=delivery.reply_to,
                )  # fmt: skip
                self._observe(deferred)
            case Dead():
                letter = dead_letter.dead_letter_delivery(delivery, verdict.reason, verdict.text, now)
                again = partial(
                    self._to_outgoing, delivery, RetryAt(due=now + DECIDED_AGAIN_SECONDS), now, message.crashes
                )
                sent = await self.send(to_dead_letter_message(letter, delivery.reply_to, delivery, again))
                if sent is not None and sent.fact is not None:
                    self._observe(sent.fact)
                elif sent is not None:
                    self._count_delayed(delivery.key, sent)
        return True

    async def send_all(self, messages: Iterable[OutgoingMessage]) -> None:
        """Return once all are durable. The messages are made in batches, so a large event is never whole in memory."""
        remaining = iter(messages)
        while batch := list(islice(remaining, BATCH_MESSAGES)):
            for sent in await asyncio.gather(*map(self.send, batch)):
                if sent is not None and sent.fact is not None:
                    self._observe(sent.fact)

    async def send(self, outgoing: OutgoingMessage, *, max_seconds: float | None = None) -> OutgoingMessage | None:
        """Return the message, or the one in its place, once durable; None if no queue took it for `max_seconds`."""
        deadline = None if max_seconds is None else asyncio.get_running_loop().time() + max_seconds
        while True:
            try:
                if outgoing.bucket is not None and outgoing.due is not None:
                    await self._queue.park(outgoing.bucket, outgoing.message, until=outgoing.due)
                elif outgoing.due is None:
                    await self._queue.publish(outgoing.queue, outgoing.message)
                else:
                    await self._queue.publish_later(outgoing.message, due=outgoing.due, rounding=outgoing.rounding)
            except QueueUnavailable as error:
                if isinstance(error, OneQueueUnavailable) and (other := self._find_other(outgoing)) is not None:
                    outgoing = other
                    continue
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._queue.wait_until_available()
                except TimeoutError:
                    return None
            else:
                return outgoing

    def _find_other(self, outgoing: OutgoingMessage) -> OutgoingMessage | None:
        """Return what is published in place of the message while only its queue takes nothing; None: it must wait."""
        if outgoing.bucket is None:
            return None if outgoing.make_other is None else outgoing.make_other()
        due = self._clock() + UNPARKED_SECONDS
        return copy_record(outgoing, bucket=None, due=min(outgoing.due or due, due))

    def _to_outgoing(self, delivery: Delivery, verdict: RetryAt | Defer, now: float, crashes: int) -> OutgoingMessage:
        """Return the message with which the delivery returns, to be delayed or parked."""
        parked = verdict.wait_kind is WaitKind.PARKED
        wait, rounding = queue_delay(verdict, now)
        if parked:
            wait = min(verdict.until - now, MAX_PARKED_SECONDS)
        # From now on the id is the same at every reading, so it identifies copies like an id that a publisher gave.
        progress = delivery.progress.after_dispatch(now, max(MIN_WAIT_SECONDS, wait), parked=parked)
        # A pause that the client requested is adopted from `due`; other deferrals state when they return.
        due = verdict.due if parked or progress.delayed_by_client else now + wait
        body = documents.dump_delivery(copy_record(delivery, id_given=True, progress=progress), due=due)
        message = MessageDraft(kind=Kind.DELIVERY, body=body, message_id=delivery.id, headers=crash_headers(crashes))
        bucket = self.parked.next_bucket(delivery.key) if parked else None
        return OutgoingMessage(message=message, bucket=bucket, due=now + wait, rounding=rounding)

    def _count_delayed(self, key: ClientKey, outgoing: OutgoingMessage) -> None:
        if outgoing.bucket is None and outgoing.due is not None:
            self.delayed.add(key, outgoing.due, outgoing.rounding)


# ── counts for operators ──


class BucketCounts:
    """Counts the deliveries parked for each client, and decides in which of its buckets further ones are parked.

    A worker adds each delivery that it parks, and subtracts each delivery that it receives from a bucket. So the count
    of one worker may be negative, and the sum over all workers is right. The counts of a worker that ends are lost:
    then the sum is wrong until the bucket is empty. The counts of a bucket that is empty twice in a row are forgotten.

    `large`: clients with a large backlog, until their large buckets are empty.
    """

    def __init__(self, queues: BucketQueues) -> None:
        self._queues = queues
        self.large: set[ClientKey] = set()
        self._counts: Counter[ClientKey] = Counter()
        self._empty: Collection[ClientKey] = ()  # clients whose buckets were empty at the last count

    def __iter__(self) -> Iterator[tuple[str, str, int]]:
        """Yield (iss, client_id, count) of each client whose count is not zero."""
        return ((*key, count) for key, count in self._counts.items() if count)

    def next_bucket(self, key: ClientKey) -> str:
        """Return the bucket for another delivery of the client."""
        return self._queues.bucket(key, large=key in self.large)

    def buckets_of(self, key: ClientKey) -> tuple[str, ...]:
        """Return the buckets that may contain deliveries of the client."""
        return tuple(dict.fromkeys((self._queues.bucket(key), self.next_bucket(key))))

    def add(self, key: ClientKey, change: int, worker_count: int = 1) -> None:
        """Count a delivery that is durable in its bucket (+1), or that has left it (-1).

        `worker_count`: of the workers, which have probably all parked as many.
        """
        self._counts[key] += change
        if change > 0 and self._counts[key] * worker_count >= LARGE_BACKLOG:
            self.large.add(key)

    def forget_empty(self, filled: Collection[str]) -> None:
        """Forget the counts of buckets that are empty for the second time. `filled`: the buckets with messages."""
        empty = {key for key in self._counts if not any(bucket in filled for bucket in self.buckets_of(key))}
        forgotten = empty.intersection(self._empty)
        self._counts = Counter({key: count for key, count in self._counts.items() if count and key not in forgotten})
        self._empty = empty
        self.large = {key for key in self.large if self._queues.bucket(key, large=True) in filled}


class DelayCounts:
    """Counts the deliveries in delay queues for each client. `clock` gives epoch seconds.

    Any worker may receive a delivery once it is due. So a delivery counts only until the moment at which it is due at
    the earliest. The counts are kept by that moment, rounded up to a second, or to an eighth of a second for short
    waits. A dictionary for each of 100,000 clients would take four times the memory.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts_by_due: dict[float, dict[ClientKey, int]] = {}

    def add(self, key: ClientKey, due: float, rounding: Rounding) -> None:
        """Count a delivery that is durable in a delay queue. `due` and `rounding` are those of its message."""
        now = self._clock()
        wait = due - now
        if rounding == "down":
            wait *= MIN_EARLY_FACTOR  # the delivery may return this early
        steps_per_second = SHORT_STEPS if wait < SHORT_WAIT_SECONDS else 1
        due = math.ceil((now + wait) * steps_per_second) / steps_per_second
        if due not in self._counts_by_due:
            self._forget_past(now)  # here, since the counts may never be requested
        counts = self._counts_by_due.setdefault(due, {})
        counts[key] = counts.get(key, 0) + 1

    def has_due(self, key: ClientKey, within: float) -> bool:
        """Return True if a delivery of the client is due within `within` seconds at the earliest."""
        first = math.floor(self._clock() * SHORT_STEPS) + 1  # all moments are multiples of a step, so few are looked up
        moments = (step / SHORT_STEPS for step in range(first, first + math.ceil(within * SHORT_STEPS)))
        return any(key in self._counts_by_due.get(due, ()) for due in moments)

    def forget(self, key: ClientKey) -> None:
        """Forget the client's counts, since its deliveries were removed from the delay queues."""
        for counts in self._counts_by_due.values():
            counts.pop(key, None)

    def __iter__(self) -> Iterator[tuple[str, str, int, float]]:
        """Yield (iss, client_id, count, time at which the first is due) of each client that has any."""
        self._forget_past(self._clock())
        totals: dict[ClientKey, tuple[int, float]] = {}
        for due, counts in self._counts_by_due.items():
            for key, count in counts.items():
                total, first_due = totals.get(key, (0, due))
                totals[key] = total + count, min(first_due, due)
        return ((*key, total, first_due) for key, (total, first_due) in totals.items())

    def _forget_past(self, now: float) -> None:
        self._counts_by_due = {due: counts for due, counts in self._counts_by_due.items() if due > now}
