"""The SQL of the embedded queue: a table of messages, and the position up to which each lane was taken.

Rules of this module:
- Ids only grow, in the order of commits, so "taken" is one number per lane: every remaining message up to
  `lanes.taken_to` was taken and not acked. Taking any number of messages writes one row.
- sqlite3 releases the interpreter lock at each step of a statement, and may wait 5 ms to get it back from a busy event
  loop. So nothing here steps row by row: one INSERT writes many rows, and one JSON text reads them.
- A message that comes due is written again, so that its id is the newest of `retries`. So is a dead letter.
"""

import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from notifier.model.errors import QueueUnavailable
from notifier.model.message import DEAD, DELIVERY_LIMIT, PARKED, Kind, Lane, Message
from notifier.model.shared_resources import shared_bound
from notifier.queues.sqlite.file import check_sizes, describe_full_disk, open_file, transaction, translating, value_of
from notifier.queues.sqlite.lock import FileIds, describe_move, file_ids_of, names_of, sizes_of, stat_files
from notifier.queues.sqlite.rows import DELAYS, GIVEN_UP_HEADER, LONGEST_DELAY, NewRow, insert_rows, message_of

T = TypeVar("T")
MAX_DUE_PER_ROUND = shared_bound(512)  # messages per transaction: a backlog does not delay other work
LANES: Mapping[str, Lane] = {lane.value: lane for lane in Lane}
QUEUES = frozenset({*LANES, *DELAYS, PARKED, DEAD})

_AS_JSON = """SELECT json_group_array(json_array(
        id, kind, content_type, message_id, json(headers), published_at, delivery_count, hex(body)))"""
_READ = f"{_AS_JSON} FROM (SELECT * FROM messages WHERE queue = ? AND id > ? ORDER BY id LIMIT ?)"  # noqa: S608  constants
_NOT_IN_HAND = "id NOT IN (SELECT value FROM json_each(?))"
_READ_PARKED = f"""{_AS_JSON} FROM (
    SELECT * FROM messages WHERE parked = ? AND {_NOT_IN_HAND} ORDER BY id LIMIT ?)"""  # noqa: S608  constants
_TAKEN = "SELECT m.id FROM lanes JOIN messages AS m ON m.queue = lanes.queue AND m.id <= lanes.taken_to"
_GIVE_BACK = f"UPDATE messages SET delivery_count = delivery_count + 1 WHERE id IN ({_TAKEN})"  # noqa: S608  constants
_GIVEN_UP = f"FROM messages WHERE delivery_count > {DELIVERY_LIMIT} AND id IN ({_TAKEN})"
_GIVE_UP = f"""
    INSERT INTO messages (queue, kind, content_type, message_id, headers, published_at, body)
    SELECT '{DEAD}', kind, content_type, message_id, json_set(headers, '$."{GIVEN_UP_HEADER}"', ?), published_at, body
    {_GIVEN_UP} ORDER BY id"""
_DEPTHS = f"""
    SELECT json_group_object(queue, ready) FROM (
        SELECT m.queue, count(*) AS ready FROM messages AS m LEFT JOIN lanes ON m.queue = lanes.queue
        WHERE NOT ? OR m.id > coalesce(lanes.taken_to, 0) GROUP BY m.queue
        UNION ALL SELECT '{PARKED}', count(*) FROM messages WHERE parked IS NOT NULL)"""  # noqa: S608  constants
_COUNT = """
    SELECT json_group_object(parked, waiting) FROM (
        SELECT parked, count(*) AS waiting FROM messages WHERE {} GROUP BY parked)"""
_COUNT_ALL = _COUNT.format("parked IS NOT NULL")
_COUNT_THESE = _COUNT.format("parked IN (SELECT value FROM json_each(?))")
# The window covers sizes only: over whole rows it would hold all bodies of a page in memory.
_READ_ROWS = f"""{_AS_JSON} FROM messages WHERE id IN (
    SELECT id FROM (
        SELECT id, sum(size) OVER (ORDER BY id) - size AS before
        FROM (SELECT id, length(body) AS size FROM messages WHERE {{}} AND id > ? AND id <= ? ORDER BY id LIMIT ?))
    WHERE before < ?)"""  # noqa: S608  constants
