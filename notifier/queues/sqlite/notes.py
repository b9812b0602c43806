"""The notes of the side channel, in tables of the queue's file: requests to the worker, and its answers.

The first note makes the tables, so a file without requests keeps its form. A note is useful for seconds;
every write deletes old ones. Call these functions on an open database, within a transaction.
"""

import sqlite3
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, TypeVar

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS requests (asker TEXT NOT NULL, until REAL NOT NULL, body BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS answers (asker TEXT NOT NULL, at REAL NOT NULL, body BLOB NOT NULL)",
)
KEPT = 60.0  # seconds
T = TypeVar("T")


class QueueFile(Protocol):
    """The queue's file, while it is open."""

    async def use(self, work: Callable[[sqlite3.Connection], T], *, writing: bool = True) -> T:
        """Run on the queue's thread, in a transaction if it writes. Raises QueueError."""


class Note(NamedTuple):
    """An answer or a request, and who asked."""

    asker: str
    body: bytes


def request(database: sqlite3.Connection, wanted: Note, now: float, until: float) -> None:
    """Ask the worker to do something, or for its state by an empty body, unless it has not begun by `until`."""
    _prepare(database, now)
    database.execute("INSERT INTO requests VALUES (?, ?, ?)", (wanted.asker, until, wanted.body))


def requested(database: sqlite3.Connection) -> bool:
    """True if there are requests."""
    return _exist(database) and database.execute("SELECT 1 FROM requests").fetchone() is not None


def take_requests(database: sqlite3.Connection, now: float) -> list[Note]:
    """Read and delete the requests, oldest first. Those whose time is over are not among them."""
    rows = database.execute("SELECT asker, body FROM requests WHERE until >= ? ORDER BY rowid", (now,)).fetchall()
    database.execute("DELETE FROM requests")
    return [Note(asker, bytes(body)) for asker, body in rows]


def answer(database: sqlite3.Connection, notes: Iterable[Note], now: float) -> None:
    """Write answers."""
    _prepare(database, now)
    for note in notes:
        database.execute("INSERT INTO answers (asker, at, body) VALUES (?, ?, ?)", (note.asker, now, note.body))


def take_answers(database: sqlite3.Connection, asker: str) -> list[bytes]:
    """Read and delete the answers to this asker, oldest first."""
    if not _exist(database):
        return []
    rows = database.execute("SELECT body FROM answers WHERE asker = ? ORDER BY rowid", (asker,)).fetchall()
    database.execute("DELETE FROM answers WHERE asker = ?", (asker,))
    return [bytes(row[0]) for row in rows]


def _exist(database: sqlite3.Connection) -> bool:
    """True once anybody has asked, or was answered."""
    count = database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'answers'")
    return bool(count.fetchone()[0])


def _prepare(database: sqlite3.Connection, now: float) -> None:
    for statement in _SCHEMA:
        database.execute(statement)
    database.execute("DELETE FROM requests WHERE until < ?", (now,))
    database.execute("DELETE FROM answers WHERE at < ?", (now - KEPT,))
