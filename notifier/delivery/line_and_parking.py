"""Stores how the deliveries of one client wait: in memory (`Line`), as its probe, or parked (`Parking`). Pure.

While the circuit is closed or untried, a delivery waits in the line for a slot. If its slot is too far away for that,
it is deferred until its slot, which follows from the deliveries deferred before and the client's pace; and if that is
far away, too, it is admitted again earlier: after as long as it is old, 1 to 64 s, or after 1,024 s where a registered
rate determines the slots.

If the circuit is open or the client requested a pause, a delivery becomes the *probe*: it waits in a delay queue until
the circuit is half-open or the pause is over, and is the next attempt. While a probe of this worker cannot have
returned yet (`probe_out_until`), other deliveries are *parked* in the bucket. So a worker that parks has a probe in a
delay queue.
"""

import asyncio
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from notifier.delivery.circuit import MIN_OPEN_SECONDS
from notifier.delivery.verdict import Defer, Standing, WaitKind
from notifier.model.backoff import one_hop
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.message import Lane
from notifier.model.outcome import Cause

ROUNDING_SECONDS = 0.1  # by which the moments of one probe by two clocks may differ
BUSY_PROBE_SECONDS = 2.0  # until a probe that found no free slot, or another attempt under way, is tried again
LANES = tuple(Lane)  # in their order; iterating over an Enum runs a Python function for each member


@dataclass(slots=True, kw_only=True, eq=False)
class AdmittedDelivery:
    """A delivery that has a slot, or waits in memory for one, with its client as registered at its admission.

    `fetched`: this worker fetched the delivery from a bucket. `wake_future`: the delivery's task waits for it. `wake`
    sets the result: a deferral, or None to continue. `posted_at`: when the request was sent, by the monotonic clock.
    `opened_circuit`: the failure of this attempt opened the circuit. `task` runs the delivery.
    """

    delivery: Delivery
    client: Client
    lane: Lane
    fetched: bool = False
    is_waiting: bool = False
    wake_future: "asyncio.Future[Defer | None] | None" = None
    posted_at: float = math.inf
    opened_circuit: bool = False
    task: "asyncio.Task[None] | None" = None
    is_ended_early: bool = False

    def wake(self, defer: Defer | None = None) -> None:
        """Let the waiting task continue, with the deferral if there is one. Has no effect on a cancelled task."""
        if self.wake_future is not None and not self.wake_future.done():
            self.wake_future.set_result(defer)

    def end_early(self) -> None:
        """End the request, which must be under way, as if its timeout had passed."""
        if self.task is not None and not self.is_ended_early:
            self.is_ended_early = True
            self.task.cancel()

    def take_early_end(self) -> bool:
        """Return True if the cancellation that ended the request came from `end_early`, and undo it."""
        return self.is_ended_early and self.task is not None and self.task.uncancel() == 0

    def on_circuit_opened(self) -> None:
        """Note that the failure of this attempt opened the client's circuit."""
        self.opened_circuit = True