_OLDEST = f"""
    SELECT queue, published_at FROM messages WHERE id IN (
        SELECT min(id) FROM messages WHERE queue IN ('events', 'retries', 'bulk', '{DEAD}') GROUP BY queue)
    UNION ALL SELECT '{PARKED}', published_at FROM messages WHERE id = (
        SELECT min(id) FROM messages INDEXED BY messages_parked WHERE parked IS NOT NULL)"""  # noqa: S608  constants
_MOVE = """
    INSERT INTO messages (queue, kind, content_type, message_id, headers, published_at, delivery_count, body)
    SELECT 'retries', kind, content_type, message_id, headers, published_at, delivery_count, body"""
_DUE = f"FROM messages WHERE due <= ? AND {_NOT_IN_HAND} ORDER BY due, id LIMIT ?"
_NEXT_DUE = f"SELECT due FROM messages WHERE due IS NOT NULL AND {_NOT_IN_HAND} ORDER BY due LIMIT 1"  # noqa: S608  constants
_THESE = "FROM messages WHERE id IN (SELECT value FROM json_each(?))"
_COUNT_RETURN = "UPDATE messages SET delivery_count = delivery_count + 1 WHERE id IN (SELECT value FROM json_each(?))"
_UNDELAY = f"DELETE FROM messages WHERE id IN (SELECT id {_DUE})"  # noqa: S608  constants
_DELETE_LETTERS = f"""
    DELETE FROM messages INDEXED BY messages_dead
    WHERE kind = '{Kind.DEAD_LETTER}' AND message_id IN (SELECT value FROM json_each(?))"""  # noqa: S608  constants
_INTO_MESSAGES = f"INSERT INTO messages ({', '.join(NewRow._fields)})"


class Rows(Enum):
    """The messages that a pass covers, in SQL."""

    DEAD = f"queue = '{DEAD}'"
    WAITING = "due IS NOT NULL"
    DELAYED = "due IS NOT NULL AND parked IS NULL"


