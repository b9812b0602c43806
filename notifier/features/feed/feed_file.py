"""A SQLite file of notices: `notifier collect` writes it, and `notifier report` reads it (or the queue's file).

The writer refuses a file of another program, or of the queue, and leaves it as it is.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

from notifier.model.errors import QueueError, QueueUnavailable
from notifier.model.fate import FeedNotice, FeedRow
from notifier.queues.sqlite import feed_table
from notifier.queues.sqlite.feed_table import Retention
from notifier.queues.sqlite.file import committed

APPLICATION_ID = 0x6E74666F  # "ntfo", in the file's header: it tells our files from others
BUSY_TIMEOUT = 30.0  # seconds to wait for another collector's transaction


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise QueueUnavailable(f"the file of outcomes {path} cannot be used: {error}") from error


class FeedFile:
    """A file to write. Several processes may write it; calls may come from any thread, one at a time."""

    def __init__(self, database: sqlite3.Connection, path: Path, retention: Retention) -> None:
        self._database = database
        self._path = path
        self._retention = retention

    @classmethod
    def open(cls, path: Path, retention: Retention) -> Self:
        """Open the file, or make it. Raises QueueError if that fails, or if the file is not ours."""
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

    def keep(self, batch: Sequence[FeedNotice]) -> int:
        """Write the notices durably, and return how many were new. Raises QueueUnavailable."""
        with _translating(self._path), committed(self._database):
            return feed_table.keep(self._database, batch, self._retention, time.time())

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    application = database.execute("PRAGMA application_id").fetchone()[0]
    tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or tables):
        raise QueueError(f"{path} is not a file of outcomes, and was left as it is; name another file")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    feed_table.create(database)
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def read_feed(path: Path, since: float, progress: Callable[[int, int], None]) -> Iterator[FeedRow]:
    """Yield the rows since a moment, oldest first. `progress` gets how many of how many were read.

    It only reads the file, and disturbs no writer. Raises QueueUnavailable.
    """
    place = f"{path.absolute().as_uri()}?mode=ro"
    with _translating(path), closing(sqlite3.connect(place, timeout=BUSY_TIMEOUT, uri=True)) as database:
        if not feed_table.exists(database):
            return
        total = feed_table.count(database, since)
        progress(0, total)
        for number, row in enumerate(feed_table.read(database, since), 1):
            if number % 10_000 == 0:
                progress(number, total)
            yield row
        progress(total, total)
