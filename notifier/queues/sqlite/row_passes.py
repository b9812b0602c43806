"""Passes over the dead letters or the pending deliveries of the embedded queue: reads pages, locks and marks nothing.

One transaction moves a message: it writes the new row and deletes the old row. So the message is neither lost nor
duplicated, and of two passes only one moves it. Transactions are short, so that a worker in another process can
continue. A pass may delete a parked row that a worker has in hand; its client may still be notified.
"""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, TypeVar

from notifier.model.message import Message, Transfer, TransferResult
from notifier.queues.passes import OnWait, Reader, ReadMessage, ignore_holder
from notifier.queues.sqlite.rows import NewRow, RowTag, new_row, queue_of_wait
from notifier.queues.sqlite.store import OpenStore, Rows, Store

S = TypeVar("S")
PAGE_LENGTH = 200  # messages per page: 10 ms of the thread that the worker also uses
PAGE_BYTES = 4 * 1024 * 1024  # of bodies, which need three times that memory while read; at least one message


class SqlitePass(Generic[S]):
    """One pass over rows of a queue file, for one task.

    `clock`: publication time of rows. `delay_clock`: time of delays. `left`: the number of messages that have not been
    read yet.
    """

    def __init__(
        self,
        store: OpenStore,
        clock: Callable[[], float],
        delay_clock: Callable[[], float],
        rows: Rows,
        read: Reader[S],
    ) -> None:
        self._store = store
        self._clock = clock
        self._delay_clock = delay_clock
        self._rows = rows
        self._read = read
        self.left = 0
        self._after = self._last = 0

    async def begin(self) -> None:
        """Count the present messages. The pass ignores later messages."""
        self._last, self.left = await self._store.use(lambda store: store.read_newest(self._rows), writing=False)

    async def next_page(self) -> Sequence[ReadMessage[S]]:
        """Return the next messages; none at the end. Raises QueueError."""
        after, last = self._after, self._last
        messages = await self._store.use(
            lambda store: store.read_rows(self._rows, after, last, PAGE_LENGTH, PAGE_BYTES), writing=False
        )
        if not messages:
            self.left = 0
            return ()
        self._after = _row_id(messages[-1])
        self.left = max(0, self.left - len(messages))
        return tuple(map(self._read, messages))

    async def remove(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Delete these messages. Return the messages that were still in the file. Raises QueueError."""
        ids = [_row_id(message) for message in messages]

        def delete_existing(store: Store) -> set[int]:
            existing = store.find_existing(self._rows, ids)
            store.delete(sorted(existing))
            return existing

        existing = await self._store.use(delete_existing)
        return tuple(message for message in messages if _row_id(message) in existing)

    async def move(self, transfers: Sequence[Transfer]) -> TransferResult:
        """Write each message whose row still exists to its new queue and delete the row, in one transaction.

        The result names the moved messages. Raises QueueError.
        """
        now, delay_clock = self._clock(), self._delay_clock()
        rows = {_row_id(transfer.taken): _to_row(transfer, now, delay_clock) for transfer in transfers}

        def move_existing(store: Store) -> set[int]:
            existing = store.find_existing(self._rows, list(rows))
            store.insert([row for id_, row in rows.items() if id_ in existing])
            store.delete(sorted(existing))
            return existing

        moved = await self._store.use(move_existing)
        return TransferResult(done=tuple(transfer.taken for transfer in transfers if _row_id(transfer.taken) in moved))


@asynccontextmanager
async def _begin(row_pass: SqlitePass[S]) -> AsyncIterator[SqlitePass[S]]:
    await row_pass.begin()
    yield row_pass


class SqlitePasses:
    """Opens passes over the dead letters, or over the pending deliveries, of a queue file that is open."""

    def __init__(
        self, store: OpenStore, clock: Callable[[], float], delay_clock: Callable[[], float], rows: Rows = Rows.WAITING
    ) -> None:
        self._store = store
        self._clock = clock
        self._delay_clock = delay_clock
        self._rows = rows

    def open_pass(
        self,
        read: Reader[S],
        *,
        clients: Collection[tuple[str, str]] | None = None,  # noqa: ARG002  a row is read in any case
        parked: bool = True,
        on_wait: OnWait = ignore_holder,  # noqa: ARG002  no pass waits for another
    ) -> AbstractAsyncContextManager[SqlitePass[S]]:
        """Open one pass over the present messages. Raises QueueError."""
        rows = self._rows if parked else Rows.DELAYED
        return _begin(SqlitePass(self._store, self._clock, self._delay_clock, rows, read))


def _to_row(transfer: Transfer, now: float, delay_clock: float) -> NewRow:
    if transfer.wait:
        return new_row(queue_of_wait(transfer.wait), transfer.outgoing, now, due=delay_clock + transfer.wait)
    return new_row(transfer.queue, transfer.outgoing, now)


def _row_id(message: Message) -> int:
    tag = message.tag
    assert isinstance(tag, RowTag), "a row of this pass"
    return tag.id
