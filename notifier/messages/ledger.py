"""Holds the messages of a worker, counts their unsettled deliveries, and acks each message when all are settled.

A delivery is settled once the client was notified, or its retry, deferral or dead letter is durable. A message is acked
when it has no step left to take and each step taken is settled. A copy may be settled with its original (`Ledger`).
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from notifier.delivery.facts import AlreadyDelivered, EventTaken, Observer
from notifier.messages.message_planner import DeliverySteps, MessagePlanner, Step
from notifier.messages.replacements import Replacement
from notifier.model.delivery import Delivery
from notifier.model.message import PART_OF_HEADER, Kind, Lane, Message, Unsettled
from notifier.model.moment import Clock
from notifier.model.shared_resources import shared_bound
from notifier.queues.queue_port import Acknowledger

MIN_REMEMBERED = shared_bound(25_000)  # deliveries at least, and twice as many at most: 6 MB
MAX_SET_ASIDE_BYTES = shared_bound(32 * 1024 * 1024)  # in bodies of messages that are set aside, beside the prefetch
STUCK_SECONDS = 900.0  # after which a late message is reported again: an attempt ends within 600 s, so it is stuck
LARGE_BYTES = 16 * 1024  # reading so many bytes takes up to 2 ms; an event of a hundred clients has 3,000


@dataclass(slots=True, eq=False)
class HeldMessage:
    """A message that a worker has taken and not acked, and the progress of its steps (deliveries or replacements).

    `arrived`: in epoch seconds. `plan`: None until it is read. `deliveries`: how many its steps contained so far, of
    which `merged_copies` were settled with others. `is_started`: all steps are taken. `is_late`: so at the last call of
    `Ledger.set_aside_late`. `yields_since`: monotonic; `is_for_failing`: the circuit of its client was open then.
    """

    message: Message
    lane: Lane
    arrived: float
    ledger: "Ledger"
    plan: DeliverySteps | Replacement | None = None
    next_step: Step | None = None
    unsettled_steps: int = 0
    steps_taken: int = 0
    deliveries: int = 0
    merged_copies: int = 0
    is_acked: bool = False
    is_started: bool = False
    is_late: bool = False
    is_set_aside: bool = False
    yields_since: float | None = None
    is_for_failing: bool = False

    @property
    def is_large(self) -> bool:
        """True if reading the message takes so long that only one such message is read at a time."""
        return len(self.message.body) > LARGE_BYTES

    @property
    def crashes(self) -> int:
        """How many workers have died while they had the message."""
        return self.message.crashes

    @property
    def event_digest(self) -> str | None:
        """The digest of the event that this message is a part of; None for a whole event and for a delivery."""
        message = self.message
        digest = message.headers.get(PART_OF_HEADER) if message.kind is Kind.EVENT else None
        return digest if isinstance(digest, str) else None

    @property
    def is_in_progress(self) -> bool:
        """True if the message is not read yet, or if its replacements are still being published."""
        return self.plan is None or (isinstance(self.plan, Replacement) and not self.is_acked)

    @property
    def is_event(self) -> bool:
        """True for an event, False for a delivery in a separate message."""
        return isinstance(self.plan, DeliverySteps) and self.plan.event is not None

    def read(self, planner: MessagePlanner) -> None:
        """Read the message, and set `plan` and `next_step`: the first step, or None if there is none."""
        plan = self.plan = planner.plan(self.message)
        self.next_step = plan if isinstance(plan, Replacement) else planner.next_step(self.message, plan.steps)

    def take_step(self, planner: MessagePlanner) -> Step:
        """Return the next step, and set `next_step` to the step after it: None if there is none."""
        step, plan = self.next_step, self.plan
        assert step is not None
        self.steps_taken += 1
        self.next_step = planner.next_step(self.message, plan.steps) if isinstance(plan, DeliverySteps) else None
        return step

    def on_delivery_settled(
        self, delivery: Delivery, *, covers_copies_until: float | None
    ) -> "list[tuple[HeldMessage, Delivery]]":
        """Settle the delivery, and return the copies that must run. See `MessageOfDelivery`."""
        return self.ledger.on_delivery_settled(self, delivery, covers_copies_until=covers_copies_until)

    def to_event_fact(self) -> EventTaken | None:
        """Return the fact that reports the event of an acked message; None if there is none (a single delivery)."""
        if not isinstance(self.plan, DeliverySteps):
            return None if self.plan is None else self.plan.fact
        if (event := self.plan.event) is None:
            return None
        return EventTaken(
            result="duplicate" if 0 < self.deliveries == self.merged_copies else "accepted",
            event_id=event.id, iss=event.iss, publisher=event.publisher, deliveries=self.deliveries,
            dated=event.ended_at is not None, reply_to=event.reply_to, trace=event.trace,
            arrived=self.arrived, source=self.plan.source, copies=self.merged_copies, unread=event.unread,
        )  # fmt: skip


class Ledger:
    """Holds messages, counts their unsettled deliveries, and recognises a copy of a delivery.

    A copy exists if a publisher sends again after a lost confirm, or if a message is redelivered:

    - The delivery is in flight: the copy waits until the delivery is settled.
    - The client was notified: the copy is settled without an attempt.
    - The delivery's retry or deferral is durable and cannot have reached another worker yet: a copy that waited, or a
      copy in an event, is settled without an attempt, for a minute at most. The retry itself is attempted: its
      `stage` differs from that of the delivery.
    - In all other cases the copy is attempted. So one worker notifies no client twice, and an event that is sent again
      after its dead letter gets another attempt.

    Copies are recognised only by ids that a publisher gave. A generated id is new at every reading, since a user may
    sign out twice with one body. The last `remembered` settled deliveries are kept in memory, or up to twice as many:
    in two generations, of which the older is forgotten as a whole. To forget ids one by one takes twice the memory.

    `unsettled_deliveries` counts the deliveries in memory, by lane. `clock` is the wall clock; `monotonic` never jumps.
    """

    def __init__(
        self,
        queue: Acknowledger,
        observe: Observer,
        *,
        clock: Clock, monotonic: Clock, remembered: int = MIN_REMEMBERED,
    ) -> None:  # fmt: skip
        self._queue = queue
        self._observe = observe
        self._clock = clock
        self._monotonic = monotonic
        self._held: dict[Lane, dict[HeldMessage, float]] = {lane: {} for lane in Lane}  # in order of arrival
        self._last_taken: dict[str, float | None] = dict.fromkeys(map(str, Lane))  # by queue
        self._remembered = remembered
        # By the id of a settled delivery: until when copies of it need no attempt. Infinite if it was delivered.
        self._covered_until: dict[str, float] = {}
        self._older_covered_until: dict[str, float] = {}
        self._in_flight: dict[str, list[tuple[HeldMessage, Delivery]]] = {}  # by id: the copies that wait
        self.unsettled_deliveries = dict.fromkeys(Lane, 0)
        self.started_counts = dict.fromkeys(Lane, 0)  # held messages that are started and not set aside
        self.set_aside_counts, self._set_aside_bytes = {False: 0, True: 0}, {False: 0, True: 0}  # by whether they yield

    # ── messages ──

    def take(self, message: Message) -> HeldMessage:
        """Hold a received message until it is acked or released."""
        held = HeldMessage(message=message, lane=message.lane, arrived=self._clock(), ledger=self)
        published = held.arrived if message.timestamp is None else message.timestamp
        self._last_taken[message.queue] = self._held[held.lane][held] = published
        return held

    def held_count(self, lane: Lane) -> int:
        """Return how many messages of the lane are held."""
        return len(self._held[lane])

    def release(self, held: HeldMessage) -> None:
        """Stop holding the message. If it is not acked, the queue redelivers it."""
        if self._held[held.lane].pop(held, None) is None:
            return
        if held.is_set_aside:
            self.set_aside_counts[yields := held.yields_since is not None] -= 1
            self._set_aside_bytes[yields] -= len(held.message.body)
        elif held.is_started:
            self.started_counts[held.lane] -= 1

    def forget_queue(self, lane: Lane, source: str | None = None) -> None:
        """Stop holding the messages of the source's queue, or of the lane's: the queue redelivers all of them."""
        for held in [held for held in self._held[lane] if held.message.source == source]:
            self.release(held)

    def set_aside_late(self, max_counts: Mapping[bool, int]) -> None:
        """Set aside each message that yields, or whose steps were all started before the last call."""
        for held in [held for of_lane in self._held.values() for held in of_lane if not held.is_set_aside]:
            if held.is_late or held.yields_since is not None:
                self.set_aside(held, max_counts)
            held.is_late = held.is_started

    def set_aside(self, held: HeldMessage, max_counts: Mapping[bool, int]) -> None:
        """Make room for another message before its ack, within `max_counts`, and half of the bytes if it yields."""
        counts, sizes, yields = self.set_aside_counts, self._set_aside_bytes, held.yields_since is not None
        if counts[yields] < max_counts[yields] and sizes[True] + sizes[yields] < MAX_SET_ASIDE_BYTES:
            held.is_set_aside = True
            counts[yields] += 1
            sizes[yields] += len(held.message.body)
            self.started_counts[held.lane] -= held.is_started
            self._queue.set_aside(held.message)

    def held_queues(self) -> Collection[tuple[Lane, str | None]]:
        """Return the queues whose messages are held, each as (lane, source)."""
        return {(held.lane, held.message.source) for of_lane in self._held.values() for held in of_lane}

    def ack_if_settled(self, held: HeldMessage) -> None:
        """Ack the message, and report its event, if all its steps are taken and settled."""
        if held.plan is None or held.next_step is not None or held.is_acked:
            return
        if not held.is_started:
            held.is_started = True
            self.started_counts[held.lane] += not held.is_set_aside
        if not held.unsettled_steps:
            held.is_acked = True
            self._queue.ack(held.message)
            self.release(held)
            if (fact := held.to_event_fact()) is not None:
                self._observe(fact)

    def unsettled_by_queue(self) -> dict[str, Unsettled]:
        """Return how many messages of each queue are held, and their publishing times."""
        counts, set_aside, oldest = Counter[str](), Counter[str](), dict[str, float]()
        stuck_since = self._clock() - STUCK_SECONDS
        for held, published in (entry for of_lane in self._held.values() for entry in of_lane.items()):
            counts[held.message.queue] += 1
            set_aside[held.message.queue] += (is_late := held.is_set_aside and held.is_started)
            if not is_late or held.arrived < stuck_since:
                oldest.setdefault(held.message.queue, published)
        return {
            queue: Unsettled(
                messages=counts[queue], set_aside=set_aside[queue], oldest=oldest.get(queue), last_taken=last_taken
            )
            for queue, last_taken in self._last_taken.items()
        }

    # ── deliveries ──

    def on_step_started(self, held: HeldMessage, deliveries: int) -> None:
        """Count a step of this message that begins. `deliveries`: how many deliveries it contains."""
        held.unsettled_steps += 1
        held.deliveries += deliveries
        self.unsettled_deliveries[held.lane] += 1

    def start_delivery(self, held: HeldMessage, delivery: Delivery) -> bool:
        """Count a delivery of this message. Returns True if the caller must run it, False if it is a copy."""
        self.on_step_started(held, 1)
        return self._try_start(held, delivery)

    def _try_start(self, held: HeldMessage, delivery: Delivery) -> bool:
        """Return True if the delivery must run. Otherwise settle it as a copy, now or with the delivery in flight."""
        if not delivery.id_given:
            return True
        until = self._covered_until.get(delivery.id) or self._older_covered_until.get(delivery.id, -math.inf)
        if until < math.inf:  # it was not delivered
            if (copies := self._in_flight.get(delivery.id)) is not None:
                copies.append((held, delivery))
                return False
            if not held.is_event or self._monotonic() >= until:
                self._in_flight[delivery.id] = []
                return True
        if not held.is_event:
            self._observe(AlreadyDelivered(delivery=delivery))
        self._settle_copy(held)
        return False

    def _settle_copy(self, held: HeldMessage) -> None:
        held.merged_copies += 1
        self.on_step_settled(held)

    def on_step_settled(self, held: HeldMessage) -> None:
        """Count a settled step of this message, and ack the message if it was the last."""
        held.unsettled_steps -= 1
        self.unsettled_deliveries[held.lane] -= 1
        self.ack_if_settled(held)

    def on_delivery_settled(
        self, held: HeldMessage, delivery: Delivery, *, covers_copies_until: float | None
    ) -> list[tuple[HeldMessage, Delivery]]:
        """Settle the delivery, and decide about the copies that waited for it. Return those that the caller must run.

        A copy is settled if the client was notified, or if a retry is pending and the copy has the stage that
        `delivery` had when it started; the retry itself has a later stage. Every other copy starts as a new delivery.
        `covers_copies_until`: until then copies in an event need no attempt (monotonic clock); infinite if the client
        was notified, None for a dead letter.
        """
        copies = self._in_flight.pop(delivery.id) if delivery.id_given else []
        if covers_copies_until is None:
            self._covered_until.pop(delivery.id, None)
            self._older_covered_until.pop(delivery.id, None)
        elif delivery.id_given:
            self._covered_until[delivery.id] = covers_copies_until
            if len(self._covered_until) >= self._remembered:
                self._covered_until, self._older_covered_until = {}, self._covered_until
        self.on_step_settled(held)
        to_start = []
        for holder, copy in copies:
            is_same_stage = copy.progress.stage == delivery.progress.stage
            if covers_copies_until == math.inf or (covers_copies_until is not None and is_same_stage):
                self._settle_copy(holder)
            elif self._try_start(holder, copy):
                to_start.append((holder, copy))
        return to_start
