"""Passes each fact to the observers that handle it. An observer's failure is logged, and the others continue."""

from collections.abc import Callable
from typing import Any

import structlog

from notifier.delivery.facts import Fact, FactHandlers, Observer


class Observers:
    """The observers of a worker, in the order in which they receive a fact."""

    def __init__(self) -> None:
        self._observers: dict[Observer, None] = {}
        self._by_kind: dict[type[Fact], tuple[Callable[[Any], object], ...]] = {}

    def add(self, *observers: Observer) -> None:
        """Pass facts to these observers, too."""
        self._observers |= dict.fromkeys(observers)
        self._by_kind.clear()

    def remove(self, observer: Observer) -> None:
        """Stop passing facts to this observer."""
        self._observers.pop(observer, None)
        self._by_kind.clear()

    def observe(self, fact: Fact) -> None:
        """Pass a fact to its observers. Never raises."""
        kind = type(fact)
        handlers = self._by_kind.get(kind)
        if handlers is None:
            all_handlers = (_get_handler(observer, kind) for observer in self._observers)
            handlers = self._by_kind[kind] = tuple(handler for handler in all_handlers if handler is not None)
        for handle in handlers:
            try:
                handle(fact)
            except Exception:  # noqa: BLE001  an observer must not stop a logout
                structlog.get_logger().error("observer_failed", fact=type(fact).__name__)


def _get_handler(observer: Observer, kind: type[Fact]) -> Callable[[Any], object] | None:
    return observer.handlers.get(kind) if isinstance(observer, FactHandlers) else observer
