"""Decides whether the attempts at one client are likely to fail: its circuit. Pure: the clock is an argument.

| state | event | next state |
|---|---|---|
| untried | success · failure | closed, with the recovery budget of failures · open |
| closed | success | closed, with 4 more failures in the budget, 32 at most |
| closed | failure | closed, with one failure less in the budget |
| closed | failure that empties the budget, or 10 s after the first since the last success | open |
| closed | peer open, whose failures began after the last success here | open as long as there, 64 s at most |
| open | its time is over, or operator probe | half-open |
| half-open | failure | open for half of the outage so far: 1, 2, 4 … 64 s, the delay of one queue |
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

from notifier.model.backoff import one_hop

FAILURES_PER_SUCCESS, MAX_BUDGET_FAILURES = 4, 32
RECOVERY_BUDGET_FAILURES, SHORT_OUTAGE_BUDGET_FAILURES, MAX_RECOVERY_BUDGET_FAILURES = 16, 4, 1024
SHORT_OUTAGE_SECONDS = 2.0
CONTRARY_MEMORY_SECONDS = 30.0  # for which a failed repeat or a successful first attempt is remembered
MAX_FAILING_SECONDS = 10.0  # without a success, after which the budget is spent
MIN_OPEN_SECONDS, MAX_OPEN_SECONDS, OPEN_SHARE_OF_OUTAGE = 1.0, 64.0, 0.5

State = Enum("State", ("UNTRIED", "CLOSED", "OPEN"))  # half-open: open, and `probe_at` has passed
CircuitChange = Enum("CircuitChange", ("OPENED", "STILL_OPEN", "RECOVERED"))  # what an event did to the circuit


@dataclass(slots=True)
class Circuit:
    """The circuit of one client. `budget`: how many more failures the closed circuit tolerates.

    A *first attempt* is the first of its delivery, a *repeat* any later attempt. Only the methods write a member.
    """

    state: State = State.UNTRIED
    budget: int = 0
    recovery_budget: int = RECOVERY_BUDGET_FAILURES
    contrary_at: float = -math.inf  # when a first attempt last succeeded, or a repeat failed
    failing_since: float | None = None  # when the first failure since the last success began
    succeeded_at: float = -math.inf
    outage_from: float = math.inf  # when the last outage began …
    outage_until: float = math.inf  # … and ended; infinite while it lasts
    probe_at: float = -math.inf  # while open: when the circuit becomes half-open

    @property
    def last_outage_seconds(self) -> float:
        """The length of the last outage that ended."""
        return self.outage_until - self.outage_from

    def only_first_attempts_fail(self, now: float) -> bool:
        """Return True if no repeat has failed and no first attempt has succeeded for 30 s."""
        return now - self.contrary_at > CONTRARY_MEMORY_SECONDS

    def on_success(self, now: float, *, is_repeat: bool = True) -> CircuitChange | None:
        """Record a successful attempt. `is_repeat`: it was not the first attempt of its delivery."""
        if not is_repeat:
            self.contrary_at, self.recovery_budget = now, RECOVERY_BUDGET_FAILURES
        former, failing_since = self.state, self.failing_since
        self.failing_since, self.succeeded_at = None, now
        if former is State.CLOSED:  # nearly always
            if self.budget < MAX_BUDGET_FAILURES:
                self.budget = min(MAX_BUDGET_FAILURES, self.budget + FAILURES_PER_SUCCESS)
            return None
        budget = RECOVERY_BUDGET_FAILURES
        if failing_since is not None:  # the circuit was open
            self.outage_from, self.outage_until = failing_since, now
            budget = SHORT_OUTAGE_BUDGET_FAILURES if now - failing_since <= SHORT_OUTAGE_SECONDS else budget
        if self.only_first_attempts_fail(now):
            budget = min(MAX_RECOVERY_BUDGET_FAILURES, 2 * self.recovery_budget)
        self.budget, self.recovery_budget, self.state = budget, budget, State.CLOSED
        return CircuitChange.RECOVERED if former is State.OPEN else None

    def on_failure(
        self, attempt_seconds: float, now: float, *, is_repeat: bool, min_open_seconds: float
    ) -> CircuitChange | None:
        """Record an attempt that failed after `attempt_seconds`. `is_repeat`: see `on_success`.

        If the circuit opens, it stays open for at least `min_open_seconds`.
        """
        if is_repeat:
            self.contrary_at, self.recovery_budget = now, RECOVERY_BUDGET_FAILURES
        if self.failing_since is None:
            self.failing_since = now - attempt_seconds
        failing_seconds = now - self.failing_since
        self.budget = max(0, self.budget - 1) if failing_seconds < MAX_FAILING_SECONDS else 0
        is_open_longer = self.state is State.OPEN and now < self.probe_at  # another delivery than the probe failed
        if self.budget or is_open_longer:
            return None
        open_seconds = one_hop(min(MAX_OPEN_SECONDS, max(MIN_OPEN_SECONDS, OPEN_SHARE_OF_OUTAGE * failing_seconds)))
        if open_seconds < min_open_seconds:
            open_seconds = one_hop(min_open_seconds, "up")
        return self._open(open_seconds, now)

    def on_internal_fault(self, now: float) -> None:
        """Record an attempt that failed for an internal reason: an open circuit stays open for 1 s at least."""
        if self.state is not State.CLOSED:
            self.probe_at = max(self.probe_at, now + MIN_OPEN_SECONDS)

    def on_peer_closed(self, now: float) -> CircuitChange | None:
        """Record a peer's successful probe, which closes the circuit unless the outage here is shorter than 2 s."""
        failing_since = now if self.failing_since is None else self.failing_since
        is_long_outage = now - failing_since > SHORT_OUTAGE_SECONDS
        return self.on_success(now) if self.state is State.OPEN and is_long_outage else None

    def on_peer_open(self, failing_since: float, open_seconds: float, now: float) -> CircuitChange | None:
        """Open the circuit for `open_seconds`, as a peer reports; unless this worker has newer evidence or none at all.

        `failing_since`: when the peer's failures began.
        """
        has_newer_success = self.state is State.CLOSED and self.succeeded_at >= failing_since
        if self.state is State.UNTRIED or has_newer_success:
            return None
        self.failing_since = failing_since if self.failing_since is None else min(self.failing_since, failing_since)
        self.budget = 0
        return self._open(open_seconds, now)

    def on_operator_probe(self, now: float) -> None:
        """Become half-open now, because an operator requests a probe."""
        self.probe_at = min(self.probe_at, now)

    def was_open_at(self, moment: float) -> bool:
        """Return True if this moment lies in the last outage."""
        return self.outage_from <= moment <= self.outage_until

    def _open(self, seconds: float, now: float) -> CircuitChange:
        change = CircuitChange.STILL_OPEN if self.state is State.OPEN else CircuitChange.OPENED
        self.state, self.probe_at = State.OPEN, now + min(MAX_OPEN_SECONDS, seconds)
        self.outage_from, self.outage_until = now if self.failing_since is None else self.failing_since, math.inf
        return change