@dataclass(slots=True, eq=False)
class Line:
    """The deliveries of one client that wait in memory for a slot, and the latest slot of those that are deferred.

    The oldest delivery of the highest lane starts next. `fetched_count`: how many of the `count` came from the bucket.
    """

    by_lane: dict[Lane, deque[AdmittedDelivery]] | None = None  # None without any
    count: int = 0
    fetched_count: int = 0
    last_slot_at: float = -math.inf

    def push(self, admitted: AdmittedDelivery) -> None:
        """Keep the delivery in memory."""
        self.by_lane = self.by_lane or {}
        self.by_lane.setdefault(admitted.lane, deque()).append(admitted)
        self.count += 1
        self.fetched_count += admitted.fetched

    @property
    def first(self) -> AdmittedDelivery:
        """The next delivery to start. Raises IndexError if none waits."""
        return self._first_lane(LANES)[0]

    def pop(self, *, newest: bool = False) -> AdmittedDelivery:
        """Remove and return the oldest delivery of the highest lane, or with `newest` the newest of the lowest lane."""
        admitted = self._first_lane(LANES[::-1]).pop() if newest else self._first_lane(LANES).popleft()
        self.count -= 1
        self.fetched_count -= admitted.fetched
        if not self.count:
            self.by_lane = None  # an emptied dictionary takes 700 bytes for each of 100,000 clients
        return admitted

    def _first_lane(self, lanes: Iterable[Lane]) -> deque[AdmittedDelivery]:
        """Return the deliveries in memory of the first lane that has any. Raises IndexError if none waits."""
        for lane in lanes:
            if waiting := (self.by_lane or {}).get(lane):
                return waiting
        raise IndexError("no delivery waits in memory")

    def next_slot(self, now: float, interval: float, gap: float, latest: float) -> float | None:
        """Return the next slot, `gap` seconds after the last one; None if that is later than `latest`.

        The deliveries in memory have their slots first, one every `interval` seconds.
        """
        slot_at = max(self.last_slot_at, now + (self.count + 1) * interval) + gap
        return None if slot_at > latest else slot_at

    def on_slot_reserved(self, slot_at: float) -> None:
        """Record that a delivery waits for this slot, so that the next slot is later."""
        self.last_slot_at = slot_at

    def on_recovered(self) -> None:
        """Forget the slots that were reserved before the outage."""
        self.last_slot_at = -math.inf


@dataclass(slots=True)
class ProbeRotation:
    """Makes a parked delivery the probe instead of the former probe, which has failed often.

    Both are probes until the next probe is durable in a delay queue and the former probe fails again. If another worker
    has parked the next probe meanwhile, none is left for a moment: a fetch, which follows at once, returns one.
    `former_id` and `next_id`: the ids of both deliveries; `next_id` is None before the fetch.
    """

    former_id: str
    next_id: str | None = None
    is_durable: bool = False

    def on_probe_sent(self, delivery_id: str) -> None:
        """Record that a probe was sent. The first is the next probe."""
        if self.next_id is None:
            self.next_id = delivery_id

    def on_probe_durable(self, delivery_id: str) -> None:
        """Record that a probe is durable in a delay queue."""
        if delivery_id == self.next_id:
            self.is_durable = True


