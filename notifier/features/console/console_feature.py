"""The feature `console`: operators look, and act, in a browser."""

from __future__ import annotations

from notifier.feature import Feature, Given, Running


def _run(given: Given) -> Running:
    from notifier.features.console.console_files import console_files

    settings = given.live.now.settings
    if settings.api is None or not settings.api.console.enabled:
        return Running()
    return Running(api=console_files())


CONSOLE = Feature(name="console", run=_run)
