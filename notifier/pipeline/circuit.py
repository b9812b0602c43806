"""A client's circuit: closed while it lives, open while it is left alone, half-open for one probe. Pure.

It opens after so many failures in a row, or a failure rate over a window; stays open for a while that doubles with
every failed probe; one success closes it. Only what says that the client is down counts: no connection, no answer,
5xx. An answer of any other kind is life.
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
        """Whether an attempt has to wait: it is open, or its probe is under way."""
        return self.open_until is not None and (self.probing or now < self.open_until)

    def begin(self) -> None:
        """An attempt begins; where the circuit is open it is the probe."""
        self.probing = self.open_until is not None

    def alive(self, now: float, policy: CircuitPolicy) -> bool:
        """The client answered; whether that closed the circuit."""
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
        """The client failed; whether that opened the circuit (a failed probe keeps it open, for longer)."""
        if self.open_until is not None:
            if self.probing:
                self._open(now, policy)
            return False  # else one that was under way when it opened: that is known already
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
        """The attempt said nothing about the client (a fault of ours): let the next one be the probe."""
        self.probing = False

    def _open(self, now: float, policy: CircuitPolicy) -> None:
        self.open_until = now + min(LONGEST_OPEN, policy.open_for * 2.0 ** min(self.opened, 16))
        self.opened += 1
        self.probing = False
        self._forget()

    def _forget(self) -> None:
        self._now = self._before = (0, 0)

    def _note(self, now: float, policy: CircuitPolicy, *, failed: bool) -> None:
        """Two halves of the window are counted, and the older one let go: that is all the memory it takes."""
        if now - self._since >= policy.window / 2:
            self._before = self._now if now - self._since < policy.window else (0, 0)
            self._now, self._since = (0, 0), now
        self._now = (self._now[0] + 1, self._now[1] + failed)

    def _rate_too_high(self, policy: CircuitPolicy) -> bool:
        """Judged by no fewer attempts than the failures in a row that would open it: two of three say little."""
        attempts, failed = self._now[0] + self._before[0], self._now[1] + self._before[1]
        return attempts >= policy.failures and failed >= policy.failure_rate * attempts
