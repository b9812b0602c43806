"""Stores where the deliveries of one client are. Pure: `KnownClient` decides.

- *Running*: being attempted.
- *In memory*, by lane: the oldest of the highest lane starts next.
- While the circuit is closed or untried, a delivery is deferred until its turn, which follows from the deliveries
  deferred before and the client's pace. If the turn is far, it is offered again earlier: after as long as it is old,
  1 to 64 s, or after 1,024 s where a registered rate determines the turn.
- If the circuit is open or the client requested a pause, a delivery becomes the *probe*: it waits in a delay queue
  until the circuit is half-open or the pause is over, and is the next attempt. While a probe of this worker cannot have
  returned yet (`covered_until`), other deliveries are *parked* in the bucket. So a worker that parks has a probe in a
  delay queue.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

from notifier.delivery.admission import Later, Side, Ticket
from notifier.delivery.circuit import MIN_OPEN_SECONDS
from notifier.delivery.verdict import WaitsAs
from notifier.model.backoff import one_pass
from notifier.model.delivery import Delivery
from notifier.model.message import Lane
from notifier.model.outcome import Cause

ROUNDING_SECONDS = 0.1  # of the moments of one probe by two clocks
BUSY_PROBE_SECONDS = 2.0  # that a probe waits for the end of another one, or for a slot

RunningAttempts: TypeAlias = dict[Ticket, Side]
NONE_RUNS: RunningAttempts = {}  # never filled: one for each client would take 64 bytes, or 224 once emptied


@dataclass(slots=True, eq=False, kw_only=True)
class PendingDeliveries:
    """The base of `KnownClient`: a separate object would take 100 bytes for each of 100,000 clients."""

    side: Side = Side.QUICK
    running: RunningAttempts = field(default_factory=lambda: NONE_RUNS)  # which slot each took
    queues: dict[Lane, deque[Ticket]] | None = None  # while any wait in memory
    waiting: int = 0  # in memory
    fetched_count: int = 0  # of the deliveries in memory from its bucket
    last_turn: float = -math.inf  # the latest turn of a deferred delivery
    paused_until: float = -math.inf  # the client requested not to be called before
    parked: bool = False  # something may wait in its bucket
    in_pass: bool = False  # this worker goes through its bucket
    covered_until: float = -math.inf  # before that, a probe that this worker sent cannot have returned
    probe_ahead: float = 0.0  # seconds from the steady clock to the wall clock then: a suspension changes them
    replaced_probe: Ticket | None = None  # its last probe, until a parked delivery is the next one
    recovered_at: float | None = None  # when it recovered, while deliveries parked before are sent

    # ── running ──

    @property
    def is_idle(self) -> bool:
        """True if no delivery for it is in memory or on its way here."""
        return not self.running and not self.waiting and not self.in_pass and self.replaced_probe is None

    def move_to(self, side: Side) -> list[tuple[Lane, Side]]:
        """Move the running attempts to this side, except probes. Return the lane and former side of each."""
        self.side, moved = side, list[tuple[Lane, Side]]()
        for ticket, before in self.running.items():
            if before is not Side.PROBE:
                self.running[ticket] = side
                moved.append((ticket.lane, before))
        return moved

    # ── in memory ──

    def push(self, ticket: Ticket) -> None:
        """Keep the delivery in memory."""
        self.queues = self.queues or {}
        self.queues.setdefault(ticket.lane, deque()).append(ticket)
        self.waiting += 1
        self.fetched_count += ticket.fetched

    @property
    def _filled(self) -> list[deque[Ticket]]:
        return [queue for lane in Lane if (queue := (self.queues or {}).get(lane))]

    @property
    def first(self) -> Ticket:
        """The next delivery to start. Call it only if any wait."""
        return self._filled[0][0]

    def pop(self, *, newest: bool = False) -> Ticket:
        """Remove the next delivery: the oldest of the highest lane; with `newest`, the newest of the lowest lane."""
        ticket = self._filled[-1].pop() if newest else self._filled[0].popleft()
        self.waiting -= 1
        self.fetched_count -= ticket.fetched
        if not self.waiting:
            self.queues = None  # an emptied one takes 700 bytes, of each of 100,000 clients
        return ticket

    # ── until their turn ──

    def next_turn(self, now: float, pace: float, behind: float, longest: float) -> float | None:
        """Return the next turn, `behind` seconds after the latest one; None if it is later than `longest`."""
        turn = max(self.last_turn, now + (self.waiting + 1) * pace) + behind
        if turn > longest:
            return None
        self.last_turn = turn
        return turn

    # ── until the client may be called: as the probe, or parked ──

    def is_paused(self, now: float) -> bool:
        """Return True while the pause lasts that the client requested."""
        return now < self.paused_until

    def on_pause(self, until: float) -> None:
        """Note that the client requested not to be called before then (`Retry-After`)."""
        self.paused_until = max(self.paused_until, until)

    def park_or_probe(self, next_try: float, now: float, *, tried: bool) -> Later:
        """Keep it until the circuit is half-open or the pause is over: in the bucket, or as the probe."""
        paused = self.is_paused(now)
        opens, cause = (self.paused_until, Cause.RETRY_AFTER) if paused else (next_try, Cause.CIRCUIT)
        if self.is_covered(now) and not tried:
            return Later(due=opens, cause=cause, waits_as=WaitsAs.PARKED)
        wait = max(MIN_OPEN_SECONDS, opens - now) if opens > now else BUSY_PROBE_SECONDS
        # One pass through one delay queue, which is exact. After several it may come a second early.
        return Later(due=now + (wait if paused else one_pass(wait)), cause=cause, waits_as=WaitsAs.PROBE)

    def is_only_probe(self, delivery: Delivery) -> bool:
        """Return True if the delivery is the client's probe, and this worker has sent no other one since."""
        return delivery.leash is not None and delivery.leash > self.covered_until + self.probe_ahead - ROUNDING_SECONDS

    def is_covered(self, now: float) -> bool:
        """True while a probe that this worker sent cannot have returned: it will lead to the bucket."""
        return now < self.covered_until

    def on_probe_sent(self, due: float, ahead: float) -> None:
        """Note that a probe was sent, which cannot return before `due`. `ahead`: see `probe_ahead`."""
        if due > self.covered_until:
            self.covered_until, self.probe_ahead = due, ahead

    def on_probe_lost(self) -> None:
        """Note that the probe ended without an attempt: another probe is needed."""
        self.parked, self.covered_until = True, -math.inf

    def on_rotation(self, ticket: Ticket) -> None:
        """Note that this probe waits until a parked delivery is the next one."""
        self.replaced_probe = ticket

    def end_rotation(self) -> Ticket | None:
        """Return the probe that waited for another one."""
        ticket, self.replaced_probe = self.replaced_probe, None
        return ticket

    def on_parked(self) -> None:
        """Note that a delivery may be parked for the client."""
        self.parked = True

    def on_pass(self, *, in_pass: bool) -> None:
        """Note whether this worker goes through the client's bucket."""
        self.in_pass = in_pass

    def on_bucket_empty(self, now: float) -> float | None:
        """Note that nothing is parked. Returns the seconds since a recovery that is over now."""
        self.parked, recovered, self.recovered_at = False, self.recovered_at, None
        return None if recovered is None else now - recovered
