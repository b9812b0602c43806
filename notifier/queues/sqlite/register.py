"""The register in the queue's file: a table of one row at most."""

from collections.abc import Callable

from notifier.model.pauses import NO_PAUSES, PauseDocument, read_pauses, write_pauses
from notifier.queues.sqlite.store import OpenStore, Store


class SqliteRegister:
    """The register in a file, which a worker and commands share. The file keeps it, so nothing needs to be restored."""

    def __init__(self, file: OpenStore) -> None:
        self._file = file

    async def read(self) -> PauseDocument:
        """Return the document. Raises QueueError."""
        async with self._file.temporarily_open():
            return read_pauses(await self._file.use(_read, writing=False))

    async def change(self, edit: Callable[[PauseDocument], PauseDocument]) -> PauseDocument:
        """Replace the document in one transaction. Raises QueueError."""

        def work(store: Store) -> PauseDocument:
            present = read_pauses(_read(store))
            if (changed := edit(present)) is not present:
                row = (write_pauses(changed),)
                store.database.execute("INSERT OR REPLACE INTO register VALUES ('pauses', ?)", row)
            return changed

        async with self._file.temporarily_open():
            return await self._file.use(work)


def _read(store: Store) -> bytes:
    # Another program may have written text or a number, which bytes() refuses, or takes as a size.
    row = store.database.execute("SELECT CAST(document AS BLOB) FROM register WHERE name = 'pauses'").fetchone()
    return write_pauses(NO_PAUSES) if row is None else bytes(row[0])
