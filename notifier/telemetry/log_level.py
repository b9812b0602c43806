"""Changes the log level while the worker runs: SIGUSR1 turns debug on and off, `PUT /v1/log-level` sets any level."""

from collections.abc import Callable

from notifier.telemetry.audit import write_audit
from notifier.telemetry.logs import set_level

DEBUG, USUAL = "debug", "info"


class LogLevel:
    """The log level. `follow` is called after each change. A restart returns to the configured level."""

    def __init__(self, configured: str, follow: Callable[[], None]) -> None:
        self.configured = configured
        self.now = configured
        self._follow = follow

    def set(self, level: str, *, by: str) -> None:
        """Set the level. `by` names who asked for it, for the log."""
        before, self.now = self.now, level
        write_audit("log_level", level_now=level, level_before=before, by=by)
        set_level(level)
        self._follow()

    def toggle(self) -> None:
        """Switch to debug, or from debug back to the configured level (to info if that is debug)."""
        usual = USUAL if self.configured == DEBUG else self.configured
        self.set(usual if self.now == DEBUG else DEBUG, by="SIGUSR1")
