"""Limit repeated log lines to one per minute and cause."""

from collections.abc import Callable, Hashable

DEFAULT_SECONDS = 60.0


class LogLimit:
    """Decide whether the line of a cause is logged. `clock` is monotonic."""

    def __init__(self, clock: Callable[[], float], seconds: float = DEFAULT_SECONDS) -> None:
        self._clock = clock
        self._seconds = seconds
        self._logged_at: dict[Hashable, float] = {}

    def allows(self, cause: Hashable) -> bool:
        """Return True for the first call, and then at most once in `seconds` seconds."""
        now = self._clock()
        if now - self._logged_at.get(cause, -self._seconds) < self._seconds:
            return False
        self._logged_at[cause] = now
        return True

    def forget(self, cause: Hashable) -> None:
        """Log the next line of this cause at once."""
        self._logged_at.pop(cause, None)
