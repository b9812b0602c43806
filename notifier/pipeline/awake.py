"""A clock that stands still while this process does: no client is blamed for what it could not have answered.

A process that is frozen, a machine that is moved, a CPU quota used up: afterwards the answers lie unread and deadlines
have passed. By a plain clock every client under way has then been silent for seconds, and after six seconds of it all
that came in the next minutes was put off, each by the length of an attempt (measured: a thousand deliveries).
"""

from collections.abc import Callable

LONGEST_TURN = 0.25  # seconds: it is read at each tick of the worker, every 0.05 s, unless the loop is held


class Awake:
    """Seconds of `steady`, of any gap between two readings as many as a turn of the loop may take."""

    def __init__(self, steady: Callable[[], float]) -> None:
        self._steady = steady
        self._read = steady()
        self._held = 0.0

    def __call__(self) -> float:
        """Now."""
        now = self._steady()
        if now - self._read > LONGEST_TURN:
            self._held += now - self._read - LONGEST_TURN
        self._read = now
        return now - self._held
