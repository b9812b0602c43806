"""Creates, opens and checks the file of the embedded queue before anything is written to it.

A damaged file, or a file of another program, is refused and left unchanged, byte for byte.
"""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from notifier.model.errors import DiskFull, QueueError, QueueUnavailable, TopologyMismatch
from notifier.model.message import Kind
from notifier.queues.queue_state import FileState
from notifier.queues.sqlite.lock import FileSizes, find_moved_file, has_worker
from notifier.settings.file_owners import find_foreign_queue_file

SCHEMA_VERSION = 1
APPLICATION_ID = 0x6E746672  # "ntfr", in the file's header: distinguishes our files from others
# With less free space the disk counts as full. An event has at most 128 KiB, and a commit is usually small. The rest
# is reserved for acks, which free space but must be written first.
MIN_FREE_BYTES = 2 * 1024 * 1024  # bytes
_AMPLE_BYTES = 8 * MIN_FREE_BYTES  # with more free space, the log (up to 4 MiB) need not be examined
BUSY_TIMEOUT_SECONDS = 5.0  # wait for another process's transaction; transactions take milliseconds
_DISK_FULL_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)  # SQLite's errors on a full disk

_SCHEMA = (
    """CREATE TABLE messages (
        id             INTEGER PRIMARY KEY AUTOINCREMENT,
        queue          TEXT NOT NULL,
        kind           TEXT,
        content_type   TEXT,
        message_id     TEXT,
        headers        TEXT NOT NULL,
        published_at   REAL NOT NULL,
        due            REAL,
        delivery_count INTEGER NOT NULL DEFAULT 0,
        body           BLOB NOT NULL,
        parked         TEXT
    )""",
    "CREATE INDEX messages_queue ON messages (queue)",
    "CREATE INDEX messages_due ON messages (due) WHERE due IS NOT NULL",
    "CREATE INDEX messages_parked ON messages (parked) WHERE parked IS NOT NULL",  # SQLite appends the id
    "CREATE TABLE lanes (queue TEXT PRIMARY KEY, taken_to INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID",
    "INSERT INTO lanes (queue) VALUES ('events'), ('retries'), ('bulk')",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

# Not in the schema of builds until 2026-11-28, which can use a file with them.
_LATER_SCHEMA = (
    f"CREATE INDEX IF NOT EXISTS messages_dead ON messages (message_id) WHERE kind = '{Kind.DEAD_LETTER}'",
    "CREATE TABLE IF NOT EXISTS register (name TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID",
)


def open_file(path: Path) -> sqlite3.Connection:
    """Open or create the file. Raises QueueUnavailable, or TopologyMismatch for a file that is not ours."""
    _refuse_foreign(path)
    if (move_problem := find_moved_file(path)) is not None:
        raise QueueUnavailable(move_problem)
    try:
        _make_file(path.resolve())
    except OSError as error:
        raise QueueUnavailable(f"cannot open the queue file {path} for writing: {error.strerror}") from error
    with translating(path):
        database = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
    try:
        _prepare(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _refuse_foreign(path: Path) -> None:
    """Raise TopologyMismatch if another user may have written the file, its link, or the files that belong to it."""
    if (foreign := find_foreign_queue_file(path)) is not None:
        raise TopologyMismatch(f"the queue file {path} is not used: {foreign}")


def _make_file(path: Path) -> None:
    """Create the file, unless it exists, with mode 0600, since it contains `sub` and `sid`. Raises OSError.

    SQLite gives the files -wal and -shm the same mode.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:  # an existing file must not be opened here, see `file_ids_of`
        if path.is_dir():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        if not os.access(path, os.R_OK | os.W_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES)) from None


def examine(path: Path) -> None:
    """Read the whole file without writing. Raises TopologyMismatch if it is damaged, QueueUnavailable if unreadable.

    The connection is read-only, since closing a writable connection may copy the write-ahead log into the file. A file
    of another program, or one that cannot be opened, is not examined: `open_file` checks for these.
    """
    log = _log_of(path)
    try:
        size = path.stat().st_size
        log_size = log.stat().st_size if log.exists() else 0
    except OSError:
        return
    if not size and log_size:  # SQLite would treat the file as new and clear the log
        raise _to_mismatch(path, "it is empty, and its write-ahead log is not")
    if not size or not path.is_file() or not os.access(path, os.R_OK):
        return
    with translating(path), closing(_open_read_only(path)) as database:
        try:
            if value_of(database, "PRAGMA application_id") != APPLICATION_ID:
                return
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                return
            raise
        result = str(value_of(database, "PRAGMA quick_check(1)"))
    if result != "ok":
        raise _to_mismatch(path, result)


def _log_of(path: Path) -> Path:
    """Return the path of the write-ahead log, which SQLite stores next to the resolved file."""
    file = path.resolve()
    return file.with_name(f"{file.name}-wal")


def recognise(path: Path) -> None:
    """Check without writing that the file is ours or empty. Raises TopologyMismatch, QueueUnavailable."""
    _refuse_foreign(path)
    with translating(path), closing(_open_read_only(path)) as database:
        _is_new(database, path)


def _open_read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=BUSY_TIMEOUT_SECONDS, uri=True)


def describe_full_disk(path: Path, database: sqlite3.Connection | None = None) -> str | None:
    """Return an error if the file's disk is full; None if it is not, or if its size is unknown. Raises sqlite3.Error.

    With the open `database`, pages that are free inside the file count too, minus what its log will still add to it.
    """
    try:
        disk = os.statvfs(path if path.exists() else path.absolute().parent)
        free_bytes = disk.f_bavail * disk.f_frsize
        if not disk.f_blocks or free_bytes >= _AMPLE_BYTES:
            return None
        if database is not None:
            free_bytes += _count_free_bytes(database, path)
    except OSError:
        return None
    if free_bytes >= MIN_FREE_BYTES:
        return None
    return f"the disk of the queue file {path} is full (less than {MIN_FREE_BYTES >> 20} MiB is free); make room there"


def _count_free_bytes(database: sqlite3.Connection, path: Path) -> int:
    """Return how many bytes are free inside the file for the log, minus the bytes by which the log enlarges the file.

    The latter must fit on the disk: otherwise the log cannot be copied into the file, and no ack succeeds.
    """
    pragmas = ("page_size", "page_count", "freelist_count")
    page_size, page_count, free_pages = (value_of(database, f"PRAGMA {name}") for name in pragmas)
    log = _log_of(path)
    log_size = log.stat().st_size if log.exists() else 0
    growth = max(0, page_count * page_size - path.stat().st_size)
    return int(min(free_pages * page_size, log_size) - growth)


def examine_file(path: Path) -> FileState:
    """Return the state of the file for the doctor, with the permissions of the current user. Writes nothing."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        folder = path.absolute().parent
        if (move_problem := find_moved_file(path)) is not None:
            return FileState(path=path, size=None, worker=True, fault=move_problem)
        fault: str | None = f"the folder {folder} is missing, or not ours to write to"
        if os.access(folder, os.W_OK | os.X_OK):
            fault = describe_full_disk(path)
        return FileState(path=path, size=None, worker=False, fault=fault)
    except OSError as error:
        return FileState(path=path, size=None, worker=False, fault=f"{path} cannot be read: {error.strerror}")
    fault = None if os.access(path, os.R_OK | os.W_OK) else f"{path} is not ours to read and write"
    if fault is None:
        try:
            recognise(path)
            examine(path)
            with translating(path), closing(_open_read_only(path)) as database:
                fault = find_moved_file(path) or describe_full_disk(path, database)
        except QueueError as error:
            fault = str(error)
    return FileState(path=path, size=size, worker=has_worker(path), fault=fault)


def check_sizes(database: sqlite3.Connection, path: Path, former: FileSizes, sizes: FileSizes) -> FileSizes:
    """Return the new sizes. Raises TopologyMismatch if another program than SQLite truncated the file or its log."""
    if sizes[0] < former[0]:
        with translating(path):
            needed = value_of(database, "PRAGMA page_count") * value_of(database, "PRAGMA page_size")
        if sizes[0] < needed:
            raise _to_mismatch(path, "another program truncated it")
    if sizes[1] < former[1]:
        try:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # fails if the log lacks what it had
        except sqlite3.Error as error:
            text = f"another program truncated {path}-wal: what only that had is lost; start the worker again"
            raise TopologyMismatch(text) from error
    return sizes


@contextmanager
def transaction(database: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Run the block in a transaction: all its changes become durable (fsync), or none."""
    with translating(path), committed(database):
        yield


@contextmanager
def committed(database: sqlite3.Connection) -> Iterator[None]:
    """Do the same as `transaction`, but raise SQLite's errors."""
    try:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            if database.in_transaction:  # SQLite rolls back by itself when the disk is full
                database.execute("ROLLBACK")
        raise


@contextmanager
def translating(path: Path) -> Iterator[None]:
    """Translate SQLite's errors: TopologyMismatch if an operator must act, DiskFull, or QueueUnavailable."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _to_mismatch(path, str(error)) from error
        if code in _DISK_FULL_CODES and (full := describe_full_disk(path)) is not None:
            raise DiskFull(full) from error
        raise QueueUnavailable(f"the queue file {path} cannot be used: {error}") from error


def value_of(database: sqlite3.Connection, sql: str, *parameters: object) -> Any:
    """Return the single value of a query."""
    with closing(database.execute(sql, parameters)) as cursor:
        return cursor.fetchone()[0]


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    """Set SQLite's modes, and create the schema in a new file. Raises TopologyMismatch, QueueUnavailable."""
    with translating(path):
        is_new = _is_new(database, path)  # before any write, so that another program's file stays unchanged
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
    with transaction(database, path):  # fails now if the file is not writable
        is_new = is_new and _is_new(database, path)  # another process may have created the schema meanwhile
        for statement in (*_SCHEMA, *_LATER_SCHEMA) if is_new else _LATER_SCHEMA:
            database.execute(statement)


def _is_new(database: sqlite3.Connection, path: Path) -> bool:
    """Return True if the file is empty, False if it has our schema. Raises TopologyMismatch for any other file."""
    try:
        application = value_of(database, "PRAGMA application_id")
        version = value_of(database, "PRAGMA user_version")
        if application == version == 0 and value_of(database, "SELECT count(*) FROM sqlite_master") == 0:
            return True
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
            raise
        raise TopologyMismatch(
            f"{path} is not a SQLite file, or its beginning is damaged; it was left as it is: name another"
        ) from error
    if application != APPLICATION_ID:
        raise TopologyMismatch(f"{path} is another program's SQLite file; it was left as it is: name another")
    if version != SCHEMA_VERSION:
        raise TopologyMismatch(
            f"{path} has schema version {version}, this notifier knows {SCHEMA_VERSION}: "
            "use the notifier that wrote it, or name another file"
        )
    return False


def _to_mismatch(path: Path, damage: str) -> TopologyMismatch:
    damage = " ".join(damage.replace("*** in database main ***", "").split())
    return TopologyMismatch(
        f"the queue file {path} is damaged ({damage}); it was left as it is: `sqlite3 {path} .recover` shows what can "
        f"be saved of it; then move it and {path}-wal elsewhere and start again"
    )
