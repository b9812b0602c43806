"""The side channel on the embedded queue: replies and states, as notes in tables of the queue's file.

The first note creates the tables, so a file without requests keeps its schema. A note is useful for seconds; every
write deletes old notes.

The worker checks for requests four times a second, and writes its replies in batches on the queue's thread. If the
outbox is full or the file is not writable, replies are dropped and counted.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple
from uuid import uuid4

from notifier.model.errors import QueueError
from notifier.model.shared_resources import shared_bound
from notifier.queues.queue_port import Presence
from notifier.queues.sqlite.rows import ASKER_HEADER, FILE_ADDRESS
from notifier.queues.sqlite.store import OpenStore

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS requests (asker TEXT NOT NULL, until REAL NOT NULL, body BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS answers (asker TEXT NOT NULL, at REAL NOT NULL, body BLOB NOT NULL)",
)
NOTE_TTL_SECONDS = 60.0
CHECK_INTERVAL_SECONDS = 0.25
MAX_OUTBOX_NOTES = shared_bound(2000)


class Note(NamedTuple):
    """An answer or a request, and the name of the requester."""

    asker: str
    body: bytes


def write_request(database: sqlite3.Connection, request: Note, now: float, until: float) -> None:
    """Write a request, which the worker ignores after `until`. An empty body requests the worker's state."""
    _prepare(database, now)
    database.execute("INSERT INTO requests VALUES (?, ?, ?)", (request.asker, until, request.body))


def has_requests(database: sqlite3.Connection) -> bool:
    """Return True if there are requests."""
    return _has_tables(database) and database.execute("SELECT 1 FROM requests").fetchone() is not None


def take_requests(database: sqlite3.Connection, now: float) -> list[Note]:
    """Delete the requests. Return the requests that have not expired, oldest first."""
    rows = database.execute("SELECT asker, body FROM requests WHERE until >= ? ORDER BY rowid", (now,)).fetchall()
    database.execute("DELETE FROM requests")
    return [Note(asker, bytes(body)) for asker, body in rows]


def write_answers(database: sqlite3.Connection, notes: Iterable[Note], now: float) -> None:
    """Write answers."""
    _prepare(database, now)
    for note in notes:
        database.execute("INSERT INTO answers (asker, at, body) VALUES (?, ?, ?)", (note.asker, now, note.body))


def take_answers(database: sqlite3.Connection, asker: str) -> list[bytes]:
    """Delete the answers to this requester, and return them, oldest first."""
    if not _has_tables(database):
        return []
    rows = database.execute("SELECT body FROM answers WHERE asker = ? ORDER BY rowid", (asker,)).fetchall()
    database.execute("DELETE FROM answers WHERE asker = ?", (asker,))
    return [bytes(row[0]) for row in rows]


def _has_tables(database: sqlite3.Connection) -> bool:
    """Return True once a request or answer has been written."""
    count = database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'answers'")
    return bool(count.fetchone()[0])


def _prepare(database: sqlite3.Connection, now: float) -> None:
    for statement in _SCHEMA:
        database.execute(statement)
    database.execute("DELETE FROM requests WHERE until < ?", (now,))
    database.execute("DELETE FROM answers WHERE at < ?", (now - NOTE_TTL_SECONDS,))


