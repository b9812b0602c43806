"""Keeps what a worker knows of one client: up or resting, what it bears, what runs at it and what waits for it. Pure.

A client is *up* or it *rests*. One that nobody has tried yet may be tried at once, one attempt at a time. Its first
success, and one that ends an outage, earns credit for 16 failures, each further one for four more, 32 at most. A
failure costs one. A client without credit rests, and so does one without
a success for ten seconds. So a client stays up if less than 80 % of its attempts fail. A rest lasts half of the time
for which the client has been down, from one second to a minute. Then one delivery tries it. One success ends the
outage.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar, assert_never

from notifier.domain.message import Lane
from notifier.domain.outcome import Delivered, Failed, Outcome, Reason, Refused
from notifier.pipeline.overload import Overload

Ticket = TypeVar("Ticket")
Key = tuple[str, str]

EARN, FULL = 4, 32  # failures that a success pays for, and that all of them pay for
LONG = 10.0  # seconds without a success, after which all credit is gone
SHARE_OF_OUTAGE = 0.5
SHORTEST, LONGEST = 1.0, 60.0  # seconds of a rest
SLOW = 1.0  # seconds: a client whose attempts take longer, or that is silent for as long, is slow
SILENT, TIMES = 0.1, 4.0  # seconds, and times its usual: the shortest silence that makes a client slow
SMOOTHING = 0.2  # the weight of the newest attempt in the mean


class Side(Enum):
    """Which slots its attempts take: those of the window, or those beside it."""

    QUICK = "quick"
    SLOW = "slow"


class Change(Enum):
    """What an attempt did to its client's state."""

    DOWN = "down"
    RECOVERED = "recovered"


class Mark(Enum):
    """What an attempt says of its client."""

    ALIVE = "alive"  # it answered as a client that works
    BRAKED = "braked"  # it asked for less (429, 408, 425)
    DOWN = "down"  # no connection, no answer, 5xx
    NOTHING = "nothing"  # a fault of ours, a refusing proxy among them


def mark_of(outcome: Outcome) -> Mark:
    """Return what an outcome says of the client."""
    match outcome:
        case Refused(reason=Reason.EGRESS_DENIED) | Failed(reason=Reason.PROXY):
            return Mark.NOTHING
        case Delivered() | Refused():
            return Mark.ALIVE
        case Failed(status=status) if status is not None and status < 500:
            return Mark.BRAKED
        case Failed():
            return Mark.DOWN
        case _:
            assert_never(outcome)


