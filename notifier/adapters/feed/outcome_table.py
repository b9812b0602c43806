"""The table of outcomes, in the embedded queue's file or in one that `notifier collect` writes: what both do with it.

Functions on an open database, to be called within a transaction. It is made when the first outcome is written, so that
a file without outcomes is as it always was. A copy of an outcome (the same `id`) is kept once. The `at` of the worker
that told it orders them; two workers' clocks may differ.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from notifier.domain.outcome_event import ClientTold, Seen, Told

LARGEST_INSERT = 128  # rows of one statement; see sqlite_queue.store for why nothing steps row by row
PRUNED_AT_ONCE = 5000  # rows, so that a shorter retention holds nobody up

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS outcomes (
        n           INTEGER PRIMARY KEY AUTOINCREMENT,
        id          TEXT NOT NULL UNIQUE,
        at          REAL NOT NULL,
        fate        TEXT NOT NULL,
        reason      TEXT NOT NULL,
        iss         TEXT NOT NULL,
        client_id   TEXT NOT NULL,
        event_id    TEXT NOT NULL,
        delivery_id TEXT NOT NULL,
        publisher   TEXT,
        ended_at    REAL,
        propagation REAL,
        next_due    REAL,
        attempt     INTEGER,
        jti         TEXT,
        status      INTEGER,
        seconds     REAL
    )""",
    "CREATE INDEX IF NOT EXISTS outcomes_at ON outcomes (at)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How many outcomes are kept at most, and for how many seconds."""

    most: int
    age: float


class _Row(NamedTuple):
    id: str
    at: float
    fate: str
    reason: str
    iss: str
    client_id: str
    event_id: str = ""
    delivery_id: str = ""
    publisher: str | None = None
    ended_at: float | None = None
    propagation: float | None = None
    next_due: float | None = None
    attempt: int | None = None
    jti: str | None = None
    status: int | None = None
    seconds: float | None = None


def exists(database: sqlite3.Connection) -> bool:
    """Whether any outcome was ever kept there."""
    found = database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'outcomes'")
    return bool(found.fetchone()[0])


def create(database: sqlite3.Connection) -> None:
    """Have the table stand."""
    for statement in _SCHEMA:
        database.execute(statement)


def insert(database: sqlite3.Connection, batch: Sequence[Told]) -> int:
    """Write them; how many were new."""
    rows = [_row(told) for told in batch]
    new = start = 0
    while start < len(rows):
        size = min(LARGEST_INSERT, 1 << ((len(rows) - start).bit_length() - 1))
        values = [_storable(value) for row in rows[start : start + size] for value in row]
        new += database.execute(_insert(size), values).rowcount
        start += size
    return new


def prune(database: sqlite3.Connection, retention: Retention, now: float) -> None:
    """Forget the oldest, as far as one step goes."""
    database.execute(
        "DELETE FROM outcomes WHERE n IN (SELECT n FROM outcomes WHERE at < ? ORDER BY at LIMIT ?)",
        (now - retention.age, PRUNED_AT_ONCE),
    )
    database.execute(
        "DELETE FROM outcomes WHERE n IN (SELECT n FROM outcomes WHERE n <= (SELECT max(n) FROM outcomes) - ? LIMIT ?)",
        (retention.most, PRUNED_AT_ONCE),
    )


def read(database: sqlite3.Connection, since: float) -> Iterator[Seen]:
    """Those told since, oldest first."""
    sql = "SELECT at, fate, reason, iss, client_id, propagation FROM outcomes WHERE at >= ? ORDER BY at"
    return map(Seen._make, database.execute(sql, (since,)))


def count(database: sqlite3.Connection, since: float) -> int:
    """How many `read` gives."""
    return int(database.execute("SELECT count(*) FROM outcomes WHERE at >= ?", (since,)).fetchone()[0])


def _row(told: Told) -> _Row:
    if isinstance(told, ClientTold):
        return _Row(told.id, told.at, told.state, "", told.iss, told.client_id)
    sent = told.sent
    return _Row(
        id=told.id,
        at=told.at,
        fate=told.fate,
        reason=told.reason,
        iss=told.iss,
        client_id=told.client_id,
        event_id=told.event_id,
        delivery_id=told.delivery_id,
        publisher=told.publisher,
        ended_at=told.ended_at,
        propagation=told.propagation,
        next_due=told.next_due,
        attempt=None if sent is None else sent.attempt,
        jti=None if sent is None else sent.jti,
        status=None if sent is None else sent.status,
        seconds=None if sent is None else sent.seconds,
    )


def _storable(value: object) -> object:
    """Half of a surrogate pair cannot be stored; it is replaced."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


@cache
def _insert(rows: int) -> str:
    values = ",".join([f"({','.join('?' * len(_Row._fields))})"] * rows)
    return f"INSERT OR IGNORE INTO outcomes ({', '.join(_Row._fields)}) VALUES {values}"  # noqa: S608  our own names
