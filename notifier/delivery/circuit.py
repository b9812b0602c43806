"""Decides whether the attempts at one client are likely to fail: its circuit. Pure: the clock is an argument.

| state | event | next state |
|---|---|---|
| untried | an attempt succeeds | closed, with a failure budget of 16 |
| | an attempt fails | open |
| closed | an attempt succeeds: four more failures in the budget, 32 at most | closed |
| | one fails, and the budget is not spent | closed |
| | one fails with the budget spent, or ten seconds after the first failure since the last success | open |
| | a peer reports *open*, and nothing has succeeded here since the failures there began | open |
| open | its rest ends, or an operator requests a probe | half-open: open, and `next_try` has passed |
| half-open | the probe succeeds, or a peer reports *closed* after more than two seconds: budget of 16 | closed |
| | the probe succeeds within two seconds: budget of 4 | closed |
| | the probe succeeds, and nothing but first attempts fails: budget of 32, 64 … 1,024 | closed |
| | the probe fails, or a peer reports so | open for longer |

A client of which less than 80 % of the attempts fail keeps a closed circuit. A circuit stays open for half of the
outage so far: 1, 2, 4 … 64 s, each of which is one pass through one delay queue.
"""

import math
from dataclasses import dataclass
from enum import Enum

EARN, FULL = 4, 32  # failures that a success adds to the budget, and its maximum
MOST_GRACE = 1024  # the maximum after a recovery, if nothing but first attempts fails
MEMORY = 30.0  # seconds for which a repeat's failure or a first attempt's success is remembered
LONG = 10.0  # seconds of failures alone, after which the budget is spent
SHARE_OF_OUTAGE = 0.5
SHORTEST, LONGEST = 1.0, 64.0  # seconds for which a circuit is open
AT_ONCE = 1e-3  # seconds by which a whole pass may fall short, or be too long


class State(Enum):
    """The state of a circuit. PAUSED is that of a client which requested a pause: see `KnownClient.state_at`."""

    UNTRIED = "untried"
    CLOSED = "closed"
    OPEN = "open"
    PAUSED = "paused"


class Change(Enum):
    """What an event did to the circuit."""

    OPENED = "opened"
    STILL_OPEN = "still open"
    RECOVERED = "recovered"


def whole_pass(seconds: float) -> float:
    """Return the longest wait of this length at most that is one pass through one delay queue."""
    return 2.0 ** math.floor(math.log2(seconds + AT_ONCE))


@dataclass(slots=True)
class Circuit:
    """The circuit of one client. `budget` failures may follow one another. Only the methods write a member."""

    state: State = State.UNTRIED
    budget: int = 0
    recovery_budget: int = FULL // 2
    mixed_at: float = -math.inf  # when a first attempt last succeeded, or a repeat failed
    failing_since: float | None = None  # when the first of its failures in a row began
    succeeded_at: float = -math.inf
    outage_from: float = math.inf  # when its last outage began …
    outage_until: float = math.inf  # … and ended, if it has
    next_try: float = -math.inf

    def only_first_attempts_fail(self, now: float) -> bool:
        """Return True if no repeat has failed and no first attempt has succeeded for long."""
        return now - self.mixed_at > MEMORY

    def on_success(self, now: float, *, repeat: bool = True) -> Change | None:
        """Note a success. `repeat`: not the delivery's first attempt."""
        if not repeat:
            self.mixed_at, self.recovery_budget = now, FULL // 2
        before, since = self.state, self.failing_since
        self.failing_since, self.succeeded_at = None, now
        if before is State.CLOSED:  # nearly always
            if self.budget < FULL:
                self.budget = min(FULL, self.budget + EARN)
            return None
        short = False
        if before is State.OPEN and since is not None:
            self.outage_from, self.outage_until = since, now
            short = now - since <= 2 * SHORTEST
        # Half of the maximum: each pending delivery may fail at first. Less after a short outage, which overload looks
        # like; more and more if nothing but first attempts fails: they are no evidence of later attempts.
        former, usual = self.recovery_budget, EARN if short else FULL // 2
        self.recovery_budget = min(MOST_GRACE, 2 * former) if self.only_first_attempts_fail(now) else usual
        self.budget, self.state = self.recovery_budget, State.CLOSED
        return Change.RECOVERED if before is State.OPEN else None

    def has_been_open_at(self, moment: float) -> bool:
        """Return True if the last outage includes this moment."""
        return self.outage_from <= moment <= self.outage_until

    def on_failure(self, seconds: float, now: float, *, repeat: bool, least: float) -> Change | None:
        """Note a failure after so many seconds. The circuit opens for at least `least` seconds."""
        if repeat:
            self.mixed_at, self.recovery_budget = now, FULL // 2
        if self.failing_since is None:
            self.failing_since = now - seconds
        failing = now - self.failing_since
        self.budget = max(0, self.budget - 1) if failing < LONG else 0
        if self.budget or (self.state is State.OPEN and now < self.next_try):
            return None
        rest = whole_pass(min(LONGEST, max(SHORTEST, SHARE_OF_OUTAGE * failing)))
        return self._open(rest if least <= rest else min(LONGEST, 2.0 ** math.ceil(math.log2(least))), now)

    def on_internal_fault(self, now: float) -> None:
        """Note an attempt that failed for an internal reason: unless the circuit is closed, the next is not at once."""
        if self.state is not State.CLOSED:
            self.next_try = max(self.next_try, now + SHORTEST)

    def on_peer_closed(self, now: float) -> Change | None:
        """Note that a peer's probe succeeded. After a short outage this worker's probe is better evidence."""
        if self.state is not State.OPEN or self.failing_since is None or now - self.failing_since <= 2 * SHORTEST:
            return None
        return self.on_success(now)

    def on_peer_open(self, failing_since: float, rest: float, now: float) -> Change | None:
        """Note that a peer's circuit is open for `rest` seconds more. None if this worker has newer evidence."""
        closed = self.state is State.CLOSED
        if self.state is State.UNTRIED or (closed and self.succeeded_at >= failing_since):
            return None
        self.failing_since = failing_since if self.failing_since is None else min(self.failing_since, failing_since)
        self.budget = 0
        return self._open(min(LONGEST, rest), now)

    def on_operator_probe(self, now: float) -> None:
        """End the rest: an operator requests a probe."""
        self.next_try = min(self.next_try, now)

    def _open(self, seconds: float, now: float) -> Change:
        was_open = self.state is State.OPEN
        self.state, self.next_try = State.OPEN, now + seconds
        self.outage_from = now if self.failing_since is None else self.failing_since
        self.outage_until = math.inf
        return Change.STILL_OPEN if was_open else Change.OPENED
