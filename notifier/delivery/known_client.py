"""Holds everything that a worker stores of one client, and decides whether a delivery for it starts. Pure.

Each event has one method; no other module writes a member. The parts are `circuit.py` (may the client be called?),
`rate.py` (how often?) and `pending.py` (where are its deliveries?). `known_clients.py` forgets unused clients.
"""

import math
from dataclasses import dataclass, field

from notifier.delivery.admission import Later, Room, Side, StartNow, Ticket, Wait
from notifier.delivery.circuit import MIN_OPEN_SECONDS, SHORT_OUTAGE_SECONDS, Change, Circuit, State
from notifier.delivery.pending import NONE_RUNS, PendingDeliveries
from notifier.delivery.ports import News
from notifier.delivery.rate import AttemptRate
from notifier.delivery.verdict import WaitsAs
from notifier.model.client import Client, ClientKey
from notifier.model.delivery import Delivery
from notifier.model.frozen import replace
from notifier.model.message import Lane
from notifier.model.outcome import Cause, Signal

FRESH_PROBE_SECONDS = 4.0  # after which a fresh delivery may be the probe; a second a worker if that is more
CROWDED_SHARE = 0.5  # the used share of memory above which no bucket is fetched from
MIN_DEFERRAL_SECONDS, MAX_DEFERRAL_SECONDS = 1.0, 64.0  # of one deferral, however old the delivery is …
MAX_RATED_DEFERRAL_SECONDS = 1024.0  # … or at most, where a registered rate determines the turn
SLOW_SECONDS = 1.0  # a client whose attempts take longer, or that is silent for as long, is slow
SILENCE_SECONDS, SILENCE_FACTOR = 0.1, 4.0  # or × its usual time: the shortest silence that makes a client slow
ATTEMPT_WEIGHT = 0.2  # the weight of the newest attempt in the mean


