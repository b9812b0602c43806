"""The section `api.console`: the pages for operators, which the API listener serves."""

from notifier.settings.values import Section


class ConsoleSettings(Section):
    """The console: pages for operators, at `/console/` of the API's address."""

    enabled: bool = True
    """Serve it."""