class SqliteSideChannel:
    """Replies to publishers, sends the worker's state on request, and receives replies for a publisher."""

    address = "here"  # only this process serves the API, so its replies need no file

    def __init__(self, file: OpenStore, clock: Callable[[], float]) -> None:
        self._file = file
        self._clock = clock
        self._state: Callable[[], bytes] | None = None
        self._on_reply: Callable[[bytes], None] | None = None
        self._handle_request: Callable[[bytes], Awaitable[bytes]] | None = None
        self._request_tasks: set[asyncio.Task[None]] = set()
        self._outbox: list[Note] = []
        self._name = uuid4().hex
        self.event_headers: Mapping[str, str] = {}
        self.dropped = 0

    def listen(self, state: Callable[[], bytes], on_reply: Callable[[str, bytes], None]) -> None:  # noqa: ARG002
        """Set the worker's state, from the next `open` on. `on_reply` is never called: there is no other worker."""
        self._state = state

    def handle_requests(self, handle: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Set the callback that handles operators' requests. `handle` never raises."""
        self._handle_request = handle

    def share_updates(
        self, next_update: Callable[[], Awaitable[bytes]], on_update: Callable[[bytes], None], kind: str = "news"
    ) -> None:
        """Do nothing: the file has one worker."""

    def share_presence(self, presence: Presence) -> None:
        """Do nothing, as `share_updates` does."""

    def receive_replies(self, on_reply: Callable[[bytes], None]) -> None:
        """Pass each reply to this publisher to `on_reply`, from the next `open` on."""
        self._on_reply = on_reply
        self.event_headers = {ASKER_HEADER: self._name}

    def tasks(self) -> Iterator[Callable[[], Coroutine[object, object, None]]]:
        """Yield the tasks that run while the queue is open, until cancelled."""
        if self._state is not None:
            yield self._serve_requests
        if self._on_reply is not None:
            yield lambda: _repeat(self._receive_replies, CHECK_INTERVAL_SECONDS / 2)

    def on_malformed(self) -> None:
        """Count a note of another process that is malformed."""
        self.dropped += 1

    def reply(self, to: str, correlation_id: str | None, body: bytes) -> None:
        """Send a reply, or drop and count it. Never waits, never raises."""
        if to != FILE_ADDRESS or correlation_id is None or len(self._outbox) >= MAX_OUTBOX_NOTES:
            self.dropped += 1
        else:
            self._outbox.append(Note(correlation_id, body))

    async def request_state(self, within: float) -> list[bytes]:
        """Return the worker's state; nothing if it does not answer in time. Raises QueueError."""
        return [self._state()] if self._state is not None else await self._request_answers(b"", within)

    async def request(self, document: bytes, within: float) -> list[bytes]:
        """Return the worker's answer to a request; nothing if it does not arrive in time. Raises QueueError."""
        if self._handle_request is None:
            return await self._request_answers(document, within)
        return [await self._handle_request(document)]

    async def _request_answers(self, document: bytes, within: float) -> list[bytes]:
        """Write a request to the file, and return the worker's answer; nothing if none arrives in time."""
        now, request = self._clock(), Note(self._name, document)
        await self._file.use(lambda store: write_request(store.database, request, now, now + within))
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while True:
                    await asyncio.sleep(CHECK_INTERVAL_SECONDS / 2)
                    if answers := await self._take_answers():
                        return answers[:1]
        return []

    async def _serve_requests(self) -> None:
        try:
            await _repeat(self._exchange_notes, CHECK_INTERVAL_SECONDS)
        finally:
            for task in self._request_tasks:
                task.cancel()

    async def _exchange_notes(self) -> None:
        """Handle the requests in the file, and write the answers of the outbox into it."""
        if await self._file.use(lambda store: has_requests(store.database), writing=False):
            now = self._clock()
            for asker, request in await self._file.use(lambda store: take_requests(store.database, now)):
                if request and self._handle_request is not None:
                    task = asyncio.create_task(self._answer(asker, self._handle_request(request)))
                    self._request_tasks.add(task)
                    task.add_done_callback(self._request_tasks.discard)
                elif not request and self._state is not None:
                    self._outbox.append(Note(asker, self._state()))
        if not self._outbox:
            return
        batch, self._outbox = self._outbox, []
        now = self._clock()
        try:
            await self._file.use(lambda store: write_answers(store.database, batch, now))
        except QueueError:
            self.dropped += len(batch)

    async def _answer(self, asker: str, answer: Awaitable[bytes]) -> None:
        self._outbox.append(Note(asker, await answer))

    async def _receive_replies(self) -> None:
        for body in await self._take_answers():
            if self._on_reply is not None:
                self._on_reply(body)

    async def _take_answers(self) -> list[bytes]:
        return await self._file.use(lambda store: take_answers(store.database, self._name))


async def _repeat(act: Callable[[], Coroutine[object, object, None]], every: float) -> None:
    while True:
        await asyncio.sleep(every)
        with suppress(QueueError):  # `status` reports an unusable file
            await act()
