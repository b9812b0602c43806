"""The table `outcomes`, which holds notices, in the embedded queue's file.

The functions take an open database, inside a transaction. The first notice makes the table, so a file without notices
keeps its form. Of the copies of a notice (the same `id`) one is kept. Rows are in the order of `at`, by the
clock of the worker that wrote them; two workers' clocks may differ.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from notifier.model.fate import ClientNotice, FeedNotice

LARGEST_INSERT = 128  # rows of one statement; see queues/sqlite/store.py for why nothing steps row by row
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
    """How many notices are kept at most, and for how many seconds."""

    most: int
    age: float


_COLUMNS = (
    *("id", "at", "fate", "reason", "iss", "client_id", "event_id", "delivery_id", "publisher", "ended_at"),
    *("propagation", "next_due", "attempt", "jti", "status", "seconds"),
)


def create(database: sqlite3.Connection) -> None:
    """Make the table, if it is missing."""
    for statement in _SCHEMA:
        database.execute(statement)


def keep(database: sqlite3.Connection, batch: Sequence[FeedNotice], retention: Retention, now: float) -> int:
    """Write the notices, and delete the oldest. Returns how many were new."""
    create(database)
    new = _write(database, batch)
    _prune(database, retention, now)
    return new


def _write(database: sqlite3.Connection, batch: Sequence[FeedNotice]) -> int:
    rows = [_values(notice) for notice in batch]
    new = start = 0
    while start < len(rows):
        size = min(LARGEST_INSERT, 1 << ((len(rows) - start).bit_length() - 1))
        values = [_storable(value) for row in rows[start : start + size] for value in row]
        new += database.execute(_insert(size), values).rowcount
        start += size
    return new


def _prune(database: sqlite3.Connection, retention: Retention, now: float) -> None:
    """Delete the oldest, up to PRUNED_AT_ONCE for each limit."""
    database.execute(
        "DELETE FROM outcomes WHERE n IN (SELECT n FROM outcomes WHERE at < ? ORDER BY at LIMIT ?)",
        (now - retention.age, PRUNED_AT_ONCE),
    )
    database.execute(
        "DELETE FROM outcomes WHERE n IN (SELECT n FROM outcomes WHERE n <= (SELECT max(n) FROM outcomes) - ? LIMIT ?)",
        (retention.most, PRUNED_AT_ONCE),
    )


def _values(notice: FeedNotice) -> tuple[object, ...]:
    """The values of a row, in the order of _COLUMNS."""
    if isinstance(notice, ClientNotice):
        return (notice.id, notice.at, notice.state, "", notice.iss, notice.client_id, "", "", *[None] * 8)
    last = notice.last_attempt
    return (
        *(notice.id, notice.at, notice.fate, notice.reason, notice.iss, notice.client_id, notice.event_id),
        *(notice.delivery_id, notice.publisher, notice.ended_at, notice.propagation, notice.next_due),
        *((None,) * 4 if last is None else (last.number, last.jti, last.status, last.seconds)),
    )


def _storable(value: object) -> object:
    """Replace half of a surrogate pair, which SQLite cannot store."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


@cache
def _insert(rows: int) -> str:
    values = ",".join([f"({','.join('?' * len(_COLUMNS))})"] * rows)
    return f"INSERT OR IGNORE INTO outcomes ({', '.join(_COLUMNS)}) VALUES {values}"  # noqa: S608  our own names
