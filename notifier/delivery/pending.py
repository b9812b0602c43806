"""Stores where the deliveries of one client are. Pure: `KnownClient` decides.

- *Running*: being attempted.
- *In memory*, by lane: the oldest of the highest lane starts next.
- While the circuit is closed or untried, a delivery is deferred until its turn, which follows from the deliveries
  deferred before and the client's pace. If the turn is far, the delivery is admitted again earlier: after as long as it
  is old, 1 to 64 s, or after 1,024 s where a registered rate determines the turn.
- If the circuit is open or the client requested a pause, a delivery becomes the *probe*: it waits in a delay queue
  until the circuit is half-open or the pause is over, and is the next attempt. While a probe of this worker cannot have
  returned yet (`probe_out_until`), other deliveries are *parked* in the bucket. So a worker that parks has a probe in a
  delay queue.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from notifier.delivery.admission import SlotPool, Ticket
from notifier.delivery.circuit import MIN_OPEN_SECONDS
from notifier.delivery.verdict import Standing, WaitKind
from notifier.model.backoff import one_pass
from notifier.model.delivery import Delivery
from notifier.model.message import Lane
from notifier.model.outcome import Cause

ROUNDING_SECONDS = 0.1  # by which the moments of one probe by two clocks may differ
SLOW_SECONDS = 1.0  # a client is slow if its attempts take longer, or if it is silent for longer
SILENCE_SECONDS, SILENCE_FACTOR = 0.1, 4.0  # a shorter silence, or one below 4 × the mean duration, is usual
BUSY_PROBE_SECONDS = 2.0  # until a probe that found no free slot, or another attempt under way, is tried again

RunningAttempts: TypeAlias = dict[Ticket, SlotPool]
LANES = tuple(Lane)  # in their order; iterating over an Enum runs a Python function for each member
NO_ATTEMPTS: RunningAttempts = {}  # shared and never filled: a dictionary for each client takes 64 to 224 bytes


@dataclass(slots=True)
class ProbeRotation:
    """Makes a parked delivery the probe instead of the former probe, which has failed often.

    Both are probes until the next probe is durable in a delay queue and the former probe fails again. If another worker
    has parked the next probe meanwhile, none is left for a moment: a pass, which follows at once, fetches one.
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


