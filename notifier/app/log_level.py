"""The level of the log while the worker runs: SIGUSR1 turns debug on and off, `PUT /v1/log-level` sets any."""

from collections.abc import Callable

from notifier.adapters.telemetry.audit import write_audit
from notifier.adapters.telemetry.logs import set_level

DEBUG, USUAL = "debug", "info"


class LogLevel:
    """The log's level, and the ways to change it while the worker runs.

    `follow` is called after each change; a restart begins with the configured level again.
    """

    def __init__(self, configured: str, follow: Callable[[], None]) -> None:
        self.configured = configured
        self.now = configured
        self._follow = follow

    def set(self, level: str, *, by: str) -> None:
        """From now on. `by`: who asked for it, for the log."""
        before, self.now = self.now, level
        write_audit("log_level", level_now=level, level_before=before, by=by)
        set_level(level)
        self._follow()

    def toggle(self) -> None:
        """To debug, or from there back to the configured level (info, where that is debug itself)."""
        usual = USUAL if self.configured == DEBUG else self.configured
        self.set(usual if self.now == DEBUG else DEBUG, by="SIGUSR1")
