"""Outcomes in a SQLite file: written by `notifier collect`, read by `notifier report`, which also reads the queue's.

A file that is another program's, or the queue's, is refused by the writer and left as it is.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

from notifier.adapters.feed import outcome_table
from notifier.adapters.feed.outcome_table import Retention
from notifier.domain.errors import QueueError, QueueUnavailable
from notifier.domain.outcome_event import Seen, Told

APPLICATION_ID = 0x6E74666F  # "ntfo", in the file's header: what tells our files from others
BUSY_TIMEOUT = 30.0  # seconds to wait for another collector's transaction


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise QueueUnavailable(f"the file of outcomes {path} cannot be used: {error}") from error


class OutcomeFile:
    """For one writer, or several in turn; calls may come from any thread, one at a time."""

    def __init__(self, database: sqlite3.Connection, path: Path, retention: Retention) -> None:
        self._database = database
        self._path = path
        self._retention = retention

    @classmethod
    def open(cls, path: Path, retention: Retention) -> Self:
        """Open or make it. Raises QueueError where it cannot be, or is not ours."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise QueueUnavailable(f"cannot open {path} for writing: {error.strerror}") from error
        with _translating(path):
            database = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
            try:
                _prepare(database, path)
            except BaseException:
                database.close()
                raise
        return cls(database, path, retention)

    def keep(self, batch: Sequence[Told]) -> int:
        """Write them, so that they last; how many were new. Raises QueueUnavailable."""
        with _translating(self._path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                new = outcome_table.insert(self._database, batch)
                outcome_table.prune(self._database, self._retention, time.time())
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # SQLite rolls back by itself when the disk is full
                    self._database.execute("ROLLBACK")
                raise
        return new

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    application = database.execute("PRAGMA application_id").fetchone()[0]
    tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or tables):
        raise QueueError(f"{path} is no file of outcomes, and was left as it is: name another")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    outcome_table.create(database)
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def read_outcomes(path: Path, since: float, progress: Callable[[int, int], None]) -> Iterator[Seen]:
    """Those told since, oldest first; none where none was ever kept. `progress` gets how many of how many were read.

    The file is opened for reading only, beside whoever writes it. Raises QueueUnavailable.
    """
    with _translating(path), closing(_for_reading(path)) as database:
        if not outcome_table.exists(database):
            return
        total = outcome_table.count(database, since)
        progress(0, total)
        for number, seen in enumerate(outcome_table.read(database, since), 1):
            if number % 10_000 == 0:
                progress(number, total)
            yield seen
        progress(total, total)


def _for_reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=BUSY_TIMEOUT, uri=True)
