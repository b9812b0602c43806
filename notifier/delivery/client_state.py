"""Holds the state of one client at a worker, and decides whether a delivery for the client starts. Pure.

A state has four parts: `Circuit` (is the client likely to answer?), `AttemptRate` (how many attempts a second?), `Line`
(which deliveries wait in memory?) and `Parking` (how do deliveries wait while the client is unavailable?). Each event
has one method; no other module writes a member. A *fetched* delivery comes from the client's bucket.
"""

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from notifier.delivery.circuit import MIN_OPEN_SECONDS, SHORT_OUTAGE_SECONDS, Circuit, CircuitChange, State
from notifier.delivery.line_and_parking import AdmittedDelivery, Line, Parking
from notifier.delivery.ports import ClientReport
from notifier.delivery.rate import AttemptRate, registered_interval
from notifier.delivery.slots import PROBE_RESERVE, SlotPool, Slots
from notifier.delivery.verdict import Standing, WaitKind
from notifier.model.client import Client, ClientKey
from notifier.model.delivery import Delivery
from notifier.model.message import Lane
from notifier.model.outcome import Cause, Signal
from notifier.model.record import copy_record

FRESH_PROBE_SECONDS = 4.0  # after the last attempt, until a fresh delivery may probe an open circuit
CROWDED_SHARE = 0.5  # the used share of memory above which no bucket is fetched from
MIN_DEFERRAL_SECONDS, MAX_DEFERRAL_SECONDS = 1.0, 64.0  # the limits of one deferral …
MAX_RATED_DEFERRAL_SECONDS = 1024.0  # … or this, if a registered rate determines the slots
MIN_AHEAD_SECONDS = 0.01  # the duration of a fetch from which deliveries are fetched ahead: their wait costs 8 % CPU
MAX_FETCHED_AHEAD = 192  # deliveries fetched before the client has a slot for them
ATTEMPT_WEIGHT = 0.2  # the weight of the newest attempt in the mean
SLOW_SECONDS = 1.0  # a client is slow if its attempts take longer, or if it is silent for longer
SILENCE_SECONDS, SILENCE_FACTOR = 0.1, 4.0  # a shorter silence, or one below 4 × the mean duration, is usual

RunningAttempts: TypeAlias = dict[AdmittedDelivery, SlotPool]
NO_ATTEMPTS: RunningAttempts = {}  # shared and never filled: a dictionary for each client takes 64 to 224 bytes

Admission = Enum("Admission", ("START", "WAIT"))  # start now, or wait in memory for a slot


