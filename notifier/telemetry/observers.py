"""Passes each fact to the observers that handle it. A failing observer is logged and stops nothing else."""

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
        """Pass a fact to its observers. Never raises."""
        for observe in self._of[type(fact)]:
            try:
                observe(fact)
            except Exception:  # noqa: BLE001  an observer must not stop a logout
                structlog.get_logger().error("observer_failed", fact=type(fact).__name__)
