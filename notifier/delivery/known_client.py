"""Keeps what a worker knows of one client: its state, the load it bears, what runs at it and what waits for it. Pure.

Every change of a client's state is made here and nowhere else:

| state | what may happen | next state |
|---|---|---|
| new | an attempt succeeds | up |
| | an attempt fails | down |
| up | an attempt succeeds: credit for four more failures, 32 at most | up |
| | one fails, and credit is left; each failure costs one | up |
| | one fails without credit, or ten seconds after the first failure since the last success | down |
| | another worker says *down*, and nothing has succeeded here since its failures began | down |
| down | its try succeeds, or another worker says *up* after more than two seconds: credit for 16 failures | up |
| | its try succeeds within two seconds: credit for 4 | up |
| | its try succeeds, where all first attempts fail, and they alone: credit for 32, 64 … 1,024 | up |
| | its try fails, or another worker says so: it rests for longer | down |
| | an operator wants it tried: its rest is over | down |
| each | it asks for a pause (`Retry-After`) | paused |
| paused | the pause is over, or an operator forces it | as before the pause |
| each | nothing is heard of it for half an hour (`known_clients.py`) | new |

A client that is *new* may be tried at once, one attempt at a time. One that is *up* stays so if less than 80 % of its
attempts fail. One that is *down* rests for half of the time for which it has been down: 1, 2, 4 … 64 s, each of which
is one pass through one delay queue. Then one delivery tries it.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from notifier.delivery.overload import Overload
from notifier.model.client import ClientKey
from notifier.model.message import Lane
from notifier.model.outcome import Signal

TicketT = TypeVar("TicketT")

EARN, FULL = 4, 32  # failures that a success pays for, and that all of them pay for
MOST_GRACE = 1024  # failures that it may have after an outage, if only first attempts fail, and all of them
MEMORY = 30.0  # seconds for which it is remembered that others fail, or that a first one did not
LONG = 10.0  # seconds of failures alone, after which all credit is gone; silence before them does not count
SHARE_OF_OUTAGE = 0.5
SHORTEST, LONGEST = 1.0, 64.0  # seconds of a rest
AT_ONCE = 1e-3  # seconds by which a whole pass may fall short, or be too long
SLOW = 1.0  # seconds: a client whose attempts take longer, or that is silent for as long, is slow
SILENT, TIMES = 0.1, 4.0  # seconds, and times its usual: the shortest silence that makes a client slow
SMOOTHING = 0.2  # the weight of the newest attempt in the mean


class State(Enum):
    """The state of a client: see the table above."""

    NEW = "new"
    UP = "up"
    DOWN = "down"
    PAUSED = "paused"


class Side(Enum):
    """Which slots attempts at a client take: those of the window, those for slow clients, or those for tries."""

    QUICK = "quick"
    SLOW = "slow"
    PROBE = "probe"

    __hash__ = object.__hash__  # that of Enum is a function in Python


class Change(Enum):
    """What an attempt did to its client's state."""

    DOWN = "down"
    STILL_DOWN = "still down"
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What one worker tells the others of a client, at best effort. All seconds are spans, not moments.

    `failing` is for how long it had failed, `rest` for how long it rests from now on. `parked`: something is in its
    bucket. `cap` is how many attempts at a time it bears, `spacing` the seconds between two if its pace has changed,
    `former_share` the share of failures before it kept that pace; 0 while the pace is tried.
    """

    key: ClientKey
    up: bool
    failing: float = 0.0
    rest: float = 0.0
    cap: int = 1
    spacing: float = 0.0
    former_share: float = 0.0
    parked: bool = False


def whole_pass(seconds: float) -> float:
    """Return the longest wait of this length at most that is one pass through one delay queue."""
    return 2.0 ** math.floor(math.log2(seconds + AT_ONCE))


@dataclass(slots=True, eq=False)
class KnownClient(Generic[TicketT]):
    """One client, as this worker knows it. Moments are seconds of a steady clock.

    `limit` is how many attempts it may have at a time, `step` the seconds that bring a token of its rate (0: no rate).
    Both are this worker's share of what its registration says.
    """

    key: ClientKey
    limit: int
    step: float
    heard: float
    state: State = State.NEW  # but for a pause, see `state_at`
    cap: int = 1  # attempts at a time: grows by one with each success, halves with each rest
    credit: int = 0
    grace: int = FULL // 2  # its credit when it last recovered
    mixed: float = -math.inf  # when a first attempt last succeeded, or a repeat failed
    failing_since: float | None = None  # when the first of its failures in a row began
    outage_from: float = math.inf  # when its last outage began …
    outage_until: float = math.inf  # … and ended, if it has
    next_try: float = -math.inf  # when its rest ends
    paused_until: float = -math.inf
    hold: float = 0.0  # mean seconds of an attempt
    hold_down: float = 0.0  # … as counted for all that are down: 0 if it is not, or was not tried here
    ended: float = -math.inf  # when an attempt last ended
    well: float = -math.inf  # when one last ended well
    side: Side = Side.QUICK
    token_at: float = -math.inf
    line: float = -math.inf  # when the last delivery has its turn that waits for that in the delay queues
    overload: Overload = field(default_factory=Overload)
    running: dict[int, tuple[float, Lane, Side]] = field(default_factory=dict)  # by the ticket's id: when it began
    queues: dict[Lane, deque[TicketT]] | None = None  # while any wait
    waiting: int = 0
    fetched: int = 0  # of those that wait, out of its bucket
    parked: bool = False  # something may wait in its bucket
    pulling: bool = False  # this worker goes through its bucket
    covered_until: float = -math.inf  # before that, a traveller that this worker sent cannot have come back
    replaced: TicketT | None = None  # its last probe, until a parked delivery is the next one
    recovered: float | None = None  # when it recovered, while what was parked before is being delivered

    # ── its state ──

    def state_at(self, now: float) -> State:
        """Return its state, with the pause that it asked for."""
        return State.PAUSED if now < self.paused_until else self.state

    @property
    def up(self) -> bool:
        """True if it is served as it comes, pauses aside."""
        return self.state is State.UP

    @property
    def down(self) -> bool:
        """True if it is tried now and then."""
        return self.state is State.DOWN

    def learn(self, signal: Signal, seconds: float, now: float, *, repeat: bool, least: float) -> Change | None:
        """Note how an attempt of that length ended. `repeat`: not the delivery's first. `least`: seconds of a rest."""
        self.ended = now
        if signal is Signal.NONE:
            if not self.up:
                self.next_try = max(self.next_try, now + SHORTEST)
            return None
        self.hold = self.hold + SMOOTHING * (seconds - self.hold) if self.hold else seconds
        failed = signal is not Signal.RESPONSIVE
        if failed is repeat:
            self.mixed, self.grace = now, FULL // 2
        at_a_time, change = self.cap, None if failed else self._succeed(now)  # which may begin a sample anew
        if seconds <= SLOW:
            self.overload.note(now, failed=failed, braked=signal is Signal.RATE_LIMITED, at_a_time=at_a_time)
        return self._fail(seconds, now, least=least) if failed else change

    def hear(self, news: News, now: float) -> Change | None:
        """Note what another worker says. None if it is nothing new, or if this worker knows better."""
        if news.spacing:
            self.overload.adopt(news.spacing, news.former_share, now)
        if news.up:
            if not self.down or self.failing_since is None or now - self.failing_since <= 2 * SHORTEST:
                return None  # of a short one its own try says more: it may bear no more than the others do
            self.cap = max(self.cap, min(self.limit, news.cap) - 1)
            return self._succeed(now)
        since = now - news.failing
        if self.state is State.NEW or (self.up and self.well >= since):
            return None
        self.failing_since = since if self.failing_since is None else min(self.failing_since, since)
        self.ended, self.credit = max(self.ended, now), 0
        return self._rest(min(LONGEST, news.rest), now)

    def pause(self, until: float) -> None:
        """Leave it alone until then: it asked for it (`Retry-After`)."""
        self.paused_until = max(self.paused_until, until)

    def recall_pause(self, until: float) -> None:
        """Resume a pause that a delivery records, unless this worker has attempted the client or ended a pause."""
        if self.state is State.NEW and self.paused_until == -math.inf:
            self.paused_until = until

    def try_now(self, now: float, *, force: bool) -> None:
        """Let the next delivery try it, whoever is on the way for that. A pause stands, unless `force`."""
        if force:
            self.paused_until = now
        if now >= self.paused_until:
            self.next_try, self.covered_until = min(self.next_try, now), -math.inf

    def _succeed(self, now: float) -> Change | None:
        self.cap = min(self.limit, self.cap + 1)
        if self.state is State.UP:  # nearly always
            if self.credit < FULL:
                self.credit = min(FULL, self.credit + EARN)
            self.failing_since, self.well = None, now
            return None
        recovers, short = self.state is State.DOWN, False
        only_firsts = now - self.mixed > MEMORY
        if recovers and self.failing_since is not None:
            self.outage_from, self.outage_until = self.failing_since, now
            outage = now - self.failing_since
            short = outage <= 2 * SHORTEST
            if not short:  # overload looks like an outage of some seconds, where several workers rest by turns
                self.overload.forget(now, pace=only_firsts or outage > LONG)
        # Half of it at once: each delivery may fail at first, and what waited is served before those come again.
        # After a short one less: it may be overloaded.
        # But more and more if nothing but first attempts failed: they say nothing of the others.
        self.grace = min(MOST_GRACE, 2 * self.grace) if only_firsts else EARN if short else FULL // 2
        self.credit = self.grace
        self.state, self.failing_since, self.well = State.UP, None, now
        if recovers:
            self.recovered, self.line = now, -math.inf
        return Change.RECOVERED if recovers else None

    def _fail(self, seconds: float, now: float, *, least: float) -> Change | None:
        if self.failing_since is None:
            self.failing_since = now - seconds
        down_for = now - self.failing_since
        self.credit = max(0, self.credit - 1) if down_for < LONG else 0
        if self.credit or (self.down and now < self.next_try):
            return None
        rest = whole_pass(min(LONGEST, max(SHORTEST, SHARE_OF_OUTAGE * down_for)))
        return self._rest(rest if least <= rest else min(LONGEST, 2.0 ** math.ceil(math.log2(least))), now)

    def _rest(self, seconds: float, now: float) -> Change:
        rested = self.down
        self.state, self.cap, self.recovered = State.DOWN, max(1, self.cap // 2), None
        self.outage_from = now if self.failing_since is None else self.failing_since
        self.outage_until = math.inf
        self.next_try = now + seconds
        return Change.STILL_DOWN if rested else Change.DOWN

    # ── its traveller ──

    def covered(self, now: float) -> bool:
        """True while a traveller that this worker sent cannot have come back: it will look at the bucket."""
        return now < self.covered_until

    def travels(self, due: float) -> None:
        """Note that a traveller was sent, which cannot come back before `due`."""
        self.covered_until = max(self.covered_until, due)

    # ── what it bears ──

    def silence(self, now: float) -> float:
        """Return for how many seconds an attempt has been running without any answer from the client."""
        for began, _, _ in self.running.values():
            return now - max(began, self.ended)
        return 0.0

    def side_at(self, now: float) -> Side:
        """Return `SLOW` if its attempts take long, or if it is silent for longer than usual."""
        if self.hold > SLOW:
            return Side.SLOW
        if not self.running or now - self.ended <= SILENT:
            return Side.QUICK
        return Side.SLOW if self.silence(now) > min(SLOW, max(SILENT, TIMES * self.hold)) else Side.QUICK

    def tokens(self, now: float) -> int:
        """Return how many attempts its rate, and the pace that it bears, allow at once."""
        most = float(self.limit)
        if self.step:
            most = min(most, (now - self.token_at + max(1.0, self.step)) / self.step)
        if spacing := self.overload.spacing:
            most = min(most, (now - self.token_at + max(0.1, spacing)) / spacing)
        return int(most)

    def take_token(self, now: float) -> None:
        """Note that an attempt begins."""
        if spacing := max(self.step, self.overload.spacing):
            self.token_at = max(now, self.token_at) + spacing

    def pace(self, now: float, at_a_time: int) -> float:
        """Return the seconds between two of its attempts, as things are."""
        silence = self.silence(now)
        hold = max(self.hold, silence) if silence > SILENT else self.hold
        return max(self.step, self.overload.spacing, hold / max(1, at_a_time))

    # ── who runs, and who waits in memory ──

    def end(self, number: int) -> tuple[float, Lane, Side]:
        """Take out the attempt of this ticket's id: when it began, and which slot it took."""
        ended = self.running.pop(number)
        if not self.running:
            self.running.clear()  # an emptied one takes 160 bytes, of each of 100,000 clients
        return ended

    @property
    def idle(self) -> bool:
        """True if no delivery for it is in memory or on its way here."""
        return not self.running and not self.waiting and not self.pulling and self.replaced is None

    def push(self, lane: Lane, ticket: TicketT) -> None:
        """Have it wait in memory."""
        self.queues = self.queues or {}
        self.queues.setdefault(lane, deque()).append(ticket)
        self.waiting += 1

    @property
    def _filled(self) -> list[deque[TicketT]]:
        return [queue for lane in Lane if (queue := (self.queues or {}).get(lane))]

    @property
    def first(self) -> TicketT:
        """The next to begin. Call it only if any wait."""
        return self._filled[0][0]

    def pop(self, *, newest: bool = False) -> TicketT:
        """Take out the next to begin: the oldest of the highest lane; with `newest`, the newest of the lowest lane."""
        ticket = self._filled[-1].pop() if newest else self._filled[0].popleft()
        self.waiting -= 1
        if not self.waiting:
            self.queues = None  # an emptied one takes 700 bytes, of each of 100,000 clients
        return ticket
