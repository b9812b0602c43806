"""Keeps the notices of the feed in a file, and counts them."""

import asyncio
from collections.abc import Callable, Sequence

from notifier.features.feed.feed_event import load_feed_event
from notifier.features.feed.feed_file import FeedFile
from notifier.model.errors import MalformedEvent
from notifier.model.fate import FeedNotice


class FeedCollection:
    """Keeps the notices of the feed. Other messages are counted and dropped: anybody may publish to the exchange."""

    def __init__(self, archive: FeedFile, on_kept: Callable[[int], object]) -> None:
        self._archive = archive
        self._on_kept = on_kept
        self.kept = 0
        self.again = 0
        self.unreadable = 0

    async def take(self, bodies: Sequence[bytes]) -> None:
        """Keep a batch. Raises QueueUnavailable."""
        batch: list[FeedNotice] = []
        unreadable = 0
        for body in bodies:
            try:
                batch.append(load_feed_event(body))
            except MalformedEvent:
                unreadable += 1
        new = await asyncio.to_thread(self._archive.keep, batch) if batch else 0
        self.kept += new
        self.again += len(batch) - new
        self.unreadable += unreadable
        self._on_kept(self.kept)
