"""Stores the feed in the embedded queue's file: the queue's thread writes batches and deletes old notices.

The functions on the table `outcomes` need an open database, inside a transaction. The first notice creates the table,
so a file without notices keeps its schema. Copies of a notice (the same `id`) are stored once. Rows are ordered by
`at`, the time of the worker that wrote them; two workers' clocks may differ.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from notifier.model.notice import ClientNotice, FeedNotice
from notifier.queues.sqlite.rows import insert_rows
from notifier.queues.sqlite.store import OpenStore

MAX_PRUNED_ROWS = 5000  # per write, so that a shorter retention does not delay other work

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
GATHER_SECONDS = 0.25  # during which a batch grows: each batch costs the queue's thread a commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The maximum number of notices, and their maximum age in seconds."""

    most: int
    age: float


_INTO_OUTCOMES = (
    "INSERT OR IGNORE INTO outcomes (id, at, fate, reason, iss, client_id, event_id, delivery_id, publisher, ended_at,"
    " propagation, next_due, attempt, jti, status, seconds)"
)


def write_notices(database: sqlite3.Connection, batch: Sequence[FeedNotice], retention: Retention, now: float) -> None:
    """Write the notices, and delete notices beyond the retention."""
    for statement in _SCHEMA:
        database.execute(statement)
    insert_rows(
        database, _INTO_OUTCOMES, [[_without_surrogates(value) for value in _to_values(notice)] for notice in batch]
    )
    _prune(database, retention, now)


def _prune(database: sqlite3.Connection, retention: Retention, now: float) -> None:
    """Delete the oldest notices, at most MAX_PRUNED_ROWS for each limit."""
    database.execute(
        "DELETE FROM outcomes WHERE n IN (SELECT n FROM outcomes WHERE at < ? ORDER BY at LIMIT ?)",
        (now - retention.age, MAX_PRUNED_ROWS),
    )
    database.execute(
        "DELETE FROM outcomes WHERE n IN (SELECT n FROM outcomes WHERE n <= (SELECT max(n) FROM outcomes) - ? LIMIT ?)",
        (retention.most, MAX_PRUNED_ROWS),
    )


def _to_values(notice: FeedNotice) -> tuple[object, ...]:
    """Return the values of a row, in the order of _INTO_OUTCOMES."""
    if isinstance(notice, ClientNotice):
        return (notice.id, notice.at, notice.state, "", notice.iss, notice.client_id, "", "", *[None] * 8)
    last = notice.last_attempt
    return (
        *(notice.id, notice.at, notice.fate, notice.reason, notice.iss, notice.client_id, notice.event_id),
        *(notice.delivery_id, notice.publisher, notice.ended_at, notice.propagation, notice.next_due),
        *((None,) * 4 if last is None else (last.number, last.jti, last.status, last.seconds)),
    )


def _without_surrogates(value: object) -> object:
    """Replace unpaired surrogates, which SQLite cannot store."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


# About 80 MiB beside the messages: the file of a small installation must not grow without limit.
RETENTION = Retention(most=200_000, age=7 * 86_400.0)


class SqliteFeedTarget:
    """Stores notices while the queue is open. `clock`: of the queue. `blocked` returns True if the disk is full."""

    max_batch: Final = 2048

    def __init__(
        self,
        file: OpenStore,
        clock: Callable[[], float],
        retention: Retention = RETENTION,
        blocked: Callable[[], bool] = lambda: False,
    ) -> None:
        self._file = file
        self._clock = clock
        self._blocked = blocked
        self._retention = retention

    async def run(self) -> None:
        """Do nothing, since the queue keeps the file open."""

    async def wait_until_available(self) -> None:
        """Wait until a batch has grown, and until the disk has room. Never raises."""
        await asyncio.sleep(GATHER_SECONDS)
        while self._blocked():  # noqa: ASYNC110  the check reads one value
            await asyncio.sleep(GATHER_SECONDS)

    async def send(self, batch: Sequence[FeedNotice]) -> None:
        """Return once the notices are on disk. Raises QueueUnavailable."""
        await self._file.use(lambda store: write_notices(store.database, batch, self._retention, self._clock()))
