"""What a worker says beside the logouts, on the embedded queue: by notes in its file, to the command line beside it.

The worker looks for questions four times a second, and writes what it has to say a batch at a time, in transactions of
the queue's one thread. Best effort: what finds the outbox full, or a file that cannot be written, is dropped and
counted.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol, TypeVar

from notifier.adapters.queues.sqlite import notes
from notifier.adapters.queues.sqlite.notes import Note
from notifier.adapters.queues.sqlite.store import IN_FILE
from notifier.domain.errors import QueueError

LOOK_EVERY = 0.25  # seconds
OUTBOX = 2000
T = TypeVar("T")


class NoteBook(Protocol):
    """The queue, for as long as it is open."""

    async def with_notes(self, use: Callable[[sqlite3.Connection], T], *, writing: bool = True) -> T:
        """Run on the queue's thread, in a transaction where it writes. Raises QueueError."""


class Talk:
    """The worker's side. `run` in a task of its own."""

    def __init__(self, book: NoteBook, clock: Callable[[], float]) -> None:
        self._book = book
        self._clock = clock
        self._outbox: list[Note] = []
        self.dropped = 0

    def reply(self, to: str, correlation_id: str | None, body: bytes) -> None:
        """Best effort. Never waits, never raises."""
        if to != IN_FILE or correlation_id is None or len(self._outbox) >= OUTBOX:
            self.dropped += 1
        else:
            self._outbox.append(Note(correlation_id, body))

    async def run(self, answer: Callable[[], bytes]) -> None:
        """Answer whoever asks how the worker stands, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            with suppress(QueueError):  # a file that cannot be used is told elsewhere
                askers = await self._book.with_notes(_askers, writing=False)
                for asker in askers:
                    self._outbox.append(Note(asker, answer()))
            await self._write()

    async def _write(self) -> None:
        if not self._outbox:
            return
        batch, self._outbox = self._outbox, []
        now = self._clock()
        try:
            await self._book.with_notes(lambda database: notes.answer(database, batch, now))
        except QueueError:
            self.dropped += len(batch)


async def ask_worker(book: NoteBook, asker: str, *, now: float, within: float) -> bytes | None:
    """How the worker stands, in its own words; None where it does not say so in time. Raises QueueError."""
    await book.with_notes(lambda database: notes.ask(database, asker, now))
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            while True:
                await asyncio.sleep(LOOK_EVERY / 2)
                if answers := await take_answers(book, asker):
                    return answers[0]
    return None


async def oldest(book: NoteBook) -> Mapping[str, float]:
    """When the first message of each queue was written (epoch seconds), whether a worker holds it or not.

    Raises QueueError.
    """
    return await book.with_notes(_oldest, writing=False)


async def take_answers(book: NoteBook, asker: str) -> list[bytes]:
    """What came for this asker since. Raises QueueError."""
    return await book.with_notes(lambda database: notes.take_answers(database, asker))


def _oldest(database: sqlite3.Connection) -> dict[str, float]:
    first = "SELECT min(id) FROM messages GROUP BY queue"
    return dict(database.execute(f"SELECT queue, published_at FROM messages WHERE id IN ({first})").fetchall())  # noqa: S608  ours


def _askers(database: sqlite3.Connection) -> list[str]:
    return notes.questions(database) if notes.exist(database) else []
