"""An event loop whose time is virtual: it jumps to the next timer, so that an hour passes in a second.

The loop is also the core that workers run on. Work declares its length (`spend`), and everything else
waits meanwhile, as it does on a real core.
"""

import asyncio


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. `now`: seconds since the beginning; `busy`: seconds of work."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.busy = 0.0
        self._clock_resolution = 1e-9
        self._selector = self  # BaseEventLoop waits for I/O and for the next timer in its `select`

    def time(self) -> float:
        """Return the virtual time."""
        return self.now

    def spend(self, seconds: float) -> None:
        """Do work that takes so long."""
        self.now += seconds
        self.busy += seconds

    def select(self, timeout: float | None) -> list[object]:
        """Wait until the next timer. There is no I/O."""
        if timeout is None:
            raise RuntimeError("everything waits, and no timer is set")
        self.now += timeout
        return []

    def _process_events(self, event_list: list[object]) -> None:
        """Nothing came, see `select`."""

    def _write_to_self(self) -> None:
        """No other thread calls."""
