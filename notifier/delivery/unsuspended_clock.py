"""A clock that stops while this process is suspended, so that no client is blamed for that time.

A process may be frozen, its machine moved, its CPU quota used up. Afterwards answers lie unread and deadlines have
passed. By a plain clock every client with an attempt under way has then been silent for seconds. After six such seconds
every delivery of the next minutes was put off by the length of an attempt (measured: a thousand deliveries).
"""

from collections.abc import Callable

LONGEST_GAP = 0.25  # seconds: the worker reads the clock every 0.05 s, unless its loop is held


class UnsuspendedClock:
    """Counts the seconds of `steady`, but at most LONGEST_GAP between two readings."""

    def __init__(self, steady: Callable[[], float]) -> None:
        self._steady = steady
        self._read = steady()
        self._held = 0.0

    def __call__(self) -> float:
        """Return the present moment."""
        now = self._steady()
        if now - self._read > LONGEST_GAP:
            self._held += now - self._read - LONGEST_GAP
        self._read = now
        return now - self._held
