"""Decides when a place of keys is asked, and when it is left alone. Times are seconds of a steady clock.

After a fault nobody asks the place for 1 s. Then a look tries it, and after that every 2 s: deliveries that wait for
the key come once a look finds it well. A fault that somebody must correct is looked at every 30 s only, since a wrong
secret that is sent often locks accounts.

A throttled service answers its one look, so it is asked again after each second: at its own rate, and not 500 times a
second. It may ask to be left alone for up to 30 s.
"""

from notifier.tokens.signature import SignatureResult

FIRST_WAIT, AWAY_WAIT, LONGEST_WAIT = 1.0, 2.0, 30.0
LONGEST_LINE = 0.5
"""Seconds that a signature may be expected to wait for its turn.

A delivery that waits here takes room that those of other issuers need: it is better put off.
"""
_WEIGHT = 0.1  # of the newest signature in the mean


class SignerCircuit:
    """What is known of one key at its place: whether it can be asked, since when not, and how fast it is."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._faults = 0
        self._seconds = 0.0  # mean of a signature
        self.opened = float("-inf")
        self.until = float("-inf")
        """When it may be looked at again, if it is open."""
        self.is_open = False

    def failed(self, began: float, now: float, wait: float | None, result: SignatureResult) -> None:
        """Note a fault. Of several requests at the same time only the first fault counts."""
        if self.is_open and began < self.opened:
            return
        self.is_open, self.opened = True, now
        self._faults += 1
        own = FIRST_WAIT if self._faults == 1 else AWAY_WAIT
        if result is SignatureResult.WRONG:  # it stays so until somebody corrects it
            own = LONGEST_WAIT
        self.until = now + max(own, min(wait or 0.0, LONGEST_WAIT))

    def succeeded(self, began: float, seconds: float) -> None:
        """Note a signature that was asked at `began`. One that was asked before the last fault proves nothing."""
        self._seconds += (_WEIGHT if self._seconds else 1.0) * (seconds - self._seconds)
        if began >= self.opened:
            self.is_open, self._faults = False, 0

    @property
    def pace(self) -> float:
        """How many signatures it makes a second, as far as is known."""
        return self._concurrency / self._seconds if self._seconds else float("inf")

    def crowded(self, waiting: int) -> bool:
        """True if another signature, behind so many that wait, would wait too long for its turn."""
        return waiting * self._seconds > LONGEST_LINE * self._concurrency
