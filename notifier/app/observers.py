"""Tells each observer of each fact. One that fails is named in the log and stops nobody: what only watches must not."""

from collections.abc import Sequence

import structlog

from notifier.adapters.configuration.config_file import read_subject_key
from notifier.adapters.telemetry.logs import SubjectHash
from notifier.pipeline.facts import Fact, Observer
from notifier.settings import Settings


class Observers:
    """Those who are told of what happens, in order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def observe(self, fact: Fact) -> None:
        """Tell all of them. Never raises."""
        for observe in self._observers:
            try:
                observe(fact)
            except Exception:  # noqa: BLE001  around one observer: what only watches must not stop a logout
                structlog.get_logger().error("observer_failed", fact=type(fact).__name__)


def subject_hash(settings: Settings) -> SubjectHash:
    """The hash under which logs show `sub` and `sid`. Raises ConfigurationError."""
    key = read_subject_key(settings)
    return SubjectHash(None if key is None else key.encode())
