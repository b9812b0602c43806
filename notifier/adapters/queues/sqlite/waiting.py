"""Walks over all that waits in the embedded queue: pages are read, and nothing is held or marked meanwhile.

What is made due is written and its row deleted in one transaction: never lost, never doubled. A parked row that a
worker has in hand can be deleted, and its client may be told all the same.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from notifier.adapters.queues.sqlite.dead_letters import PAGE, PAGE_BYTES, OpenStore
from notifier.adapters.queues.sqlite.rows import RowTag, new_row
from notifier.adapters.queues.sqlite.store import Store
from notifier.domain.message import Message, Transfer, Transferred
from notifier.domain.waiting_filter import FoundWaiting, WaitingFilter, waiting_reader


class SqliteWaiting:
    """All that waits in a queue file that is open. `clock` says when a row was written."""

    def __init__(self, store: OpenStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    @asynccontextmanager
    async def visit(self, meant: WaitingFilter, *, whole: bool) -> AsyncIterator["SqliteWalk"]:
        """Open one walk over what waits now. Raises QueueError."""
        walk = SqliteWalk(self._store, self._clock, meant, whole=whole)
        await walk.begin()
        yield walk


class SqliteWalk:
    """One walk over the rows that wait. One task uses it."""

    def __init__(self, store: OpenStore, clock: Callable[[], float], meant: WaitingFilter, *, whole: bool) -> None:
        self._store = store
        self._clock = clock
        self._parked = meant.parked
        self._look = waiting_reader(meant, whole=whole)
        self._left = 0
        self._after = self._last = 0

    @property
    def left(self) -> int:
        """How many are still to be seen."""
        return self._left

    async def begin(self) -> None:
        """Learn how many there are now. What is added later is left to the next walk."""
        parked = self._parked
        self._last, self._left = await self._store.visit(lambda store: store.waiting(parked=parked), writing=False)

    async def page(self) -> Sequence[FoundWaiting]:
        """The next ones, in the order in which they were put off; none at the end. Raises QueueError."""
        after, last, parked = self._after, self._last, self._parked
        found = await self._store.visit(
            lambda store: store.read_waiting(after, last, PAGE, PAGE_BYTES, parked=parked), writing=False
        )
        if not found:
            self._left = 0
            return ()
        self._after = _id(found[-1])
        self._left = max(0, self._left - len(found))
        return tuple(map(self._look, found))

    async def remove(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Delete these, and return those that were still there. Raises QueueError."""
        ids = [_id(message) for message in messages]

        def work(store: Store) -> set[int]:
            standing = store.still_waiting(ids)
            store.delete(sorted(standing))
            return standing

        standing = await self._store.visit(work, writing=True)
        return tuple(message for message in messages if _id(message) in standing)

    async def move(self, transfers: Sequence[Transfer]) -> Transferred:
        """Write each where it goes and delete its row, all or none. Raises QueueError."""
        now = self._clock()
        rows = {_id(each.letter): new_row(each.queue, each.outgoing, now) for each in transfers}

        def work(store: Store) -> set[int]:
            standing = store.still_waiting(list(rows))
            store.insert([row for id_, row in rows.items() if id_ in standing])
            store.delete(sorted(standing))
            return standing

        standing = await self._store.visit(work, writing=True)
        return Transferred(done=tuple(each.letter for each in transfers if _id(each.letter) in standing))


def _id(message: Message) -> int:
    tag = message.tag
    assert isinstance(tag, RowTag), "a row of this walk"
    return tag.id
