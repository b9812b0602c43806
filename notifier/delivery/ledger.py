"""Holds the messages of a worker, counts their unsettled deliveries, and acks each message when all are settled.

A delivery is settled once it was made, or its retry, deferral or dead letter is durable. A message is acked when it has
no delivery left to start and each started delivery is settled. A copy of a delivery is entered too; it may be settled
together with the original (see `Ledger`).
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

from notifier.delivery.facts import AlreadyDelivered, EventTaken, Observer
from notifier.delivery.intake import Expand, Intake, Step
from notifier.delivery.replacements import Move
from notifier.model.backoff import deferral_wait
from notifier.model.delivery import Delivery
from notifier.model.message import PART_OF_HEADER, Kind, Lane, Message, Unsettled
from notifier.model.moment import Clock
from notifier.queues.queue_port import Acknowledger

MIN_REMEMBERED = 25_000  # deliveries at least, and twice as many at most: 6 MB
MAX_COVERAGE_SECONDS = 60.0  # for which a retry stands for its delivery at most
LARGE_BYTES = 16 * 1024  # bytes, of which the worst take 2 ms to read; events of a hundred clients have 3,000


@dataclass(slots=True, eq=False)
class HeldMessage:
    """A message that was taken and is not acked yet.

    `lane`: which it was taken from. `open` counts its unsettled steps, `steps_given` the steps taken so far, `total`
    its deliveries, `joined` the deliveries settled together with a copy.
    """

    message: Message
    lane: Lane
    arrived: float
    work: Expand | Move | None = None
    next_step: Step | None = None
    open: int = 0
    steps_given: int = 0
    total: int = 0
    joined: int = 0
    closed: bool = False

    @property
    def is_large(self) -> bool:
        """True if reading it takes so long that it is read alone."""
        return len(self.message.body) > LARGE_BYTES

    @property
    def event_digest(self) -> str | None:
        """Return the digest of the event of which it is a part; None for a whole event and for a delivery."""
        message = self.message
        digest = message.headers.get(PART_OF_HEADER) if message.kind is Kind.EVENT else None
        return digest if isinstance(digest, str) else None

    @property
    def is_in_progress(self) -> bool:
        """True if it is not read yet, or if the messages that take its place are still being made."""
        return self.work is None or (isinstance(self.work, Move) and not self.closed)

    @property
    def of_event(self) -> bool:
        """True for an event, False for a delivery in a separate message."""
        return isinstance(self.work, Expand) and self.work.event is not None

    def read(self, intake: Intake) -> None:
        """Read the message. Then `next_step` is its first step; None if there is nothing to do."""
        self.work = intake.open(self.message)
        self.next_step = self.work if isinstance(self.work, Move) else intake.step(self.message, self.work.steps)

    def take_step(self, intake: Intake) -> Step:
        """Return the next step. Afterwards `next_step` is None if that was the last one."""
        step = self.next_step
        assert step is not None
        self.steps_given += 1
        self.next_step = intake.step(self.message, self.work.steps) if isinstance(self.work, Expand) else None
        return step

    def end(self) -> EventTaken | None:
        """Return the fact for observers once it is done: the result of an event, None for a single delivery."""
        if not isinstance(self.work, Expand):
            return None if self.work is None else self.work.fact
        event = self.work.event
        if event is None:
            return None
        return EventTaken(
            result="duplicate" if 0 < self.total == self.joined else "accepted",
            event_id=event.id, iss=event.iss, publisher=event.publisher, deliveries=self.total,
            dated=event.ended_at is not None, reply_to=event.reply_to, trace=event.trace,
            arrived=self.arrived, source=self.work.source, copies=self.joined, unread=event.unread,
        )  # fmt: skip


def coverage_seconds(wait: float, *, alone: bool = False) -> float:
    """Return for how many seconds a retry due after `wait` covers copies of its delivery: at most its first delay.

    `alone`: no other worker can take the retry, so it covers copies for a minute.
    """
    return MAX_COVERAGE_SECONDS if alone else min(MAX_COVERAGE_SECONDS, deferral_wait(wait))


class Ledger:
    """Holds messages, counts their unsettled deliveries, and recognises a copy of a delivery.

    A copy exists if a publisher sends again after a lost confirm, or if a message is redelivered:

    - The delivery is in flight: the copy waits until it ends.
    - The client was notified: the copy is done.
    - This worker deferred the delivery, and the retry is durable and cannot have come back to another worker yet: the
      retry stands for a copy that waited, and for a minute at most for a copy in an event. The retry itself has another
      stage, and is attempted.
    - In all other cases the copy is attempted. So one worker notifies no client twice, and an event that is sent again
      after its dead letter gets another attempt.

    Only ids that a publisher gave mark a copy. A made-up id is new at every reading, since a user may sign out twice
    with one body. At least `remembered` settled deliveries are kept, in memory only, and twice as many at most: in two
    generations, of which the older is forgotten as a whole. To forget ids one by one takes twice the memory.

    `without_fate` counts the deliveries in memory, by lane. `clock` is the wall clock; `steady` never jumps.
    """

    def __init__(
        self, queue: Acknowledger, observe: Observer, *, clock: Clock, steady: Clock, remembered: int = MIN_REMEMBERED
    ) -> None:
        self._queue = queue
        self._observe = observe
        self._clock = clock
        self._steady = steady
        self._held: dict[Lane, dict[HeldMessage, float]] = {lane: {} for lane in Lane}  # in order of arrival
        self._last_taken: dict[str, float | None] = dict.fromkeys(map(str, Lane))  # by queue
        self._remembered = remembered
        self._newest: dict[str, float] = {}  # until when its retry stands for it, by id; infinite if it was delivered
        self._older: dict[str, float] = {}
        self._in_flight: dict[str, list[tuple[HeldMessage, Delivery]]] = {}  # the copies that wait, by id
        self.without_fate = dict.fromkeys(Lane, 0)

    # ── messages ──

    def take(self, message: Message) -> HeldMessage:
        """Hold a received message."""
        held = HeldMessage(message=message, lane=message.lane, arrived=self._clock())
        published = held.arrived if message.timestamp is None else message.timestamp
        self._last_taken[message.queue] = self._held[held.lane][held] = published
        return held

    def messages_held(self, lane: Lane) -> int:
        """Return how many messages of the lane are held."""
        return len(self._held[lane])

    def release(self, held: HeldMessage) -> None:
        """Stop holding the message, without an ack. An unacked message is redelivered by the queue."""
        self._held[held.lane].pop(held, None)

    def forget_queue(self, lane: Lane, source: str | None = None) -> None:
        """Stop holding the messages of the source's queue, or of the lane's: the queue redelivers all of them."""
        self._held[lane] = {held: at for held, at in self._held[lane].items() if held.message.source != source}

    def origins(self) -> Collection[tuple[Lane, str | None]]:
        """Return the queues whose messages are held, each by its lane and its source."""
        return {(held.lane, held.message.source) for of_lane in self._held.values() for held in of_lane}

    def close(self, held: HeldMessage) -> None:
        """Ack the message if nothing of it is left to start and all its deliveries are settled."""
        if not held.open and held.work is not None and held.next_step is None and not held.closed:
            held.closed = True
            self._queue.ack(held.message)
            self.release(held)
            if (fact := held.end()) is not None:
                self._observe(fact)

    def unsettled(self) -> dict[str, Unsettled]:
        """Return how many messages of each queue are held, and how old they are."""
        published_of: dict[str, list[float]] = {queue: [] for queue in self._last_taken}
        for of_lane in self._held.values():
            for held, published in of_lane.items():
                published_of[held.message.queue].append(published)
        return {
            queue: Unsettled(
                messages=len(published), oldest=next(iter(published), None), last_taken=self._last_taken[queue]
            )
            for queue, published in published_of.items()
        }

    # ── deliveries ──

    def open(self, held: HeldMessage, deliveries: int) -> None:
        """Note that a part of this message is started, with so many deliveries."""
        held.open += 1
        held.total += deliveries
        self.without_fate[held.lane] += 1

    def open_delivery(self, held: HeldMessage, delivery: Delivery) -> bool:
        """Note a delivery. Returns True if it is to be started now, False if it is a copy."""
        self.open(held, 1)
        return self._try_start(held, delivery)

    def _try_start(self, held: HeldMessage, delivery: Delivery) -> bool:
        if not delivery.id_given:
            return True
        until = self._newest.get(delivery.id) or self._older.get(delivery.id, -math.inf)
        if until < math.inf:
            if (copies := self._in_flight.get(delivery.id)) is not None:
                copies.append((held, delivery))
                return False
            if not held.of_event or self._steady() >= until:
                self._in_flight[delivery.id] = []
                return True
        if not held.of_event:
            self._observe(AlreadyDelivered(delivery=delivery))
        self._join(held)
        return False

    def _join(self, held: HeldMessage) -> None:
        held.joined += 1
        self.settle(held)

    def settle(self, held: HeldMessage) -> None:
        """Note that a part of this message is settled."""
        held.open -= 1
        self.without_fate[held.lane] -= 1
        self.close(held)

    def settle_delivery(
        self, held: HeldMessage, begun: Delivery, *, covers_copies_until: float | None
    ) -> list[tuple[HeldMessage, Delivery]]:
        """Note that the delivery, as it was started, is settled. Returns the copies to start now.

        `covers_copies_until`: when its retry stops covering copies; infinite if delivered, None if given up.
        """
        copies = self._in_flight.pop(begun.id) if begun.id_given else []
        if covers_copies_until is None:
            self._newest.pop(begun.id, None)
            self._older.pop(begun.id, None)
        elif begun.id_given:
            self._newest[begun.id] = covers_copies_until
            if len(self._newest) >= self._remembered:
                self._newest, self._older = {}, self._newest
        self.settle(held)
        begun_again = []
        for holder, copy in copies:
            if covers_copies_until == math.inf or (covers_copies_until is not None and copy.stage == begun.stage):
                self._join(holder)
            elif self._try_start(holder, copy):
                begun_again.append((holder, copy))
        return begun_again
