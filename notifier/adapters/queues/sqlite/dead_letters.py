"""Going over the dead letters of the embedded queue: pages are read, and nothing is held or marked meanwhile.

What is replayed is written and its letter deleted in one transaction: never lost, never doubled, and where two are at
it each letter is replayed by one of them. Transactions are short, so that a worker of another process goes on.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from notifier.adapters.queues.sqlite.rows import NewRow, RowTag, new_row
from notifier.adapters.queues.sqlite.store import Store
from notifier.domain.letter_filter import FoundLetter, LetterReader
from notifier.domain.message import DEAD, Message, Transfer, Transferred

T = TypeVar("T")
PAGE = 200  # letters of a page: 10 ms of the thread that a worker needs too
PAGE_BYTES = 4 * 1024 * 1024  # of their bodies, which take three times as much on their way; one letter at least


class OpenStore(Protocol):
    """The store of an open queue, on the queue's thread."""

    async def visit(self, work: Callable[[Store], T], *, writing: bool) -> T:
        """Run `work`, in one transaction if it writes. Raises QueueError."""


class SqliteVisit:
    """One pass over the dead letters of a queue file. One task uses it. `clock` says when a replay was written."""

    def __init__(self, store: OpenStore, clock: Callable[[], float], look: LetterReader) -> None:
        self._store = store
        self._clock = clock
        self._look = look
        self._left = 0
        self._after = self._last = 0

    @property
    def left(self) -> int:
        """How many are still to be seen."""
        return self._left

    async def begin(self) -> None:
        """Learn how many there are now. What is added later is left to the next visit."""
        self._last, self._left = await self._store.visit(
            lambda store: (store.last_id(DEAD), store.depths(consumed=False).get(DEAD, 0)), writing=False
        )

    async def page(self) -> Sequence[FoundLetter]:
        """The next letters, oldest first; none at the end. Raises QueueError."""
        after = self._after
        found = [
            (id_, message)
            for id_, message in await self._store.visit(
                lambda store: store.read(DEAD, after, store.within(DEAD, after, PAGE, PAGE_BYTES)), writing=False
            )
            if id_ <= self._last
        ]
        if not found:
            self._left = 0
            return ()
        self._after = found[-1][0]
        self._left = max(0, self._left - len(found))
        return tuple(self._look(message) for _, message in found)

    async def remove(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Forget these for good; those that were still there. Raises QueueError."""
        ids = [_id(message) for message in messages]

        def work(store: Store) -> set[int]:
            standing = store.standing(DEAD, ids)
            store.delete(sorted(standing))
            return standing

        standing = await self._store.visit(work, writing=True)
        return tuple(message for message in messages if _id(message) in standing)

    async def move(self, transfers: Sequence[Transfer]) -> Transferred:
        """Write each where it goes and forget the letter, all or none. Raises QueueError."""
        now = self._clock()
        rows = {_id(each.letter): new_row(each.queue, each.outgoing, now) for each in transfers}

        def work(store: Store) -> set[int]:
            standing = store.standing(DEAD, list(rows))
            moved: list[NewRow] = [row for id_, row in rows.items() if id_ in standing]
            store.insert(moved)
            store.delete(sorted(standing))
            return standing

        standing = await self._store.visit(work, writing=True)
        return Transferred(done=tuple(each.letter for each in transfers if _id(each.letter) in standing))


class SqliteDeadLetters:
    """The dead letters of a queue that is open."""

    def __init__(self, store: OpenStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    @asynccontextmanager
    async def visit(self, look: LetterReader) -> AsyncIterator[SqliteVisit]:
        """Open one pass over the present letters. Raises QueueError."""
        visit = SqliteVisit(self._store, self._clock, look)
        await visit.begin()
        yield visit


def _id(message: Message) -> int:
    tag = message.tag
    assert isinstance(tag, RowTag), "a letter of this visit"
    return tag.id