@dataclass(slots=True, eq=False, kw_only=True)
class PendingDeliveries:
    """The base of `KnownClient`. A separate object would take 100 bytes for each of 100,000 clients.

    `parked`: deliveries may be in the client's bucket. `in_pass`: this worker is fetching from that bucket.
    `probe_out_until`: until then a probe that this worker sent cannot have returned from its delay queue.
    `probe_wall_offset`: the wall clock minus the monotonic clock when that probe was sent (a suspension changes it).
    `rotation`: the replacement of the probe that is under way; None without one.
    `recovered_at`: when the circuit closed; None once all deliveries parked before are fetched.
    """

    pool: SlotPool = SlotPool.QUICK
    running: RunningAttempts = field(default_factory=lambda: NO_ATTEMPTS)  # each with the pool of its slot
    attempt_seconds: float = 0.0  # mean duration of an attempt
    ended_at: float = -math.inf  # when an attempt last ended
    tickets_of: dict[Lane, deque[Ticket]] | None = None  # the deliveries that wait in memory; None without any
    waiting_count: int = 0  # deliveries that wait in memory …
    fetched_count: int = 0  # … and how many of these came from the bucket
    last_turn_at: float = -math.inf  # the latest turn of a deferred delivery
    paused_until: float = -math.inf  # the end of the pause that the client requested
    parked: bool = False
    in_pass: bool = False
    probe_out_until: float = -math.inf
    probe_wall_offset: float = 0.0
    rotation: ProbeRotation | None = None
    recovered_at: float | None = None

    # ── running ──

    @property
    def is_idle(self) -> bool:
        """True if no delivery of the client is in memory or being fetched."""
        return not self.running and not self.waiting_count and not self.in_pass

    def move_running(self, pool: SlotPool) -> list[tuple[Lane, SlotPool]]:
        """Move the running attempts, except probes, to this pool. Return (lane, former pool) of each moved attempt."""
        self.pool, moved = pool, list[tuple[Lane, SlotPool]]()
        for ticket, former_pool in self.running.items():
            if former_pool is not SlotPool.PROBE:
                self.running[ticket] = pool
                moved.append((ticket.lane, former_pool))
        return moved

    def silent_seconds(self, now: float) -> float:
        """Return for how many seconds requests are under way without any answer of the client; 0 without a request."""
        for ticket in self.running:
            if ticket.posted_at <= now:
                return now - max(ticket.posted_at, self.ended_at)
        return 0.0

    def pool_at(self, now: float) -> SlotPool:
        """Return SLOW if the client's attempts take long, or if it is silent for longer than usual; otherwise QUICK."""
        if self.attempt_seconds > SLOW_SECONDS:
            return SlotPool.SLOW
        if not self.running or now - self.ended_at <= SILENCE_SECONDS:
            return SlotPool.QUICK
        usual_silence = min(SLOW_SECONDS, max(SILENCE_SECONDS, SILENCE_FACTOR * self.attempt_seconds))
        return SlotPool.SLOW if self.silent_seconds(now) > usual_silence else SlotPool.QUICK

    # ── in memory ──

    def push(self, ticket: Ticket) -> None:
        """Keep the delivery in memory."""
        self.tickets_of = self.tickets_of or {}
        self.tickets_of.setdefault(ticket.lane, deque()).append(ticket)
        self.waiting_count += 1
        self.fetched_count += ticket.fetched

    @property
    def first(self) -> Ticket:
        """The next delivery to start. Raises IndexError if none waits."""
        return self._first_lane(LANES)[0]

    def pop(self, *, newest: bool = False) -> Ticket:
        """Remove and return the oldest delivery of the highest lane, or with `newest` the newest of the lowest lane."""
        ticket = self._first_lane(LANES[::-1]).pop() if newest else self._first_lane(LANES).popleft()
        self.waiting_count -= 1
        self.fetched_count -= ticket.fetched
        if not self.waiting_count:
            self.tickets_of = None  # an emptied dictionary takes 700 bytes for each of 100,000 clients
        return ticket

    def _first_lane(self, lanes: Iterable[Lane]) -> deque[Ticket]:
        """Return the deliveries in memory of the first lane that has any. Raises IndexError if none waits."""
        for lane in lanes:
            if tickets := (self.tickets_of or {}).get(lane):
                return tickets
        raise IndexError("no delivery waits in memory")

    # ── until their turn ──

    def next_turn(self, now: float, interval: float, gap: float, latest: float) -> float | None:
        """Return the next turn, `gap` seconds after the last one; None if that is later than `latest`.

        The deliveries in memory have their turns first, one every `interval` seconds.
        """
        turn_at = max(self.last_turn_at, now + (self.waiting_count + 1) * interval) + gap
        return None if turn_at > latest else turn_at

    def on_turn_taken(self, turn_at: float) -> None:
        """Record that a delivery waits for this turn, so that the next turn is later."""
        self.last_turn_at = turn_at

    # ── while the client is unavailable: the probe, and parked deliveries ──

    def is_paused(self, now: float) -> bool:
        """Return True during the pause that the client requested (`Retry-After`)."""
        return now < self.paused_until

    def on_pause(self, until: float) -> None:
        """Extend the pause to the moment that the client requested (`Retry-After`)."""
        self.paused_until = max(self.paused_until, until)

    def park_or_probe(self, probe_at: float, now: float, wall_offset: float, *, as_probe: bool) -> Standing:
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
            wait = one_pass(wait, "up" if self.wants_probe else "down")
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
        """Record that a probe was sent that cannot return before `due_at`. `wall_offset`: see `Capacity`."""
        if self.rotation is not None:
            self.rotation.on_probe_sent(delivery_id)
        if due_at > self.probe_out_until:
            self.probe_out_until, self.probe_wall_offset = due_at, wall_offset

    def on_probe_lost(self) -> None:
        """Record that the probe ended without an attempt, so that another probe is needed."""
        self.parked, self.probe_out_until = True, -math.inf

    # ── rotation of the probe ──

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

    def on_pass(self, *, in_pass: bool) -> None:
        """Record whether this worker is fetching from the bucket. A rotation ends if the pass found no next probe."""
        self.in_pass = in_pass
        if not in_pass and self.wants_probe:
            self.rotation = None

    def on_bucket_empty(self, now: float) -> float | None:
        """Record that the bucket is empty. Return the seconds since the recovery; None if that was returned before."""
        self.parked, recovered, self.recovered_at = False, self.recovered_at, None
        return None if recovered is None else now - recovered
