"""Keeps a client's circuit: closed while it answers, open while it is left alone, half-open for one probe. Pure.

It opens after a number of failures in a row, or at a failure rate over a window. It stays open for a time that doubles
with each failed probe. One success closes it. Only a client that seems down counts as a failure: no connection, no
answer, 5xx. Any other answer is a success.
"""

from dataclasses import dataclass

from notifier.domain.client import CircuitPolicy

UNPROVEN_SHARE = 0.3  # of `failures` is enough for a client that has not yet succeeded: 3 of the default 10
LONGEST_OPEN = 900.0  # seconds


@dataclass(slots=True)
class Circuit:
    """`open_until` None: closed. `probing`: the one attempt of the half-open state is under way."""

    failures: int = 0
    opened: int = 0  # times in a row: each doubles the time it stays open
    open_until: float | None = None
    probing: bool = False
    _since: float = 0.0  # when the present half of the window began
    _now: tuple[int, int] = (0, 0)  # attempts, and those that failed, in this half
    _before: tuple[int, int] = (0, 0)  # and in the half before it

    def blocks(self, now: float) -> bool:
        """True if an attempt has to wait: the circuit is open, or its probe is under way."""
        return self.open_until is not None and (self.probing or now < self.open_until)

    def begin(self) -> None:
        """Note that an attempt begins. If the circuit is open, it is the probe."""
        self.probing = self.open_until is not None

    def alive(self, now: float, policy: CircuitPolicy) -> bool:
        """Note that the client answered. Returns True if that closed the circuit."""
        self.failures = 0
        self.probing = False
        if self.open_until is not None:
            self.open_until = None
            self.opened = 0
            self._forget()
            return True
        self._note(now, policy, failed=False)
        return False

    def down(self, now: float, policy: CircuitPolicy, *, proven: bool) -> bool:
        """Note that the client failed. Returns True if that opened the circuit; a failed probe keeps it open."""
        if self.open_until is not None:
            if self.probing:
                self._open(now, policy)
            return False  # an attempt that was under way when it opened says nothing new
        self.failures += 1
        self._note(now, policy, failed=True)
        if self.failures >= policy.failures * (1.0 if proven else UNPROVEN_SHARE):
            self._open(now, policy)
            return True
        if self._rate_too_high(policy):
            self._open(now, policy)
            return True
        return False

    def undecided(self) -> None:
        """Note that the attempt said nothing about the client (a fault of ours). The next one is the probe."""
        self.probing = False

    def _open(self, now: float, policy: CircuitPolicy) -> None:
        self.open_until = now + min(LONGEST_OPEN, policy.open_for * 2.0 ** min(self.opened, 16))
        self.opened += 1
        self.probing = False
        self._forget()

    def _forget(self) -> None:
        self._now = self._before = (0, 0)

    def _note(self, now: float, policy: CircuitPolicy, *, failed: bool) -> None:
        """Count the attempt in the newer half of the window; forget the older half in time."""
        if now - self._since >= policy.window / 2:
            self._before = self._now if now - self._since < policy.window else (0, 0)
            self._now, self._since = (0, 0), now
        self._now = (self._now[0] + 1, self._now[1] + failed)

    def _rate_too_high(self, policy: CircuitPolicy) -> bool:
        """True if the failure rate is too high. At least `failures` attempts are judged: two of three say little."""
        attempts, failed = self._now[0] + self._before[0], self._now[1] + self._before[1]
        return attempts >= policy.failures and failed >= policy.failure_rate * attempts
