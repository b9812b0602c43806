"""Outcomes kept in the embedded queue's own file: written by its one thread, a batch at a time, and forgotten again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from notifier.adapters.feed.outcome_table import Retention
from notifier.domain.outcome_event import Told

if TYPE_CHECKING:
    from notifier.adapters.queues.sqlite.queue import SqliteQueue

# About 80 MiB beside the messages: a file of a small installation must not grow for ever.
RETENTION = Retention(most=200_000, age=7 * 86_400.0)
GATHER = 0.25  # seconds that outcomes gather: each batch costs the deliveries' thread a commit of its own


class KeptOutcomes:
    """A sink for outcomes, while the queue is open."""

    at_once: Final = 2048

    def __init__(self, queue: SqliteQueue, retention: Retention = RETENTION) -> None:
        self._queue = queue
        self._retention = retention

    async def available(self) -> None:
        """Return after a moment, in which more come."""
        await asyncio.sleep(GATHER)

    async def run(self) -> None:
        """Nothing to keep open: the queue is."""

    async def send(self, batch: Sequence[Told]) -> None:
        """Return once they are on disk. Raises QueueUnavailable."""
        await self._queue.keep_outcomes(batch, self._retention)