@dataclass(slots=True, eq=False)
class Parking:
    """The requested pause, the probe and the bucket of one client. Moments are seconds of the monotonic clock.

    `paused_until`: the end of the pause that the client requested. `parked`: deliveries may be in the client's bucket.
    `is_fetching`: this worker is fetching from that bucket. `probe_out_until`: until then a probe that this worker sent
    cannot have returned from its delay queue. `probe_wall_offset`: the wall clock minus the monotonic clock when that
    probe was sent (a suspension changes it). `rotation`: the replacement of the probe that is under way; None without
    one. `recovered_at`: when the circuit closed; None once all deliveries parked before are fetched.
    """

    paused_until: float = -math.inf
    parked: bool = False
    is_fetching: bool = False
    probe_out_until: float = -math.inf
    probe_wall_offset: float = 0.0
    rotation: ProbeRotation | None = None
    recovered_at: float | None = None

    # ── a requested pause, and the circuit ──

    def is_paused(self, now: float) -> bool:
        """Return True during the pause that the client requested (`Retry-After`)."""
        return now < self.paused_until

    def on_pause(self, until: float) -> None:
        """Extend the pause to the moment that the client requested (`Retry-After`)."""
        self.paused_until = max(self.paused_until, until)

    def on_recorded_pause(self, until: float) -> None:
        """Adopt the pause that a delivery records, unless this worker knows of one."""
        if self.paused_until == -math.inf:
            self.paused_until = until

    def on_recovered(self, now: float) -> None:
        """Record that the circuit closed, and end a rotation."""
        self.recovered_at, self.rotation = now, None

    def on_opened(self) -> None:
        """Record that the circuit opened."""
        self.recovered_at = None

    def on_operator_probe(self, now: float, *, force: bool) -> bool:
        """Let the next delivery be the probe. Return False during a requested pause, which `force` ends."""
        if force:
            self.paused_until = now
        if self.is_paused(now):
            return False
        self.probe_out_until, self.parked = -math.inf, True
        return True

    # ── the probe, and how a delivery waits ──

    def unavailable_standing(self, probe_at: float, now: float, wall_offset: float, *, as_probe: bool) -> Standing:
        """Return that a delivery waits until the client may be called, as the probe or parked.

        `probe_at`: when the circuit becomes half-open.
        """
        paused = self.is_paused(now)
        available_at, cause = (self.paused_until, Cause.RETRY_AFTER) if paused else (probe_at, Cause.CIRCUIT)
        if not as_probe:
            due = available_at + wall_offset
            return Standing(is_available=False, wait_kind=WaitKind.PARKED, cause=cause, due=due)
        wait = max(MIN_OPEN_SECONDS, available_at - now) if available_at > now else BUSY_PROBE_SECONDS
        if not paused:  # a single delay queue is exact; several may return the probe a second early
            # Rounded up, the next probe of a rotation does not return before the circuit is half-open.
            wait = one_hop(wait, "up" if self.wants_probe else "down")
        due = now + wait + wall_offset
        return Standing(is_available=False, wait_kind=WaitKind.PROBE, cause=cause, due=due)

    def is_only_probe(self, delivery: Delivery) -> bool:
        """Return True if the delivery is a probe of the client, and this worker has sent no later one."""
        last_probe_at = self.probe_out_until + self.probe_wall_offset - ROUNDING_SECONDS
        return delivery.progress.probe_due is not None and delivery.progress.probe_due > last_probe_at

    def has_probe_out(self, now: float) -> bool:
        """Return True while a probe that this worker sent must still be in its delay queue."""
        return now < self.probe_out_until

    def on_probe_sent(self, delivery_id: str, due_at: float, wall_offset: float) -> None:
        """Record that a probe was sent that cannot return before `due_at`. `wall_offset`: see `probe_wall_offset`."""
        if self.rotation is not None:
            self.rotation.on_probe_sent(delivery_id)
        if due_at > self.probe_out_until:
            self.probe_out_until, self.probe_wall_offset = due_at, wall_offset

    def on_probe_lost(self) -> None:
        """Record that the probe ended without an attempt, so that another probe is needed."""
        self.parked, self.probe_out_until = True, -math.inf

    # ── the rotation of the probe ──

    @property
    def wants_probe(self) -> bool:
        """True while the next delivery that is fetched becomes the next probe of a rotation."""
        return self.rotation is not None and self.rotation.next_id is None

    def is_replaced(self, delivery_id: str) -> bool:
        """Return True if the delivery is a former probe, and the next probe is durable."""
        return self.rotation is not None and self.rotation.is_durable and self.rotation.former_id == delivery_id

    def on_rotation(self, former_id: str) -> None:
        """Begin a rotation of this probe."""
        self.rotation = ProbeRotation(former_id)

    def on_probe_durable(self, delivery_id: str) -> None:
        """Record that a probe is durable in a delay queue."""
        if self.rotation is not None:
            self.rotation.on_probe_durable(delivery_id)

    def on_former_probe(self, delivery_id: str) -> None:
        """End the rotation if this delivery is its former probe, about which the worker has decided again."""
        if self.rotation is not None and self.rotation.former_id == delivery_id:
            self.rotation = None

    # ── the bucket ──

    def on_parked(self) -> None:
        """Record that a delivery may be parked for the client."""
        self.parked = True

    def on_fetch(self, *, is_fetching: bool) -> None:
        """Record whether this worker is fetching from the bucket. A rotation ends if the fetch found no next probe."""
        self.is_fetching = is_fetching
        if not is_fetching and self.wants_probe:
            self.rotation = None

    def on_bucket_empty(self, now: float) -> float | None:
        """Record that the bucket is empty. Return the seconds since the recovery; None if that was returned before."""
        self.parked, recovered, self.recovered_at = False, self.recovered_at, None
        return None if recovered is None else now - recovered
