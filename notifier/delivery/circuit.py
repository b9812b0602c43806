"""Decides whether the attempts at one client are likely to fail: its circuit. Pure: the clock is an argument.

| state | event | next state |
|---|---|---|
| untried | success · failure | closed, with the recovery budget of failures · open |
| closed | success | closed, with 4 more failures in the budget, 32 at most |
| closed | failure | closed, with one failure less in the budget |
| closed | failure that empties the budget, or 10 s after the first since the last success | open |
| closed | peer open, whose failures began after the last success here | open as long as there, 64 s at most |
| open | its time is over, or operator probe | half-open |
| half-open | failure | open for half of the outage so far: 1, 2, 4 … 64 s, one pass through one delay queue |
| open, half-open | success, or peer closed after more than 2 s of failures | closed, with the recovery budget |
| open, half-open | peer open | open as long as there, 64 s at most |
| open, half-open | internal fault | open for 1 s at least |

Other events change no state, nor does the failure of a fresh delivery that is attempted while the circuit is open.

The recovery budget is 16 failures, as each pending delivery may fail at first. It is 4 after an outage of 2 s at most,
which overload looks like. It doubles each time, up to 1,024, if for 30 s no first attempt has succeeded and no repeat
has failed: failures of first attempts alone do not predict those of later attempts.
"""

import math
from dataclasses import dataclass
from enum import Enum

from notifier.model.backoff import one_pass

FAILURES_PER_SUCCESS, MAX_BUDGET_FAILURES = 4, 32
RECOVERY_BUDGET_FAILURES, SHORT_OUTAGE_BUDGET_FAILURES, MAX_RECOVERY_BUDGET_FAILURES = 16, 4, 1024
SHORT_OUTAGE_SECONDS = 2.0
MIXED_MEMORY_SECONDS = 30.0  # for which a repeat's failure or a first attempt's success is remembered
MAX_FAILING_SECONDS = 10.0  # without a success, after which the budget is spent
MIN_OPEN_SECONDS, MAX_OPEN_SECONDS, OPEN_SHARE_OF_OUTAGE = 1.0, 64.0, 0.5

State = Enum("State", ("UNTRIED", "CLOSED", "OPEN"))  # half-open: open, and `next_try` has passed
Change = Enum("Change", ("OPENED", "STILL_OPEN", "RECOVERED"))  # what an event did to the circuit


@dataclass(slots=True)
class Circuit:
    """The circuit of one client. `budget` failures may follow one another. Only the methods write a member."""

    state: State = State.UNTRIED
    budget: int = 0
    recovery_budget: int = RECOVERY_BUDGET_FAILURES
    mixed_at: float = -math.inf  # when a first attempt last succeeded, or a repeat failed
    failing_since: float | None = None  # when the first of its failures in a row began
    succeeded_at: float = -math.inf
    outage_from: float = math.inf  # when its last outage began …
    outage_until: float = math.inf  # … and ended, if it has
    next_try: float = -math.inf

    @property
    def last_outage_seconds(self) -> float:
        """The length of the last outage that ended."""
        return self.outage_until - self.outage_from

    def only_first_attempts_fail(self, now: float) -> bool:
        """Return True if no repeat has failed and no first attempt has succeeded for long."""
        return now - self.mixed_at > MIXED_MEMORY_SECONDS

    def on_success(self, now: float, *, repeat: bool = True) -> Change | None:
        """Note a success. `repeat`: not the delivery's first attempt."""
        if not repeat:
            self.mixed_at, self.recovery_budget = now, RECOVERY_BUDGET_FAILURES
        before, since = self.state, self.failing_since
        self.failing_since, self.succeeded_at = None, now
        if before is State.CLOSED:  # nearly always
            if self.budget < MAX_BUDGET_FAILURES:
                self.budget = min(MAX_BUDGET_FAILURES, self.budget + FAILURES_PER_SUCCESS)
            return None
        usual = RECOVERY_BUDGET_FAILURES
        if since is not None:  # so it was open
            self.outage_from, self.outage_until = since, now
            usual = SHORT_OUTAGE_BUDGET_FAILURES if now - since <= SHORT_OUTAGE_SECONDS else usual
        if self.only_first_attempts_fail(now):
            usual = min(MAX_RECOVERY_BUDGET_FAILURES, 2 * self.recovery_budget)
        self.budget, self.recovery_budget, self.state = usual, usual, State.CLOSED
        return Change.RECOVERED if before is State.OPEN else None

    def on_failure(self, seconds: float, now: float, *, repeat: bool, least: float) -> Change | None:
        """Note a failure after so many seconds. `repeat`: as in `on_success`. It opens for `least` seconds at least."""
        if repeat:
            self.mixed_at, self.recovery_budget = now, RECOVERY_BUDGET_FAILURES
        if self.failing_since is None:
            self.failing_since = now - seconds
        failing = now - self.failing_since
        self.budget = max(0, self.budget - 1) if failing < MAX_FAILING_SECONDS else 0
        if self.budget or (self.state is State.OPEN and now < self.next_try):
            return None
        seconds = one_pass(min(MAX_OPEN_SECONDS, max(MIN_OPEN_SECONDS, OPEN_SHARE_OF_OUTAGE * failing)))
        return self._open(seconds if least <= seconds else one_pass(least, "up"), now)

    def on_internal_fault(self, now: float) -> None:
        """Note an attempt that failed for an internal reason: while the circuit is open, the next is not at once."""
        if self.state is not State.CLOSED:
            self.next_try = max(self.next_try, now + MIN_OPEN_SECONDS)

    def on_peer_closed(self, now: float) -> Change | None:
        """Note that a peer's probe succeeded. After a short outage this worker's probe is better evidence."""
        since = now if self.failing_since is None else self.failing_since
        return self.on_success(now) if self.state is State.OPEN and now - since > SHORT_OUTAGE_SECONDS else None

    def on_peer_open(self, failing_since: float, rest: float, now: float) -> Change | None:
        """Note that a peer's circuit is open for `rest` seconds more. None if this worker has newer evidence."""
        if self.state is State.UNTRIED or (self.state is State.CLOSED and self.succeeded_at >= failing_since):
            return None
        self.failing_since = failing_since if self.failing_since is None else min(self.failing_since, failing_since)
        self.budget = 0
        return self._open(rest, now)

    def on_operator_probe(self, now: float) -> None:
        """Become half-open: an operator requests a probe."""
        self.next_try = min(self.next_try, now)

    def has_been_open_at(self, moment: float) -> bool:
        """Return True if the last outage includes this moment."""
        return self.outage_from <= moment <= self.outage_until

    def _open(self, seconds: float, now: float) -> Change:
        change = Change.STILL_OPEN if self.state is State.OPEN else Change.OPENED
        self.state, self.next_try = State.OPEN, now + min(MAX_OPEN_SECONDS, seconds)
        self.outage_from, self.outage_until = now if self.failing_since is None else self.failing_since, math.inf
        return change
