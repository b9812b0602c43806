"""Tells every observer each fact. An observer that fails is logged, and stops neither the others nor the worker."""

from collections.abc import Sequence

import structlog

from notifier.delivery.facts import Fact, Observer


class Observers:
    """The observers, in the order in which they are told."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def observe(self, fact: Fact) -> None:
        """Tell all observers a fact. Never raises."""
        for observe in self._observers:
            try:
                observe(fact)
            except Exception:  # noqa: BLE001  an observer must not stop a logout
                structlog.get_logger().error("observer_failed", fact=type(fact).__name__)
