"""A client's circuit: closed while it lives, open while it is left alone, half-open for one probe. Pure.

It opens after so many failures in a row, or a failure rate over a window; stays open for a while that doubles with
every failed probe; one success closes it. Only what says that the client is down counts: no connection, no answer,
5xx. An answer of any other kind is life.
"""

from collections import deque
from dataclasses import dataclass, field

from notifier.domain.client import CircuitPolicy

UNPROVEN_SHARE = 0.3  # of `failures` is enough for a client that has not yet succeeded: 3 of the default 10
LONGEST_OPEN = 900.0  # seconds
MOST_RECENT = 1000  # attempts tell the rate as well as all of the window


@dataclass(slots=True)
class Circuit:
    """`open_until` None: closed. `probing`: the one attempt of the half-open state is under way."""

    failures: int = 0
    opened: int = 0  # times in a row: each doubles the time it stays open
    open_until: float | None = None
    probing: bool = False
    _recent: deque[tuple[float, bool]] = field(default_factory=deque)  # (moment, failed), within the window
    _failed: int = 0  # of them

    def blocks(self, now: float) -> bool:
        """Whether an attempt has to wait: it is open, or its probe is under way."""
        return self.open_until is not None and (self.probing or now < self.open_until)

    def begin(self) -> None:
        """An attempt begins; where the circuit is open it is the probe."""
        self.probing = self.open_until is not None

    def alive(self, now: float) -> bool:
        """The client answered; whether that closed the circuit."""
        self.failures = 0
        self.probing = False
        if self.open_until is not None:
            self.open_until = None
            self.opened = 0
            self._forget()
            return True
        self._note(now, failed=False)
        return False

    def down(self, now: float, policy: CircuitPolicy, *, proven: bool) -> bool:
        """The client failed; whether that opened the circuit (a failed probe keeps it open, for longer)."""
        if self.open_until is not None:
            if self.probing:
                self._open(now, policy)
            return False  # else one that was under way when it opened: that is known already
        self.failures += 1
        self._note(now, failed=True)
        if self.failures >= policy.failures * (1.0 if proven else UNPROVEN_SHARE):
            self._open(now, policy)
            return True
        if self._rate_too_high(now, policy):
            self._open(now, policy)
            return True
        return False

    def undecided(self) -> None:
        """The attempt said nothing about the client (a fault of ours): let the next one be the probe."""
        self.probing = False

    def _open(self, now: float, policy: CircuitPolicy) -> None:
        self.open_until = now + min(LONGEST_OPEN, policy.open_for * 2.0 ** min(self.opened, 16))
        self.opened += 1
        self.probing = False
        self._forget()

    def _forget(self) -> None:
        self._recent.clear()
        self._failed = 0

    def _note(self, now: float, *, failed: bool) -> None:
        self._recent.append((now, failed))
        self._failed += failed
        if len(self._recent) > MOST_RECENT:
            self._drop()

    def _drop(self) -> None:
        self._failed -= self._recent.popleft()[1]

    def _rate_too_high(self, now: float, policy: CircuitPolicy) -> bool:
        """Judged by no fewer attempts than the failures in a row that would open it: two of three say little."""
        while self._recent and self._recent[0][0] < now - policy.window:
            self._drop()
        return len(self._recent) >= policy.failures and self._failed >= policy.failure_rate * len(self._recent)
