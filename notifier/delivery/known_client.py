"""Holds the state of one client at a worker, and decides whether a delivery for the client starts. Pure.

Each event has one method; no other module writes a member. The parts are `circuit.py` (is the client likely to
answer?), `rate.py` (how many attempts a second?) and `pending.py` (where are its deliveries?). A *fetched* delivery
comes from the client's bucket; its *turn* is the moment at which the client has a slot for it.
"""

import math
from dataclasses import dataclass, field

from notifier.delivery.admission import Capacity, SlotPool, StartNow, Ticket, WaitInMemory
from notifier.delivery.circuit import MIN_OPEN_SECONDS, SHORT_OUTAGE_SECONDS, Circuit, CircuitChange, State
from notifier.delivery.pending import NO_ATTEMPTS, SILENCE_SECONDS, SLOW_SECONDS, PendingDeliveries
from notifier.delivery.ports import ClientReport
from notifier.delivery.rate import AttemptRate, registered_interval
from notifier.delivery.verdict import Standing, WaitKind
from notifier.model.client import Client, ClientKey
from notifier.model.delivery import Delivery
from notifier.model.message import Lane
from notifier.model.outcome import Cause, Signal
from notifier.model.record import copy_record

FRESH_PROBE_SECONDS = 4.0  # after the last attempt, until a fresh delivery may probe an open circuit
CROWDED_SHARE = 0.5  # the used share of memory above which no bucket is fetched from
MIN_DEFERRAL_SECONDS, MAX_DEFERRAL_SECONDS = 1.0, 64.0  # the limits of one deferral …
MAX_RATED_DEFERRAL_SECONDS = 1024.0  # … or this, if a registered rate determines the turn
ATTEMPT_WEIGHT = 0.2  # the weight of the newest attempt in the mean


