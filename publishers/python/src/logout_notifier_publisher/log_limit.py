"""Limit repeated log lines to one a minute for each cause."""

from collections.abc import Callable, Hashable

EVERY = 60.0


class LogLimit:
    """Decide whether the line of a cause is logged. `clock` is monotonic."""

    def __init__(self, clock: Callable[[], float], every: float = EVERY) -> None:
        self._clock = clock
        self._every = every
        self._told: dict[Hashable, float] = {}

    def allows(self, cause: Hashable) -> bool:
        """True for the first, and then at most once in `every` seconds."""
        now = self._clock()
        if now - self._told.get(cause, -self._every) < self._every:
            return False
        self._told[cause] = now
        return True

    def forget(self, cause: Hashable) -> None:
        """The next line of this cause is a first one again."""
        self._told.pop(cause, None)
