"""The delays between attempts of one activity, doubled after each failure."""

import random


class Backoff:
    """Delays from `first` to `longest` seconds. `jitter`: the part of a delay that is random."""

    def __init__(self, first: float, longest: float, *, jitter: float = 0.0) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self._next = first

    def next_delay(self) -> float:
        """Return the seconds to wait after a failure."""
        delay, self._next = self._next, min(2 * self._next, self._longest)
        return delay * random.uniform(1 - self._jitter, 1)  # noqa: S311  no secret

    def reset(self) -> None:
        """Start again with the first delay."""
        self._next = self._first
