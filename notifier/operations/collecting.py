"""Outcomes from a feed into an archive, and the count of them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from notifier.domain.errors import MalformedEvent
from notifier.domain.outcome_event import Told, load_told


class Archive(Protocol):
    """Where outcomes are kept."""

    def keep(self, batch: Sequence[Told]) -> int:
        """Write them, so that they last; how many were new. Raises QueueUnavailable."""


class Collecting:
    """Keeps what a feed brings. What is no outcome of ours is counted and left out: the exchange is open to others."""

    def __init__(self, archive: Archive, tell: Callable[[], None] = lambda: None) -> None:
        self._archive = archive
        self._tell = tell
        self.kept = 0
        self.again = 0
        self.unreadable = 0

    async def take(self, bodies: Sequence[bytes]) -> None:
        """Return once they are kept. Raises QueueUnavailable."""
        batch: list[Told] = []
        unreadable = 0
        for body in bodies:
            try:
                batch.append(load_told(body))
            except MalformedEvent:
                unreadable += 1
        new = await asyncio.to_thread(self._archive.keep, batch) if batch else 0
        self.kept += new
        self.again += len(batch) - new
        self.unreadable += unreadable
        self._tell()
