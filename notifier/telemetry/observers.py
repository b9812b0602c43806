"""Tells each fact to every observer of it. One that fails is logged, and stops neither the others nor the worker."""

from collections.abc import Sequence
from typing import get_args

import structlog

from notifier.delivery.facts import Fact, Observer


class Observers:
    """The observers, in the order in which they are told."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._of = {
            kind: tuple(observe for observe in observers if kind in getattr(observe, "only", (kind,)))
            for kind in get_args(Fact)
        }

    def observe(self, fact: Fact) -> None:
        """Tell a fact to its observers. Never raises."""
        for observe in self._of[type(fact)]:
            try:
                observe(fact)
            except Exception:  # noqa: BLE001  an observer must not stop a logout
                structlog.get_logger().error("observer_failed", fact=type(fact).__name__)
