"""Keeps the feed in the embedded queue's own file: the queue's thread writes batches, and deletes what is old."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from notifier.model.fate import FeedNotice
from notifier.queues.sqlite.feed_table import Retention, keep
from notifier.queues.sqlite.notes import QueueFile

# About 80 MiB beside the messages: the file of a small installation must not grow for ever.
RETENTION = Retention(most=200_000, age=7 * 86_400.0)
GATHER = 0.25  # seconds in which a batch grows: each costs the deliveries' thread a commit


class SqliteFeedTarget:
    """Takes the notices of the feed while the queue is open. `clock` is the queue's, `blocked` tells of a full disk."""

    at_once: Final = 2048

    def __init__(
        self,
        file: QueueFile,
        clock: Callable[[], float],
        retention: Retention = RETENTION,
        blocked: Callable[[], bool] = lambda: False,
    ) -> None:
        self._file = file
        self._clock = clock
        self._blocked = blocked
        self._retention = retention

    async def run(self) -> None:
        """Do nothing: the queue is open."""

    async def available(self) -> None:
        """Wait a moment, in which more notices come, and while the disk is full. Never raises."""
        await asyncio.sleep(GATHER)
        while self._blocked():  # noqa: ASYNC110  a look reads one value
            await asyncio.sleep(GATHER)

    async def send(self, batch: Sequence[FeedNotice]) -> None:
        """Return once the notices are on disk. Raises QueueUnavailable."""
        await self._file.use(lambda database: keep(database, batch, self._retention, self._clock()))