@dataclass(slots=True, eq=False, kw_only=True)
class KnownClient(PendingDeliveries):
    """The state of one client at this worker. Moments are seconds of a steady clock."""

    key: ClientKey
    seen_at: float
    limit: int = 1  # attempts at a time: this worker's share of its registered limit
    concurrency: int = 1  # its present limit: grows by one with each success, halves when the circuit opens
    attempt_seconds: float = 0.0  # mean duration of an attempt
    ended_at: float = -math.inf  # when an attempt last ended
    circuit: Circuit = field(default_factory=Circuit)
    rate: AttemptRate = field(default_factory=AttemptRate)

    # ── its state ──

    def is_available(self, now: float) -> bool:
        """Return True unless the circuit is open or half-open, or the client requested a pause."""
        return self.circuit.state is not State.OPEN and now >= self.paused_until

    @property
    def available_at(self) -> float:
        """When the next probe is due and the pause is over."""
        return max(self.circuit.next_try, self.paused_until)

    def on_registration(self, client: Client, workers: int) -> None:
        """Take this worker's share of the limits that the registration has now."""
        limit, step = max(1, client.max_concurrent // workers), attempt_step(client, workers)
        if self.limit != limit or self.rate.step != step:
            self.limit, self.concurrency = limit, min(self.concurrency, limit)
            self.rate.on_registration(step)

    def on_seen(self, now: float) -> None:
        """Note that the client is still in use, so that it is not forgotten."""
        self.seen_at = now

    # ── a delivery that is to be attempted ──

    def offer(
        self, delivery: Delivery, client: Client, lane: Lane, room: Room, now: float, *, fetched: bool
    ) -> StartNow | Wait | tuple[Delivery, Later]:
        """Return whether it starts, waits, or is deferred, as changed. `fetched`: from its bucket."""
        self.seen_at, charged_at = now, delivery.charged_at
        if charged_at is not None and self.circuit.has_been_open_at(charged_at - room.ahead()):
            delivery = replace(delivery, backoffs=max(0, delivery.backoffs - 1), charged_at=None)
        if delivery.leash is not None:
            self.parked = True  # by others, while it was on its way
        if delivery.asked_until is not None and self.circuit.state is State.UNTRIED and self.paused_until == -math.inf:
            # A pause that the delivery records, and this worker has neither attempted the client nor ended a pause.
            self.paused_until = min(delivery.asked_until - room.ahead(), now + client.retry.max_delay)
        if not self.waiting and self.can_start(delivery, lane, room, now):
            return StartNow(delivery=delivery, client=client, lane=lane, fetched=fetched)
        if not self._can_wait(delivery, room, now, fetched=fetched):
            return delivery, self.defer(delivery, room, now, fetched=fetched)
        wait = Wait(delivery=delivery, client=client, lane=lane, fetched=fetched)
        self.push(wait)
        return wait

    def can_start(self, delivery: Delivery, lane: Lane, room: Room, now: float) -> bool:
        """Return True if an attempt of this delivery may start now."""
        running, state = len(self.running), self.circuit.state
        most = self.concurrency if state is State.CLOSED else 1
        if running >= most or now < self.paused_until or self.rate.tokens(now, self.limit) < 1:
            return False
        if state is State.OPEN:
            return self._can_probe(delivery, room, now) and room.free(Side.PROBE, lane, closed=False) > 0
        return running < room.free(self.side, lane, closed=state is State.CLOSED)

    def _can_probe(self, delivery: Delivery, room: Room, now: float) -> bool:
        """Return True if it may be attempted now: the one sent as the probe if it is due, a fresh one earlier."""
        if delivery.leash is not None:
            return now >= self.circuit.next_try
        due = self.circuit.next_try + MIN_OPEN_SECONDS
        if delivery.first_taken_at is None and room.many_probes_free():
            due = min(due, self.ended_at + max(FRESH_PROBE_SECONDS, MIN_OPEN_SECONDS * room.workers()))
        return now >= max(due, self.ended_at + MIN_OPEN_SECONDS)

    def _can_wait(self, delivery: Delivery, room: Room, now: float, *, fetched: bool) -> bool:
        """Return True if its turn is soon enough for it to wait in memory."""
        if not self.is_available(now):
            return False
        patience = room.patience()
        if self._needs_first_attempt(now + patience):
            return not self.waiting and room.fill() < CROWDED_SHARE
        if fetched and self.circuit.state is State.UNTRIED:  # the first attempt shows soon whether more may follow
            return False
        if fetched or (delivery.turn is not None and delivery.turn - room.ahead() <= now + patience):
            patience *= 2
        return (self.waiting + 1) * self.pace(room, now) <= patience

    def _needs_first_attempt(self, by: float) -> bool:
        """Return True if one delivery may wait for the first attempt, which its rate allows by then."""
        return self.circuit.state is State.UNTRIED and not self.running and self.rate.tokens(by, 1) >= 1

    def must_defer(self, room: Room, now: float, patience: float) -> bool:
        """Return True if the turn of the newest delivery in memory does not come within `patience`."""
        if not self.is_available(now):
            return self.waiting > 0
        first = self._needs_first_attempt(now + patience)
        return self.waiting > first and self.waiting * self.pace(room, now) > patience

    def defer(self, delivery: Delivery, room: Room, now: float, *, fetched: bool = False, tried: bool = False) -> Later:
        """Return where the delivery waits, and until when.

        `tried`: it is a probe, or its failure opened the circuit. A probe that comes early stays the probe: an operator
        or a reload had it returned, and there is no other probe.
        """
        if not self.is_available(now):
            tried = tried or self.is_only_probe(delivery)
            return self.park_or_probe(self.circuit.next_try, now, tried=tried)
        if self.circuit.state is State.UNTRIED and fetched and (self.running or self.waiting):
            # The attempt that runs or waits leads to the bucket.
            return Later(due=now + MIN_OPEN_SECONDS, cause=Cause.SLOT, waits_as=WaitsAs.PARKED)
        return self._defer_until_turn(delivery, room, now, fetched=fetched)

    def _defer_until_turn(self, delivery: Delivery, room: Room, now: float, *, fetched: bool) -> Later:
        """Defer it until its turn. If that is far, it is offered again before, and soon if the rate may rise by then.

        A fetched delivery has its turn at the pace of all workers: no worker has counted it, and any may receive it.
        """
        registered = self.rate.step >= self.rate.spacing  # else its overload limits it further
        cause = Cause.RATE if registered and self.rate.tokens(now, self.limit) < 1 else Cause.SLOT
        age = 0.0 if delivery.first_taken_at is None else now + room.ahead() - delivery.first_taken_at
        turn = None if delivery.turn is None else delivery.turn - room.ahead()
        steady, pace = self.rate.is_steady(now), self.pace(room, now)
        if sure := steady and pace == self.rate.step:
            longest = now + MAX_RATED_DEFERRAL_SECONDS
        else:
            at_limit = steady and self.concurrency >= self.limit
            longest = now + min(MAX_DEFERRAL_SECONDS, math.inf if at_limit else max(MIN_DEFERRAL_SECONDS, age))
        if turn is None or turn <= now or (age < 0 and turn > longest):  # the last: the wall clock has jumped back
            turn = self.next_turn(now, pace, pace / (room.workers() if fetched else 1), math.inf if sure else longest)
        due = longest if turn is None else min(turn, longest)
        return Later(due=due, cause=cause, waits_as=WaitsAs.DELAYED, turn=turn)

    def fetchable_count(self, room: Room, now: float) -> int:
        """Return how many of its parked deliveries may be fetched now. The circuit is closed."""
        running, free = len(self.running), room.free(self.side, Lane.RETRIES, closed=True)
        count = min(self.concurrency - running, (free - running + 1) // 2, self.rate.tokens(now, self.limit))
        # Where other deliveries use up its rate, one parked delivery at a time waits among them.
        among = self.waiting > 0 and not self.fetched_count
        fits = among and (self.waiting + 1) * self.pace(room, now) <= 2 * room.patience()
        return max(0, count - self.waiting, int(fits))

    # ── attempts, and reports of peers ──

    def on_started(self, ticket: Ticket, side: Side, now: float) -> None:
        """Note an attempt that starts in a slot of this side."""
        if self.rate.step or self.rate.spacing:
            self.rate.on_started(now)
        if self.running:
            self.running[ticket] = side
        else:
            self.running = {ticket: side}

    def on_ended(self, ticket: Ticket) -> Side:
        """Remove the attempt. Return which slot it took."""
        ended = self.running.pop(ticket)
        if not self.running:
            self.running = NONE_RUNS
        return ended

    def on_result(self, signal: Signal, seconds: float, now: float, *, repeat: bool, least: float) -> Change | None:
        """Note the result of an attempt of so many seconds. `repeat`, `least`: see `Circuit.on_failure`."""
        self.ended_at = self.seen_at = now
        if signal is Signal.NONE:
            self.circuit.on_internal_fault(now)
            return None
        mean = self.attempt_seconds or seconds
        self.attempt_seconds = mean + ATTEMPT_WEIGHT * (seconds - mean)
        failed, concurrency, change = signal is not Signal.RESPONSIVE, self.concurrency, None
        if not failed:
            change = self.circuit.on_success(now, repeat=repeat)
            self.concurrency = min(self.limit, concurrency + 1)
            if change is not None:
                self._on_recovered(now)  # which may restart the sample
        if seconds <= SLOW_SECONDS:
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
        outage = self.circuit.last_outage_seconds
        if outage > SHORT_OUTAGE_SECONDS:  # a shorter one looks like overload, where several workers probe in turn
            self.rate.on_outage(now, outage, first_attempts_only=self.circuit.only_first_attempts_fail(now))
        self.recovered_at, self.last_turn = now, -math.inf

    def _on_opened(self) -> None:
        self.concurrency, self.recovered_at = max(1, self.concurrency // 2), None

    def on_operator_probe(self, now: float, *, force: bool) -> bool:
        """End the rest, and with `force` the pause. Returns False if a pause stands."""
        if force:
            self.paused_until = now
        self.seen_at = now
        if self.is_paused(now):
            return False
        self.circuit.on_operator_probe(now)
        self.covered_until, self.parked = -math.inf, True
        return True

    # ── its limits ──

    def silence(self, now: float) -> float:
        """Return for how many seconds a request has been without any answer from the client."""
        for ticket in self.running:
            if ticket.posted_at <= now:
                return now - max(ticket.posted_at, self.ended_at)
        return 0.0

    def side_at(self, now: float) -> Side:
        """Return `SLOW_SECONDS` if its attempts take long, or if it is silent for longer than usual."""
        if self.attempt_seconds > SLOW_SECONDS:
            return Side.SLOW
        if not self.running or now - self.ended_at <= SILENCE_SECONDS:
            return Side.QUICK
        shortest = min(SLOW_SECONDS, max(SILENCE_SECONDS, SILENCE_FACTOR * self.attempt_seconds))
        return Side.SLOW if self.silence(now) > shortest else Side.QUICK

    def pace(self, room: Room, now: float) -> float:
        """Return the seconds between two of its attempts. Its concurrency limit grows as they are made."""
        closed, at_a_time = self.circuit.state is State.CLOSED, len(self.running)
        side = Side.PROBE if self.circuit.state is State.OPEN else self.side
        if room.free(side, Lane.EVENTS, closed=closed) > 0:
            at_a_time = min(self.limit, self.concurrency + self.waiting // 2) if closed else self.concurrency
        silence = self.silence(now)
        seconds = max(self.attempt_seconds, silence) if silence > SILENCE_SECONDS else self.attempt_seconds
        return max(self.rate.step, self.rate.spacing, seconds / max(1, at_a_time))


def attempt_step(client: Client, workers: int) -> float:
    """Return the seconds between two attempts by this worker's share of the registered rate, 0 without one."""
    return 0.0 if client.per_second is None else workers / client.per_second
