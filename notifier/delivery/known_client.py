"""Holds everything that a worker stores of one client: circuit, rate, running attempts and pending deliveries. Pure.

One method per event writes it; no other module writes a member. `circuit.py` and `rate.py` have the tables of the
two parts that decide whether and how often the client is called. A client that requested a pause (`Retry-After`) is
not called until it is over, or an operator forces an attempt. `known_clients.py` forgets unused clients.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from notifier.delivery.admission import Ticket
from notifier.delivery.circuit import MAX_FAILING_SECONDS, SHORT_OUTAGE_SECONDS, Change, Circuit, State
from notifier.delivery.ports import News
from notifier.delivery.rate import AttemptRate
from notifier.model.client import ClientKey
from notifier.model.message import Lane
from notifier.model.outcome import Signal

SLOW = 1.0  # seconds: a client whose attempts take longer, or that is silent for as long, is slow
SILENT, TIMES = 0.1, 4.0  # seconds, and times its usual: the shortest silence that makes a client slow
SMOOTHING = 0.2  # the weight of the newest attempt in the mean

RunningAttempts: TypeAlias = "dict[int, tuple[float, Lane, Side]]"
_NONE_RUNS: RunningAttempts = {}  # never filled: one for each client would take 64 bytes, or 224 once emptied


class Side(Enum):
    """Which slots attempts at a client take: those of the window, those for slow clients, or those for probes."""

    QUICK = "quick"
    SLOW = "slow"
    PROBE = "probe"

    __hash__ = object.__hash__  # that of Enum is a function in Python


@dataclass(slots=True, eq=False)
class KnownClient:
    """The state of one client at this worker. Moments are seconds of a steady clock.

    `limit` is how many attempts it may have at a time, `step` the seconds that bring a token of its rate (0: no rate).
    Both are this worker's share of what its registration says.
    """

    key: ClientKey
    limit: int
    step: float
    seen_at: float
    concurrency: int = 1  # its present limit: grows by one with each success, halves when the circuit opens
    paused_until: float = -math.inf
    counted_seconds: float = 0.0  # its attempt duration in the sum over all clients with an open circuit
    attempt_seconds: float = 0.0  # mean duration of an attempt
    ended_at: float = -math.inf  # when an attempt last ended
    side: Side = Side.QUICK
    token_at: float = -math.inf
    line: float = -math.inf  # the latest turn of a deferred delivery
    circuit: Circuit = field(default_factory=Circuit)
    rate: AttemptRate = field(default_factory=AttemptRate)
    running: RunningAttempts = field(default_factory=lambda: _NONE_RUNS)  # by the ticket's id: when it began
    queues: dict[Lane, deque[Ticket]] | None = None  # while any wait
    waiting: int = 0
    fetched: int = 0  # of those that wait, out of its bucket
    parked: bool = False  # something may wait in its bucket
    pulling: bool = False  # this worker goes through its bucket
    covered_until: float = -math.inf  # before that, a probe that this worker sent cannot have returned
    replaced: Ticket | None = None  # its last probe, until a parked delivery is the next one
    recovered: float | None = None  # when it recovered, while what was parked before is being delivered

    # ── its state ──

    def is_paused(self, now: float) -> bool:
        """Return True while the pause lasts that the client requested."""
        return now < self.paused_until

    def is_available(self, now: float) -> bool:
        """Return True unless the circuit is open or half-open, or the client paused."""
        return self.circuit.state is not State.OPEN and now >= self.paused_until

    @property
    def up(self) -> bool:
        """True if the circuit is closed."""
        return self.circuit.state is State.CLOSED

    @property
    def down(self) -> bool:
        """True if the circuit is open or half-open."""
        return self.circuit.state is State.OPEN

    def on_registration(self, limit: int, step: float, now: float) -> None:
        """Take this worker's share of the limits that the registration has now."""
        self.limit, self.step, self.seen_at = limit, step, now
        self.concurrency = min(self.concurrency, limit)

    def on_seen(self, now: float) -> None:
        """Note that the client is still in use, so that it is not forgotten."""
        self.seen_at = now

    # ── results of attempts, and reports of peers ──

    def on_result(self, signal: Signal, seconds: float, now: float, *, repeat: bool, least: float) -> Change | None:
        """Note the result of an attempt of so many seconds. `repeat`: not the delivery's first attempt.

        `least`: seconds for which the circuit opens at least.
        """
        self.ended_at = self.seen_at = now
        if signal is Signal.NONE:
            self.circuit.on_internal_fault(now)
            return None
        self.attempt_seconds = (
            self.attempt_seconds + SMOOTHING * (seconds - self.attempt_seconds) if self.attempt_seconds else seconds
        )
        failed, concurrency, change = signal is not Signal.RESPONSIVE, self.concurrency, None
        if not failed:
            change = self.circuit.on_success(now, repeat=repeat)
            self.concurrency = min(self.limit, concurrency + 1)
            if change is not None:
                self._on_recovered(now)  # which may begin a sample anew
        if seconds <= SLOW:
            throttled = signal is Signal.RATE_LIMITED
            self.rate.on_result(now, failed=failed, throttled=throttled, concurrency=concurrency)
        if failed:
            change = self.circuit.on_failure(seconds, now, repeat=repeat, least=least)
            if change is not None:
                self._on_opened()
        return change

    def on_peer_report(self, news: News, now: float) -> Change | None:
        """Note what another worker reports. None if it is nothing new, or if this worker has better evidence."""
        self.parked = self.parked or news.parked
        if news.spacing:
            self.rate.on_peer_report(news.spacing, news.former_share, now)
        if news.up:
            if (change := self.circuit.on_peer_closed(now)) is not None:
                self.concurrency = min(self.limit, max(self.concurrency, min(self.limit, news.cap) - 1) + 1)
                self._on_recovered(now)
        elif (change := self.circuit.on_peer_open(now - news.failing, news.rest, now)) is not None:
            self.ended_at = max(self.ended_at, now)
            self._on_opened()
        return change

    def _on_recovered(self, now: float) -> None:
        outage = self.circuit.outage_until - self.circuit.outage_from
        if outage > SHORT_OUTAGE_SECONDS:  # a shorter one looks like overload, where several workers probe in turn
            self.rate.on_outage(now, is_long=outage > MAX_FAILING_SECONDS)
        self.recovered, self.line = now, -math.inf

    def _on_opened(self) -> None:
        self.concurrency, self.recovered = max(1, self.concurrency // 2), None

    def on_pause(self, until: float) -> None:
        """Note that the client requested not to be called before then (`Retry-After`)."""
        self.paused_until = max(self.paused_until, until)

    def recall_pause(self, until: float) -> None:
        """Resume a pause that a delivery records, unless this worker has attempted the client or ended a pause."""
        if self.circuit.state is State.UNTRIED and self.paused_until == -math.inf:
            self.paused_until = until

    def on_operator_probe(self, now: float, *, force: bool) -> bool:
        """End the rest, and with `force` the pause. Returns False if a pause stands."""
        if force:
            self.paused_until = now
        if now < self.paused_until:
            return False
        self.circuit.on_operator_probe(now)
        self.covered_until, self.parked = -math.inf, True
        return True

    # ── its bucket and its probe ──

    def on_parked(self) -> None:
        """Note that a delivery may be parked for the client."""
        self.parked = True

    def on_pass(self, *, pulling: bool) -> None:
        """Note whether this worker goes through the client's bucket."""
        self.pulling = pulling

    def on_bucket_empty(self, now: float) -> float | None:
        """Note that nothing is parked. Returns the seconds since a recovery that is over now."""
        self.parked, recovered, self.recovered = False, self.recovered, None
        return None if recovered is None else now - recovered

    def on_probe_lost(self) -> None:
        """Note that the probe ended without an attempt: another one is needed."""
        self.parked, self.covered_until = True, -math.inf

    def on_rotation(self, ticket: Ticket) -> None:
        """Note that this probe waits until a parked delivery is the next one."""
        self.replaced = ticket

    def end_rotation(self) -> Ticket | None:
        """Return the probe that waited for another one."""
        ticket, self.replaced = self.replaced, None
        return ticket

    def on_probes_counted(self, seconds: float) -> float:
        """Note the attempt duration as counted for all that are down, 0 if it is not. Returns the former one."""
        before, self.counted_seconds = self.counted_seconds, seconds
        return before

    def on_turn(self, turn: float) -> None:
        """Note the turn of a delivery that is deferred until then."""
        self.line = turn

    def covered(self, now: float) -> bool:
        """True while a probe that this worker sent cannot have returned: it will lead to the bucket."""
        return now < self.covered_until

    def on_probe_sent(self, due: float) -> None:
        """Note that a probe was sent, which cannot return before `due`."""
        self.covered_until = max(self.covered_until, due)

    # ── its limits ──

    def silence(self, now: float) -> float:
        """Return for how many seconds an attempt has been running without any answer from the client."""
        for began, _, _ in self.running.values():
            return now - max(began, self.ended_at)
        return 0.0

    def side_at(self, now: float) -> Side:
        """Return `SLOW` if its attempts take long, or if it is silent for longer than usual."""
        if self.attempt_seconds > SLOW:
            return Side.SLOW
        if not self.running or now - self.ended_at <= SILENT:
            return Side.QUICK
        return Side.SLOW if self.silence(now) > min(SLOW, max(SILENT, TIMES * self.attempt_seconds)) else Side.QUICK

    def tokens(self, now: float) -> int:
        """Return how many attempts its registered rate and its rate limit allow at once."""
        most = float(self.limit)
        if self.step:
            most = min(most, (now - self.token_at + max(1.0, self.step)) / self.step)
        if spacing := self.rate.spacing:
            most = min(most, (now - self.token_at + max(0.1, spacing)) / spacing)
        return int(most)

    def pace(self, now: float, at_a_time: int) -> float:
        """Return the seconds between two of its attempts at the present rate and duration."""
        silence = self.silence(now)
        seconds = max(self.attempt_seconds, silence) if silence > SILENT else self.attempt_seconds
        return max(self.step, self.rate.spacing, seconds / max(1, at_a_time))

    # ── running attempts, and deliveries in memory ──

    def on_started(self, number: int, lane: Lane, side: Side, now: float) -> None:
        """Note an attempt that starts, by the id of its ticket."""
        if spacing := max(self.step, self.rate.spacing):
            self.token_at = max(now, self.token_at) + spacing
        if self.running:
            self.running[number] = (now, lane, side)
        else:
            self.running = {number: (now, lane, side)}

    def on_ended(self, number: int) -> tuple[float, Lane, Side]:
        """Remove the attempt of this ticket. Return when it began, and which slot it took."""
        ended = self.running.pop(number)
        if not self.running:
            self.running = _NONE_RUNS
        return ended

    @property
    def idle(self) -> bool:
        """True if no delivery for it is in memory or on its way here."""
        return not self.running and not self.waiting and not self.pulling and self.replaced is None

    def move_to(self, side: Side) -> list[tuple[Lane, Side]]:
        """Move the running attempts to this side, except probes. Return the lane and former side of each."""
        self.side, moved = side, list[tuple[Lane, Side]]()
        for number, (began, lane, before) in self.running.items():
            if before is not Side.PROBE:
                self.running[number] = (began, lane, side)
                moved.append((lane, before))
        return moved

    def push(self, ticket: Ticket) -> None:
        """Keep the delivery in memory."""
        self.queues = self.queues or {}
        self.queues.setdefault(ticket.lane, deque()).append(ticket)
        self.waiting += 1
        self.fetched += ticket.pulled

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
        self.fetched -= ticket.pulled
        if not self.waiting:
            self.queues = None  # an emptied one takes 700 bytes, of each of 100,000 clients
        return ticket