@dataclass(slots=True, eq=False)
class KnownClient(Generic[Ticket]):
    """One client, as this worker knows it. Moments are seconds of a steady clock.

    `limit` is how many attempts it may have at a time, `step` the seconds that bring a token of its rate (0: no rate).
    Both are this worker's share of what its registration says.
    """

    key: Key
    limit: int
    step: float
    heard: float
    up: bool = False
    rests: bool = False  # it failed, and is tried now and then; neither up nor resting: nobody has tried it yet
    cap: int = 1  # attempts at a time: grows by one with each success, halves with each rest
    credit: int = 0
    failing_since: float | None = None  # when the first of its failures in a row began
    outage: tuple[float, float] = (math.inf, math.inf)  # from when until when it was last down
    next_try: float = -math.inf  # when its rest ends
    paused_until: float = -math.inf
    hold: float = 0.0  # mean seconds of an attempt
    ended: float = -math.inf  # when an attempt last ended
    well: float = -math.inf  # when one last ended well
    side: Side = Side.QUICK
    token_at: float = -math.inf
    overload: Overload = field(default_factory=Overload)
    running: dict[int, tuple[float, Lane]] = field(default_factory=dict)  # by the ticket's id: when it began
    queues: dict[Lane, deque[Ticket]] = field(default_factory=dict)
    waiting: int = 0
    parked: bool = False  # something may wait in its bucket
    parks: int = 0  # how often this worker has parked something
    recovered: float | None = None  # when it recovered, while what was parked before is being delivered
    watched_until: float = -math.inf  # until then its bucket is looked at: other workers park until their rest ends
    fetching: int = 0  # deliveries on their way out of its bucket
    leash_due: float = -math.inf  # when the first of its leashes comes back
    leash_until: float = -math.inf  # before that, a leash that this worker sent cannot have come back

    # ── what an attempt says ──

    def learn(self, mark: Mark, seconds: float, now: float) -> Change | None:
        """Note how an attempt of that length ended. Returns what it did to the client's state."""
        self.ended = now
        if mark is Mark.NOTHING:
            if not self.up:
                self.next_try = max(self.next_try, now + SHORTEST)
            return None
        self.hold = self.hold + SMOOTHING * (seconds - self.hold) if self.hold else seconds
        if seconds <= SLOW:
            failed = mark is not Mark.ALIVE
            self.overload.note(now, failed=failed, braked=mark is Mark.BRAKED, at_a_time=self.cap)
        return self._recover(now) if mark is Mark.ALIVE else self._suffer(seconds, now)

    def _recover(self, now: float) -> Change | None:
        recovers = self.rests
        if recovers and self.failing_since is not None:
            self.outage = (self.failing_since, now)
            if now - self.failing_since > 2 * SHORTEST:
                self.overload.forget(now)
        # Half of it at once: each delivery may fail at first, and what waited is served before those come again.
        self.credit = min(FULL, self.credit + EARN) if self.up else FULL // 2
        self.cap = min(self.limit, self.cap + 1)
        self.up, self.rests, self.failing_since, self.well = True, False, None, now
        return Change.RECOVERED if recovers else None

    def _suffer(self, seconds: float, now: float) -> Change | None:
        if self.failing_since is None:
            self.failing_since = now - seconds
        down_for = now - self.failing_since
        self.credit = max(0, self.credit - 1) if down_for < LONG else 0
        if self.credit or (not self.up and now < self.next_try):
            return None
        rested = self.rests
        self.up, self.rests, self.cap = False, True, max(1, self.cap // 2)
        self.outage, self.recovered = (self.failing_since, math.inf), None
        self.next_try = now + min(LONGEST, max(SHORTEST, SHARE_OF_OUTAGE * down_for))
        return None if rested else Change.DOWN

    # ── its leash ──

    def leash_sent(self, due: float) -> None:
        """Note that a leash was put off, which cannot come back before `due`."""
        self.leash_due, self.leash_until = due, max(self.leash_until, due)

    def leash_came(self, due: float, now: float) -> None:
        """Let the last leash try the client, whoever sent it. If another one is known, they merge."""
        self.parked = True
        if due > self.leash_until - SHORTEST:  # the last one that this worker knows, perhaps a little early
            self.leash_until = now
        self.leash_due = self.leash_until
        if self.leash_until <= now:
            self.next_try = min(self.next_try, now)

    def leash_ends(self, due: float) -> None:
        """Note that a leash ends at `due`, or has ended, since its delivery does."""
        self.leash_due, self.leash_until = min(self.leash_due, due), min(self.leash_until, due)

    # ── what it bears ──

    def silence(self, now: float) -> float:
        """Return for how many seconds an attempt has been running without any answer from the client."""
        for began, _ in self.running.values():
            return now - max(began, self.ended)
        return 0.0

    def side_at(self, now: float) -> Side:
        """Return `SLOW` if its attempts take long, or if it is silent for longer than usual."""
        if self.hold > SLOW or self.silence(now) > min(SLOW, max(SILENT, TIMES * self.hold)):
            return Side.SLOW
        return Side.QUICK

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

    # ── who waits in memory ──

    @property
    def idle(self) -> bool:
        """True if no delivery for it is in memory or on its way here."""
        return not self.running and not self.waiting and not self.fetching

    def push(self, lane: Lane, ticket: Ticket) -> None:
        """Have it wait in memory."""
        self.queues.setdefault(lane, deque()).append(ticket)
        self.waiting += 1

    @property
    def next_lane(self) -> Lane:
        """The lane of the next to begin. Call it only if any wait."""
        return next(lane for lane in Lane if self.queues.get(lane))

    def pop(self, *, newest: bool = False) -> Ticket:
        """Take out the next to begin: the oldest of the highest lane; with `newest`, the newest of the lowest lane."""
        filled = [queue for lane in Lane if (queue := self.queues.get(lane))]
        self.waiting -= 1
        return filled[-1].pop() if newest else filled[0].popleft()
