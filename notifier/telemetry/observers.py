"""Passes each fact to the observers that handle it. A failing observer is logged and stops nothing else."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, get_args

import structlog

from notifier.delivery.facts import Fact, FactHandlers, Observer


class Observers:
    """The observers, in the order in which they receive a fact."""

    def __init__(self) -> None:
        self._observers: dict[Observer, None] = {}
        self._of: dict[type[Fact], tuple[Callable[[Any], object], ...]] = {}
        self.add()

    def add(self, *observers: Observer) -> None:
        """Pass facts to these observers too."""
        self._observers |= dict.fromkeys(observers)
        self._sort()

    def remove(self, observer: Observer) -> None:
        """Pass no more facts to this observer."""
        self._observers.pop(observer, None)
        self._sort()

    def _sort(self) -> None:
        self._of = {
            kind: tuple(handler for each in self._observers if (handler := _handler_of(each, kind)) is not None)
            for kind in {*get_args(Fact), *chain.from_iterable(map(_kinds_of, self._observers))}
        }

    def observe(self, fact: Fact) -> None:
        """Pass a fact to its observers. Never raises."""
        for handle in self._of[type(fact)]:
            try:
                handle(fact)
            except Exception:  # noqa: BLE001  an observer must not stop a logout
                structlog.get_logger().error("observer_failed", fact=type(fact).__name__)


def _kinds_of(observer: Observer) -> Iterable[type[Fact]]:
    return observer.handlers if isinstance(observer, FactHandlers) else ()


def _handler_of(observer: Observer, kind: type[Fact]) -> Callable[[Any], object] | None:
    return observer.handlers.get(kind) if isinstance(observer, FactHandlers) else observer