@dataclass(slots=True, eq=False, kw_only=True)
class ClientState:
    """The state of one client at this worker. Moments are seconds of the monotonic clock.

    `limit`: this worker's share of the registered `max_concurrent`. `concurrency`: the limit in force, which grows by
    one with each success and is halved when the circuit opens. `running`: the attempts, each with the pool of its slot.
    """

    key: ClientKey
    seen_at: float
    limit: int = 1
    concurrency: int = 1
    circuit: Circuit = field(default_factory=Circuit)
    rate: AttemptRate = field(default_factory=AttemptRate)
    line: Line = field(default_factory=Line)
    parking: Parking = field(default_factory=Parking)
    pool: SlotPool = SlotPool.QUICK
    running: RunningAttempts = field(default_factory=lambda: NO_ATTEMPTS)
    attempt_seconds: float = 0.0  # mean duration of an attempt
    ended_at: float = -math.inf  # when an attempt last ended

    # ── state ──

    def is_available(self, now: float) -> bool:
        """Return True unless the circuit is open or half-open, or the client requested a pause."""
        return self.circuit.state is not State.OPEN and now >= self.parking.paused_until

    def is_healthy(self, now: float) -> bool:
        """Return True if the circuit is closed and the client requested no pause."""
        return self.circuit.state is State.CLOSED and now >= self.parking.paused_until

    @property
    def available_at(self) -> float:
        """The moment when the next probe is due and the requested pause is over."""
        return max(self.circuit.probe_at, self.parking.paused_until)

    def on_registration(self, client: Client, worker_count: int, now: float) -> None:
        """Adopt this worker's share of the client's registered limits.

        If the limit rises, the concurrency becomes what the successes would have made it with this limit.
        """
        limit, interval = max(1, client.max_concurrent // worker_count), registered_interval(client, worker_count)
        if self.limit != limit or self.rate.registered_interval != interval:
            earned = self.rate.successes_in_a_row if limit > self.limit == self.concurrency else 1
            self.limit, self.concurrency = limit, min(max(self.concurrency, earned), limit)
            self.rate.on_registration(interval, now)

    def on_worker_count(self, worker_count: int, now: float) -> None:
        """Adopt this worker's share of the limits of a client with deliveries in memory."""
        admitted = self.line.first if self.line.count else next(iter(self.running))
        self.on_registration(admitted.client, worker_count, now)

    def on_seen(self, now: float) -> None:
        """Record that the client is in use, so that it is not forgotten."""
        self.seen_at = now

    @property
    def is_idle(self) -> bool:
        """True if no delivery of the client is in memory or being fetched."""
        return not self.running and not self.line.count and not self.parking.is_fetching

    # ── a delivery that is to be attempted ──

    def admit(
        self, delivery: Delivery, client: Client, lane: Lane, slots: Slots, now: float, *, fetched: bool
    ) -> Admission | Standing:
        """Return that the delivery starts or waits in memory, or how it is deferred. `fetched`: from its bucket."""
        self.seen_at, progress = now, delivery.progress
        if progress.probe_due is not None:
            self.parking.on_parked()  # other workers may have parked while this probe was in its delay queue
        if progress.delayed_until is not None and self.circuit.state is State.UNTRIED:
            # This worker has no evidence about the client, so it adopts the pause that the delivery records.
            until = min(progress.delayed_until - slots.wall_offset(), now + client.retry.max_delay)
            self.parking.on_recorded_pause(until)
        if not self.line.count and self.can_start(delivery, lane, slots, now):
            return Admission.START
        if self._can_wait(delivery, slots, now, fetched=fetched):
            return Admission.WAIT
        return self.standing(delivery, slots, now, fetched=fetched)

    def without_outage(self, delivery: Delivery, slots: Slots) -> Delivery:
        """Return the delivery; if it failed during the last outage, without the effect of that on its backoff."""
        charged_at = delivery.progress.charged_at
        if charged_at is None or not self.circuit.was_open_at(charged_at - slots.wall_offset()):
            return delivery
        return copy_record(delivery, progress=delivery.progress.after_outage())

    def can_start(self, delivery: Delivery, lane: Lane, slots: Slots, now: float) -> bool:
        """Return True if the client's limits, the circuit and the free slots allow an attempt of this delivery now.

        If only a slot is missing, that is recorded: attempts that hang may end for it.
        """
        running, state = len(self.running), self.circuit.state
        max_running = self.concurrency if state is State.CLOSED else 1
        if running >= max_running or now < self.parking.paused_until or self.rate.tokens(now, self.limit) < 1:
            return False
        pool, reserved = self.pool, 0
        if state is State.OPEN:  # or half-open
            if not self._can_probe(delivery, slots, now):
                return False
            pool, reserved = SlotPool.PROBE, PROBE_RESERVE if self.attempt_seconds > SLOW_SECONDS else 0
        # A client takes a slot only while more slots are free than it uses: so one client leaves half of them.
        if running < slots.free_slots(pool, lane, circuit_closed=state is State.CLOSED) - reserved:
            return True
        if state is not State.CLOSED:
            slots.on_refused(pool)
        return False

    def _can_probe(self, delivery: Delivery, slots: Slots, now: float) -> bool:
        """Return True if the delivery may be attempted now although the circuit is open or half-open.

        The probe may once the circuit is half-open, another delivery a second later. A fresh delivery may earlier, if
        slots for probes are to spare: 4 s after the last attempt, or a second for each worker if that is longer.
        Except for the probe, a second has passed since the last attempt in any case.
        """
        if delivery.progress.probe_due is not None:
            return now >= self.circuit.probe_at
        due_at = self.circuit.probe_at + MIN_OPEN_SECONDS
        is_fresh = delivery.progress.first_taken_at is None
        if is_fresh and slots.has_spare_probe_slots():
            due_at = min(due_at, self.ended_at + max(FRESH_PROBE_SECONDS, MIN_OPEN_SECONDS * slots.worker_count()))
        return now >= max(due_at, self.ended_at + MIN_OPEN_SECONDS)

    def _can_wait(self, delivery: Delivery, slots: Slots, now: float, *, fetched: bool) -> bool:
        """Return True if the delivery's slot is soon enough for it to wait in memory."""
        if not self.is_available(now):
            return False
        max_wait, slot_at = slots.max_wait_seconds(), delivery.progress.slot_at
        if self._needs_first_attempt(now + max_wait):
            return not self.line.count and slots.used_share() < CROWDED_SHARE
        if fetched and self.circuit.state is State.UNTRIED:
            return False  # it can be fetched again after the first attempt
        has_slot = slot_at is not None and slot_at - slots.wall_offset() <= now + max_wait
        if fetched or has_slot:
            max_wait *= 2  # it has waited before
        return (self.line.count + 1) * self.attempt_interval(slots, now) <= max_wait

    def _needs_first_attempt(self, moment: float) -> bool:
        """Return True if the client is untried, has no attempt under way, and its rate allows one at this moment."""
        return self.circuit.state is State.UNTRIED and not self.running and self.rate.tokens(moment, 1) >= 1

    def must_defer(self, slots: Slots, now: float, max_wait: float) -> bool:
        """Return True if the newest delivery in memory has no slot within `max_wait` seconds."""
        if not self.line.count:
            return False
        if not self.is_available(now):
            return True
        exempt_count = 1 if self._needs_first_attempt(now + max_wait) else 0  # it waits for the first attempt
        wait_seconds = self.line.count * self.attempt_interval(slots, now)
        return self.line.count > exempt_count and wait_seconds > max_wait

    def standing(self, delivery: Delivery, slots: Slots, now: float, *, fetched: bool = False) -> Standing:
        """Return how the client stands and how the delivery waits for it."""
        if not self.is_available(now):
            # The only probe stays the probe, even if an operator or a reload returned it early.
            stays_or_becomes_next = self.parking.is_only_probe(delivery) or (fetched and self.parking.wants_probe)
            as_probe = stays_or_becomes_next or not self.parking.has_probe_out(now)
            offset = slots.wall_offset()
            return self.parking.unavailable_standing(self.circuit.probe_at, now, offset, as_probe=as_probe)
        if self.circuit.state is State.UNTRIED and fetched and (self.running or self.line.count):
            # Park it again: after the first attempt, the bucket is fetched from.
            return Standing(wait_kind=WaitKind.PARKED, due=now + MIN_OPEN_SECONDS + slots.wall_offset())
        return self._standing_until_slot(delivery, slots, now, fetched=fetched)

    def _standing_until_slot(self, delivery: Delivery, slots: Slots, now: float, *, fetched: bool) -> Standing:
        """Return that the delivery waits until its slot, or until `latest` if its slot is later; then it is admitted.

        Slots of fetched deliveries follow one another faster, at the rate of all workers, since any worker may receive
        them after their deferral.
        """
        offset, slot_at = slots.wall_offset(), delivery.progress.slot_at
        is_rate_registered = self.rate.registered_interval >= self.rate.spacing  # otherwise overload limits the rate
        cause = Cause.RATE if is_rate_registered and self.rate.tokens(now, self.limit) < 1 else Cause.SLOT
        age = 0.0 if delivery.progress.first_taken_at is None else now + offset - delivery.progress.first_taken_at
        is_steady, interval = self.rate.is_steady(now), self.attempt_interval(slots, now)
        if slots_are_fixed := is_steady and interval == self.rate.registered_interval:
            latest = now + MAX_RATED_DEFERRAL_SECONDS
        elif is_steady and self.concurrency >= self.limit:
            latest = now + MAX_DEFERRAL_SECONDS
        else:  # the rate may rise soon
            latest = now + min(MAX_DEFERRAL_SECONDS, max(MIN_DEFERRAL_SECONDS, age))
        if slot_at is None or slot_at - offset <= now or (age < 0 and slot_at - offset > latest):  # < 0: clock set back
            gap = interval / slots.worker_count() if fetched else interval
            next_at = self.line.next_slot(now, interval, gap, math.inf if slots_are_fixed else latest)
            slot_at = None if next_at is None else next_at + offset
        return Standing(
            is_limited=self.rate.spacing > 0, succeeded_at=self.circuit.succeeded_at + offset,
            cause=cause, due=min(latest + offset, slot_at or math.inf), slot_at=slot_at,
        )  # fmt: skip

    def fetchable_count(self, slots: Slots, now: float, batch_seconds: float) -> int:
        """Return how many parked deliveries of the client may be fetched now. Call it only if the circuit is closed.

        If a fetch takes long (`batch_seconds`), these are also the deliveries that start before the next one arrives.
        """
        running, free = len(self.running), slots.free_slots(self.pool, Lane.RETRIES, circuit_closed=True)
        # `can_start` starts another attempt while fewer run than slots are free: so many, one after the other.
        count = min(self.concurrency - running, (free - running + 1) // 2, self.rate.tokens(now, self.limit))
        count -= self.line.count
        if batch_seconds > MIN_AHEAD_SECONDS:
            seconds = min(2 * batch_seconds, slots.max_wait_seconds())  # a longer wait would defer them
            count += int(min(MAX_FETCHED_AHEAD, seconds / max(1e-6, self.attempt_interval(slots, now))))
        if count <= 0 and self.line.count and not self.line.fetched_count:
            # Other deliveries use up the client's rate: one fetched delivery may wait among them.
            wait_seconds = (self.line.count + 1) * self.attempt_interval(slots, now)
            return 1 if wait_seconds <= 2 * slots.max_wait_seconds() else 0
        return max(0, count)

    # ── attempts, and reports of peers ──

    def on_started(self, admitted: AdmittedDelivery, pool: SlotPool, now: float) -> None:
        """Record an attempt that starts in a slot of this pool."""
        if self.rate.registered_interval or self.rate.spacing:
            self.rate.on_started(now)
        if self.running:
            self.running[admitted] = pool
        else:
            self.running = {admitted: pool}

    def on_attempt_ended(self, admitted: AdmittedDelivery) -> SlotPool:
        """Remove the attempt, and return the pool of the slot that it used."""
        pool = self.running.pop(admitted)
        if not self.running:
            self.running = NO_ATTEMPTS
        return pool

    def on_result(
        self, signal: Signal, attempt_seconds: float, now: float, *, is_repeat: bool, min_open_seconds: float
    ) -> CircuitChange | None:
        """Update mean duration, circuit, concurrency and rate by an ended attempt. See `Circuit.on_failure`."""
        self.ended_at = self.seen_at = now
        if signal is Signal.NONE:
            self.circuit.on_internal_fault(now)
            return None
        mean = self.attempt_seconds or attempt_seconds
        self.attempt_seconds = mean + ATTEMPT_WEIGHT * (attempt_seconds - mean)
        change = None
        failed, concurrency = signal is not Signal.RESPONSIVE, self.concurrency
        if not failed:
            change = self.circuit.on_success(now, is_repeat=is_repeat)
            self.concurrency = min(self.limit, concurrency + 1)
            if change is not None:
                self._on_recovered(now)  # before `rate.on_result`, since it may restart the sample
        if attempt_seconds <= SLOW_SECONDS:
            throttled = signal is Signal.RATE_LIMITED
            self.rate.on_result(now, failed=failed, throttled=throttled, concurrency=concurrency)
        if failed:
            change = self.circuit.on_failure(
                attempt_seconds, now, is_repeat=is_repeat, min_open_seconds=min_open_seconds
            )
            if change is not None:
                self._on_opened()
        return change

    def on_peer_report(self, report: ClientReport, now: float) -> CircuitChange | None:
        """Apply another worker's report. Return the change of the circuit; None if the report did not change it."""
        if report.parked:
            self.parking.on_parked()
        if report.spacing:
            self.rate.on_peer_report(report.spacing, report.former_share, now)
        if report.circuit_closed:
            if (change := self.circuit.on_peer_closed(now)) is not None:
                self.concurrency = min(self.limit, max(self.concurrency + 1, report.concurrency))
                self._on_recovered(now)
            return change
        if (change := self.circuit.on_peer_open(now - report.failing_seconds, report.open_seconds, now)) is not None:
            self.ended_at = max(self.ended_at, now)
            self._on_opened()
        return change

    def _on_recovered(self, now: float) -> None:
        outage = self.circuit.last_outage_seconds
        if outage > SHORT_OUTAGE_SECONDS:  # a shorter outage may be overload, which must keep its sample and limit
            self.rate.on_outage(now, outage, first_attempts_only=self.circuit.only_first_attempts_fail(now))
        self.parking.on_recovered(now)
        self.line.on_recovered()

    def _on_opened(self) -> None:
        self.concurrency = max(1, self.concurrency // 2)
        self.parking.on_opened()

    def on_operator_probe(self, now: float, *, force: bool) -> bool:
        """Make the circuit half-open. Returns False during a requested pause, which `force` ends."""
        self.seen_at = now
        if not self.parking.on_operator_probe(now, force=force):
            return False
        self.circuit.on_operator_probe(now)
        return True

    # ── pools and speed ──

    def move_running(self, pool: SlotPool) -> list[tuple[Lane, SlotPool]]:
        """Move the running attempts, except probes, to this pool. Return (lane, former pool) of each moved attempt."""
        self.pool, moved = pool, list[tuple[Lane, SlotPool]]()
        for admitted, former_pool in self.running.items():
            if former_pool is not SlotPool.PROBE:
                self.running[admitted] = pool
                moved.append((admitted.lane, former_pool))
        return moved

    def silent_seconds(self, now: float) -> float:
        """Return for how many seconds requests are under way without any answer of the client; 0 without a request."""
        for admitted in self.running:
            if admitted.posted_at <= now:
                return now - max(admitted.posted_at, self.ended_at)
        return 0.0

    def pool_at(self, now: float) -> SlotPool:
        """Return SLOW if the client's attempts take long, or if it is silent for longer than usual; otherwise QUICK."""
        if self.attempt_seconds > SLOW_SECONDS:
            return SlotPool.SLOW
        if not self.running or now - self.ended_at <= SILENCE_SECONDS:
            return SlotPool.QUICK
        usual_silence = min(SLOW_SECONDS, max(SILENCE_SECONDS, SILENCE_FACTOR * self.attempt_seconds))
        return SlotPool.SLOW if self.silent_seconds(now) > usual_silence else SlotPool.QUICK

    def attempt_interval(self, slots: Slots, now: float) -> float:
        """Return the expected seconds between the starts of two attempts at the client.

        The concurrency limit is assumed to grow while the waiting deliveries are attempted.
        """
        closed, parallel = self.circuit.state is State.CLOSED, len(self.running)
        pool = SlotPool.PROBE if self.circuit.state is State.OPEN else self.pool
        if slots.free_slots(pool, Lane.EVENTS, circuit_closed=closed) > 0:
            parallel = min(self.limit, self.concurrency + self.line.count // 2) if closed else self.concurrency
        seconds, silent_seconds = self.attempt_seconds, self.silent_seconds(now)
        if silent_seconds > SILENCE_SECONDS:
            seconds = max(seconds, silent_seconds)
        return max(self.rate.registered_interval, self.rate.spacing, seconds / max(1, parallel))