class Store:
    """An open queue file, for the thread that opened it. Raises QueueUnavailable for SQLite's errors."""

    def __init__(self, database: sqlite3.Connection, path: Path, files: FileIds) -> None:
        self.database = database
        self._path = path
        self.files = files
        self._names = names_of(path)
        self._sizes = sizes_of(stat_files(self._names))
        self.in_place = True

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the file, as `open_file` does. Also raises QueueUnavailable if it is moved meanwhile."""
        before, database = file_ids_of(stat_files([str(path)]))[0], open_file(path)
        files = file_ids_of(stat_files(names_of(path)))
        if files[0] is None or before not in (None, files[0]):  # it is unknown which of the two files is open
            database.close()
            raise QueueUnavailable(f"the queue file {path} was moved as it was opened")
        return cls(database, path, files)

    def check_place(self) -> None:
        """Raise QueueUnavailable if a path refers to another file or none, where other processes would look.

        What the log has is then copied into the file: without the log a kill would lose all that it confirmed.
        Raises TopologyMismatch if another program has truncated a file.
        """
        found = stat_files(self._names)
        problem = describe_move(self._path, self.files, file_ids_of(found), "this process")
        self.in_place = problem is None
        if problem is not None:
            self.reclaim()
            raise QueueUnavailable(problem)
        if (sizes := sizes_of(found)) != self._sizes:
            self._sizes = check_sizes(self.database, self._path, self._sizes, sizes)

    def transaction(self) -> AbstractContextManager[None]:
        """Return a transaction: all changes inside become durable (fsync), or none."""
        return transaction(self.database, self._path)

    def describe_full_disk(self) -> str | None:
        """Return an error if the disk is full; otherwise None. Raises QueueUnavailable."""
        with translating(self._path):
            return describe_full_disk(self._path, self.database)

    def reclaim(self) -> None:
        """Copy the write-ahead log into the file as far as possible, so that the log restarts. Never waits or raises.

        SQLite does so after a commit, once the log has 4 MiB. If the disk is full before that, no commit succeeds, so
        SQLite never does it, and the log keeps the disk full.
        """
        with suppress(sqlite3.Error):
            self.database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def insert(self, rows: Sequence[NewRow]) -> None:
        """Write messages, in their order. A dead letter replaces its copy, which a killed worker wrote."""
        if letters := {row.message_id: row for row in rows if row.kind == Kind.DEAD_LETTER}:
            self.database.execute(_DELETE_LETTERS, (json.dumps([*letters]),))
            rows = [row for row in rows if row.kind != Kind.DEAD_LETTER or letters[row.message_id] is row]
        insert_rows(self.database, _INTO_MESSAGES, rows)

    def delete(self, ids: Collection[int]) -> None:
        """Delete messages."""
        if ids:
            self.database.execute(f"DELETE {_THESE}", (_json(ids),))

    def read(self, lane: Lane, after: int, limit: int) -> list[tuple[int, Message]]:
        """Return the first messages of a lane beyond the id `after`, in order, each with its id."""
        rows = json.loads(self._value(_READ, lane, after, limit))
        return sorted(((row[0], message_of(lane, row)) for row in rows), key=lambda pair: pair[0])

    def take_to(self, lane: Lane, id_: int) -> None:
        """Mark every message of the lane up to `id_` as taken."""
        self.database.execute("UPDATE lanes SET taken_to = ? WHERE queue = ?", (id_, lane))

    def give_back(self, now: float) -> None:
        """Return the taken and unacked messages to their lanes, and increment their `delivery_count`.

        A message beyond the delivery limit is moved to `dead` unread, since reading it may be what crashes the process.
        """
        self.database.execute(_GIVE_BACK)
        self.database.execute(_GIVE_UP, (now,))
        self.database.execute(f"DELETE {_GIVEN_UP}")
        self.database.execute("UPDATE lanes SET taken_to = 0")

    def bound_delays(self, now: float) -> None:
        """Correct the due times after the wall clock was set back.

        If due times are further ahead than the names of their queues permit, all are moved earlier by the largest
        excess, so that their distances stay. `LONGEST_DELAY` is not compared, since it also contains longer waits.
        """
        last_due_by_queue = "SELECT queue, max(due) FROM messages WHERE due IS NOT NULL GROUP BY queue"
        last_dues = [(queue, due) for queue, due in self.database.execute(last_due_by_queue) if queue != LONGEST_DELAY]
        excess = max((due - DELAYS[queue] - now for queue, due in last_dues), default=0.0)
        if excess > 0:
            self.database.execute("UPDATE messages SET due = due - ? WHERE due IS NOT NULL", (excess,))

    def move_due(self, now: float, in_hand: Collection[int]) -> None:
        """Move due messages that are not in hand to `retries`, earliest first, at most `MAX_DUE_PER_ROUND`."""
        parameters = (now, _json(in_hand), MAX_DUE_PER_ROUND)
        self.database.execute(f"{_MOVE} {_DUE}", parameters)
        self.database.execute(_UNDELAY, parameters)

    def read_next_due(self, in_hand: Collection[int]) -> float | None:
        """Return when the next delayed message that is not in hand is due, in epoch seconds; None without one."""
        row = self.database.execute(_NEXT_DUE, (_json(in_hand),)).fetchone()
        return None if row is None else float(row[0])

    # ── parked messages ─────────────────────────────────────────────────────────────────────────────────────────

    def read_parked(self, bucket: str, in_hand: Collection[int], limit: int) -> list[Message]:
        """Return the oldest messages of a bucket that are not in hand."""
        with translating(self._path):
            rows = json.loads(self._value(_READ_PARKED, bucket, _json(in_hand), limit))
        return [message_of(Lane.RETRIES, row, bucket=bucket) for row in sorted(rows, key=lambda row: int(row[0]))]

    def count_parked(self, buckets: Collection[str] | None = None) -> dict[str, int]:
        """Return the number of messages per bucket (None: all), with messages in hand, without empty buckets."""
        with translating(self._path):
            counts = self._value(_COUNT_ALL) if buckets is None else self._value(_COUNT_THESE, json.dumps([*buckets]))
        counted: dict[str, int] = json.loads(counts)
        return counted

    def read_parked_ids(self) -> list[int]:
        """Return the ids of all parked messages, oldest first."""
        with translating(self._path):
            return sorted(json.loads(self._value("SELECT json_group_array(id) FROM messages WHERE parked IS NOT NULL")))

    def wake(self, ids: Collection[int]) -> None:
        """Move these messages to `retries`."""
        self.database.execute(f"{_MOVE} {_THESE} ORDER BY id", (_json(ids),))
        self.delete(ids)

    def count_return(self, ids: Collection[int]) -> None:
        """Increment the `delivery_count` of fetched messages that are returned."""
        self.database.execute(_COUNT_RETURN, (_json(ids),))

    # ── rows for passes ─────────────────────────────────────────────────────────────────────────────────────────

    def read_newest(self, rows: Rows) -> tuple[int, int]:
        """Return the id of the newest of these messages (0 if there is none) and their number."""
        newest, count = json.loads(
            self._value(f"SELECT json_array(coalesce(max(id), 0), count(*)) FROM messages WHERE {rows.value}")  # noqa: S608
        )
        return int(newest), int(count)

    def read_rows(self, rows: Rows, after: int, last: int, limit: int, size: int) -> list[Message]:
        """Return at most `limit` messages with ids after `after` and up to `last`, of about `size` bytes in all."""
        read = json.loads(self._value(_READ_ROWS.format(rows.value), after, last, limit, size))
        return [message_of(Lane.RETRIES, row) for row in sorted(read, key=lambda row: int(row[0]))]

    def find_existing(self, rows: Rows, ids: Sequence[int]) -> set[int]:
        """Return which of these messages are still in the file."""
        sql = f"SELECT json_group_array(id) {_THESE} AND {rows.value}"
        return set(json.loads(self._value(sql, _json(ids))))

    # ── counts and times ────────────────────────────────────────────────────────────────────────────────────────

    def depths(self, *, consumed: bool) -> Mapping[str, int]:
        """Return the number of messages per queue. `consumed`: omit the messages that a worker has taken from lanes.

        Messages that it has fetched from buckets are included, since the file does not record a fetch.
        """
        with translating(self._path):
            counted: dict[str, int] = json.loads(self._value(_DEPTHS, consumed))
        counted[LONGEST_DELAY] = counted.get(LONGEST_DELAY, 0) - counted[PARKED]  # the queue of parked rows
        return counted

    def read_oldest(self) -> dict[str, float]:
        """Return when the first message of each lane, of `dead` and of `parked` was written, taken or not."""
        with translating(self._path):
            return dict(self.database.execute(_OLDEST).fetchall())

    def count_foreign_changes(self) -> int:
        """Return a number that changes whenever another process commits."""
        with translating(self._path):
            return int(self._value("PRAGMA data_version"))

    def use(self, work: Callable[[Self], T], *, writing: bool) -> T:
        """Run `work` on this store, in a transaction if it writes."""
        with self.transaction() if writing else translating(self._path):
            return work(self)

    def close(self) -> None:
        """Close the file. The last process that closes it copies the write-ahead log into it."""
        self.database.close()

    def _value(self, sql: str, *parameters: object) -> Any:
        return value_of(self.database, sql, *parameters)


def _json(ids: Collection[int]) -> str:
    return str([*ids])


class OpenStore(Protocol):
    """The store of an open queue, on the queue's thread."""

    async def use(self, work: Callable[[Store], T], *, writing: bool = True) -> T:
        """Run `work`, in one transaction if it writes. Raises QueueError."""

    def temporarily_open(self) -> AbstractAsyncContextManager[None]:
        """Open an existing file for the block, unless it is open already. Raises QueueError."""
