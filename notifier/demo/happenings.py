"""Keeps what has happened in the demo, in words, for the page that shows it."""

import time

from notifier.delivery.facts import Fact, LogoutDelivered
from notifier.model.moment import Clock

_MOST = 500


class Happenings:
    """Keeps the last happenings, and when somebody was last there."""

    def __init__(self, clock: Clock, steady: Clock = time.monotonic) -> None:
        self._clock = clock
        self._steady = steady
        self._lines: list[tuple[int, float, str, str]] = []
        self._count = 0
        self.last_visit = steady()

    def visited(self) -> None:
        """Note that somebody is there."""
        self.last_visit = self._steady()

    def add(self, who: str, text: str) -> None:
        """Note one."""
        self._count += 1
        self._lines = [*self._lines[1 - _MOST :], (self._count, self._clock() * 1000, who, text)]

    def observe(self, fact: Fact) -> None:
        """Note what the worker tells."""
        if isinstance(fact, LogoutDelivered):
            name = fact.delivery.client_id.replace("-", " ").capitalize()
            self.add("Back-channel", f"{name} got a signed logout token on its server, and accepted it.")

    def since(self, number: int) -> list[tuple[int, float, str, str]]:
        """Those after this one: a number, when (epoch milliseconds, as browsers count), who, and what."""
        return [happening for happening in self._lines if happening[0] > number]