@dataclass(slots=True, eq=False, kw_only=True)
class KnownClient(PendingDeliveries):
    """The state of one client at this worker. Moments are seconds of the monotonic clock.

    `limit`: this worker's share of the registered `max_concurrent`. `concurrency`: the limit in force, which grows by
    one with each success and is halved when the circuit opens.
    """

    key: ClientKey
    seen_at: float
    limit: int = 1
    concurrency: int = 1
    circuit: Circuit = field(default_factory=Circuit)
    rate: AttemptRate = field(default_factory=AttemptRate)

    # ── state ──

    def is_available(self, now: float) -> bool:
        """Return True unless the circuit is open or half-open, or the client requested a pause."""
        return self.circuit.state is not State.OPEN and now >= self.paused_until

    def is_healthy(self, now: float) -> bool:
        """Return True if the circuit is closed and the client requested no pause."""
        return self.circuit.state is State.CLOSED and now >= self.paused_until

    @property
    def available_at(self) -> float:
        """The moment when the next probe is due and the requested pause is over."""
        return max(self.circuit.probe_at, self.paused_until)

    def on_registration(self, client: Client, worker_count: int) -> None:
        """Adopt this worker's share of the client's registered limits."""
        limit, interval = max(1, client.max_concurrent // worker_count), registered_interval(client, worker_count)
        if self.limit != limit or self.rate.registered_interval != interval:
            self.limit, self.concurrency = limit, min(self.concurrency, limit)
            self.rate.on_registration(interval)

    def on_seen(self, now: float) -> None:
        """Record that the client is in use, so that it is not forgotten."""
        self.seen_at = now

    # ── a delivery that is to be attempted ──

    def admit(
        self, delivery: Delivery, client: Client, lane: Lane, capacity: Capacity, now: float, *, fetched: bool
    ) -> StartNow | WaitInMemory | tuple[Delivery, Standing]:
        """Return whether the delivery starts, waits in memory, or is deferred. `fetched`: it comes from its bucket.

        The answer contains the delivery, which may be changed: a failure during the last outage no longer lengthens
        its backoff.
        """
        self.seen_at, charged_at = now, delivery.progress.charged_at
        if charged_at is not None and self.circuit.was_open_at(charged_at - capacity.wall_offset()):
            delivery = copy_record(delivery, progress=delivery.progress.after_outage())
        if delivery.progress.probe_due is not None:
            self.parked = True  # other workers may have parked deliveries while this probe was in its delay queue
        until = delivery.progress.delayed_until
        if until is not None and self.circuit.state is State.UNTRIED and self.paused_until == -math.inf:
            # This worker has no evidence about the client, so it adopts the pause that the delivery records.
            self.paused_until = min(until - capacity.wall_offset(), now + client.retry.max_delay)
        if not self.waiting_count and self.can_start(delivery, lane, capacity, now):
            return StartNow(delivery=delivery, client=client, lane=lane, fetched=fetched)
        if not self._can_wait(delivery, capacity, now, fetched=fetched):
            return delivery, self.standing(delivery, capacity, now, fetched=fetched)
        wait = WaitInMemory(delivery=delivery, client=client, lane=lane, fetched=fetched)
        self.push(wait)
        return wait

    def can_start(self, delivery: Delivery, lane: Lane, capacity: Capacity, now: float) -> bool:
        """Return True if the client's limits, the circuit and the free slots allow an attempt of this delivery now."""
        running, state = len(self.running), self.circuit.state
        max_running = self.concurrency if state is State.CLOSED else 1
        if running >= max_running or now < self.paused_until or self.rate.tokens(now, self.limit) < 1:
            return False
        if state is State.OPEN:  # or half-open
            if not self._can_probe(delivery, capacity, now):
                return False
            return capacity.free_slots(SlotPool.PROBE, lane, circuit_closed=False) > 0
        # A client takes a slot only while more slots are free than it uses: so one client leaves half of them.
        return running < capacity.free_slots(self.pool, lane, circuit_closed=state is State.CLOSED)

    def _can_probe(self, delivery: Delivery, capacity: Capacity, now: float) -> bool:
        """Return True if the delivery may be attempted now although the circuit is open or half-open.

        The probe may once the circuit is half-open, another delivery a second later. A fresh delivery may earlier, if
        slots for probes are to spare: 4 s after the last attempt, or a second for each worker if that is longer.
        Except for the probe, a second has passed since the last attempt in any case.
        """
        if delivery.progress.probe_due is not None:
            return now >= self.circuit.probe_at
        due_at = self.circuit.probe_at + MIN_OPEN_SECONDS
        is_fresh = delivery.progress.first_taken_at is None
        if is_fresh and capacity.has_spare_probe_slots():
            due_at = min(due_at, self.ended_at + max(FRESH_PROBE_SECONDS, MIN_OPEN_SECONDS * capacity.worker_count()))
        return now >= max(due_at, self.ended_at + MIN_OPEN_SECONDS)

    def _can_wait(self, delivery: Delivery, capacity: Capacity, now: float, *, fetched: bool) -> bool:
        """Return True if the delivery's turn is soon enough for it to wait in memory."""
        if not self.is_available(now):
            return False
        max_wait, slot_at = capacity.max_wait_seconds(), delivery.progress.slot_at
        if self._needs_first_attempt(now + max_wait):
            return not self.waiting_count and capacity.used_share() < CROWDED_SHARE
        if fetched and self.circuit.state is State.UNTRIED:
            return False  # it can be fetched again after the first attempt
        has_turn = slot_at is not None and slot_at - capacity.wall_offset() <= now + max_wait
        if fetched or has_turn:
            max_wait *= 2  # it has waited before
        return (self.waiting_count + 1) * self.attempt_interval(capacity, now) <= max_wait

    def _needs_first_attempt(self, moment: float) -> bool:
        """Return True if the client is untried, has no attempt under way, and its rate allows one at this moment."""
        return self.circuit.state is State.UNTRIED and not self.running and self.rate.tokens(moment, 1) >= 1

    def must_defer(self, capacity: Capacity, now: float, max_wait: float) -> bool:
        """Return True if the newest delivery in memory has no turn within `max_wait` seconds."""
        if not self.is_available(now):
            return self.waiting_count > 0
        exempt_count = 1 if self._needs_first_attempt(now + max_wait) else 0  # it waits for the first attempt
        wait_seconds = self.waiting_count * self.attempt_interval(capacity, now)
        return self.waiting_count > exempt_count and wait_seconds > max_wait

    def standing(self, delivery: Delivery, capacity: Capacity, now: float, *, fetched: bool = False) -> Standing:
        """Return how the client stands and how the delivery waits for it."""
        if not self.is_available(now):
            # The only probe stays the probe, even if an operator or a reload returned it early.
            stays_or_becomes_next = self.is_only_probe(delivery) or (fetched and self.wants_probe)
            as_probe = stays_or_becomes_next or not self.has_probe_out(now)
            return self.park_or_probe(self.circuit.probe_at, now, capacity.wall_offset(), as_probe=as_probe)
        if self.circuit.state is State.UNTRIED and fetched and (self.running or self.waiting_count):
            # Park it again: after the first attempt, the bucket is fetched from.
            return Standing(wait_kind=WaitKind.PARKED, due=now + MIN_OPEN_SECONDS + capacity.wall_offset())
        return self._standing_until_turn(delivery, capacity, now, fetched=fetched)

    def _standing_until_turn(self, delivery: Delivery, capacity: Capacity, now: float, *, fetched: bool) -> Standing:
        """Return that the delivery waits until its turn, or until `latest` if its turn is later; then it is admitted.

        Turns of fetched deliveries follow one another faster, at the rate of all workers, since any worker may receive
        them after their deferral.
        """
        offset, slot_at = capacity.wall_offset(), delivery.progress.slot_at
        is_rate_registered = self.rate.registered_interval >= self.rate.spacing  # otherwise overload limits the rate
        cause = Cause.RATE if is_rate_registered and self.rate.tokens(now, self.limit) < 1 else Cause.SLOT
        age = 0.0 if delivery.progress.first_taken_at is None else now + offset - delivery.progress.first_taken_at
        is_steady, interval = self.rate.is_steady(now), self.attempt_interval(capacity, now)
        if turns_are_fixed := is_steady and interval == self.rate.registered_interval:
            latest = now + MAX_RATED_DEFERRAL_SECONDS
        elif is_steady and self.concurrency >= self.limit:
            latest = now + MAX_DEFERRAL_SECONDS
        else:  # the rate may rise soon
            latest = now + min(MAX_DEFERRAL_SECONDS, max(MIN_DEFERRAL_SECONDS, age))
        if slot_at is None or slot_at - offset <= now or (age < 0 and slot_at - offset > latest):  # < 0: clock set back
            gap = interval / capacity.worker_count() if fetched else interval
            turn_at = self.next_turn(now, interval, gap, math.inf if turns_are_fixed else latest)
            slot_at = None if turn_at is None else turn_at + offset
        return Standing(
            is_limited=self.rate.spacing > 0, succeeded_at=self.circuit.succeeded_at + offset,
            cause=cause, due=min(latest + offset, slot_at or math.inf), slot_at=slot_at,
        )  # fmt: skip

    def fetchable_count(self, capacity: Capacity, now: float) -> int:
        """Return how many parked deliveries of the client may be fetched now. Call it only if the circuit is closed."""
        running, free = len(self.running), capacity.free_slots(self.pool, Lane.RETRIES, circuit_closed=True)
        # `can_start` starts another attempt while fewer run than slots are free: so many, one after the other.
        count = min(self.concurrency - running, (free - running + 1) // 2, self.rate.tokens(now, self.limit))
        count -= self.waiting_count
        if count <= 0 and self.waiting_count and not self.fetched_count:
            # Other deliveries use up the client's rate: one fetched delivery may wait among them.
            wait_seconds = (self.waiting_count + 1) * self.attempt_interval(capacity, now)
            return 1 if wait_seconds <= 2 * capacity.max_wait_seconds() else 0
        return max(0, count)

    # ── attempts, and reports of peers ──

    def on_started(self, ticket: Ticket, pool: SlotPool, now: float) -> None:
        """Record an attempt that starts in a slot of this pool."""
        if self.rate.registered_interval or self.rate.spacing:
            self.rate.on_started(now)
        if self.running:
            self.running[ticket] = pool
        else:
            self.running = {ticket: pool}

    def on_ended(self, ticket: Ticket) -> SlotPool:
        """Remove the attempt, and return the pool of the slot that it used."""
        pool = self.running.pop(ticket)
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
        self.parked = self.parked or report.parked
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
        self.recovered_at, self.last_turn_at, self.rotation = now, -math.inf, None

    def _on_opened(self) -> None:
        self.concurrency, self.recovered_at = max(1, self.concurrency // 2), None

    def on_operator_probe(self, now: float, *, force: bool) -> bool:
        """Make the circuit half-open. Returns False during a requested pause, which `force` ends."""
        if force:
            self.paused_until = now
        self.seen_at = now
        if self.is_paused(now):
            return False
        self.circuit.on_operator_probe(now)
        self.probe_out_until, self.parked = -math.inf, True
        return True

    # ── speed ──

    def attempt_interval(self, capacity: Capacity, now: float) -> float:
        """Return the expected seconds between the starts of two attempts at the client.

        The concurrency limit is assumed to grow while the waiting deliveries are attempted.
        """
        closed, parallel = self.circuit.state is State.CLOSED, len(self.running)
        pool = SlotPool.PROBE if self.circuit.state is State.OPEN else self.pool
        if capacity.free_slots(pool, Lane.EVENTS, circuit_closed=closed) > 0:
            parallel = min(self.limit, self.concurrency + self.waiting_count // 2) if closed else self.concurrency
        seconds, silent_seconds = self.attempt_seconds, self.silent_seconds(now)
        if silent_seconds > SILENCE_SECONDS:
            seconds = max(seconds, silent_seconds)
        return max(self.rate.registered_interval, self.rate.spacing, seconds / max(1, parallel))
