"""The SQL of the embedded queue: a table of messages, and how far each lane has been taken.

Rules of this module:
- Ids only grow, in the order of commits, so "taken" is one number a lane: every message up to `lanes.taken_to` that is
  still there was taken and not acked. Taking writes one row, however many messages it takes.
- sqlite3 gives up the interpreter lock at each step of a statement, and waits up to 5 ms to get it back from a busy
  event loop. So nothing here steps row by row: many rows are one INSERT, and are read as one JSON text.
- A message that comes due is written anew, so that its id is the newest of `retries`. So is one that is given up.
- A death of the process costs one write for what it held; nothing is written to count a delivery that ends well.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self, TypeVar

from notifier.adapters.feed import feed_table
from notifier.adapters.feed.feed_table import Retention
from notifier.adapters.queues.sqlite.file import one, open_file, transaction, translating
from notifier.domain.fate import FeedNotice
from notifier.domain.message import DEAD, DELAYED, DELIVERY_LIMIT, Lane, Message, Outgoing, kind_named
from notifier.domain.reply import ReplyTo

IN_FILE = "file"  # where a publisher beside the worker is answered: in the tables of `notes`
ASKER = "notifier.asker"  # the header by which it says who it is; only we write to the file
GIVEN_UP = "notifier.given_up"  # the header that says when this was, in epoch seconds
T = TypeVar("T")
LARGEST_INSERT = 256  # rows of one statement
DUE_AT_ONCE = 512  # messages moved in one transaction, so that a backlog holds nobody up
# A message that waits goes by its due time. The queue's name only says how long it waits at the most, `delay.64s`, as
# in the files of every release, so that an older one can go on with a file, and people find the names of RabbitMQ.
DELAYS: Mapping[str, int] = MappingProxyType({f"{DELAYED}{2**power}s": 2**power for power in range(17)})
_LONGEST = f"{DELAYED}{2**16}s"  # longer waits too
_LANES: Mapping[str, Lane] = MappingProxyType({lane.value: lane for lane in Lane})
QUEUES = frozenset({*_LANES, *DELAYS, DEAD})

_READ = """
    SELECT json_group_array(json_array(
        id, kind, content_type, message_id, json(headers), published_at, delivery_count, hex(body)))
    FROM (SELECT * FROM messages WHERE queue = ? AND id > ? ORDER BY id LIMIT ?)"""
_TAKEN = "SELECT m.id FROM lanes JOIN messages AS m ON m.queue = lanes.queue AND m.id <= lanes.taken_to"
_GIVE_BACK = f"UPDATE messages SET delivery_count = delivery_count + 1 WHERE id IN ({_TAKEN})"  # noqa: S608  constants
_GIVEN_UP = f"FROM messages WHERE delivery_count > {DELIVERY_LIMIT} AND id IN ({_TAKEN})"
_GIVE_UP = f"""
    INSERT INTO messages (queue, kind, content_type, message_id, headers, published_at, body)
    SELECT '{DEAD}', kind, content_type, message_id, json_set(headers, '$."{GIVEN_UP}"', ?), published_at, body
    {_GIVEN_UP} ORDER BY id"""
_WITHIN = """
    SELECT count(*) FROM (
        SELECT sum(size) OVER (ORDER BY id) - size AS before FROM (
            SELECT id, length(body) AS size FROM messages WHERE queue = ? AND id > ? ORDER BY id LIMIT ?))
    WHERE before < ?"""
_DEPTHS = """
    SELECT json_group_object(queue, ready) FROM (
        SELECT m.queue, count(*) AS ready FROM messages AS m LEFT JOIN lanes ON m.queue = lanes.queue
        WHERE NOT ? OR m.id > coalesce(lanes.taken_to, 0) GROUP BY m.queue)"""
_DUE = "FROM messages WHERE due <= ? ORDER BY due, id LIMIT ?"
_MOVE = f"""
    INSERT INTO messages (queue, kind, content_type, message_id, headers, published_at, body)
    SELECT 'retries', kind, content_type, message_id, headers, published_at, body {_DUE}"""
_DOCUMENT = "CAST(body AS TEXT)"
_JOIN_HOPS = f"""
    UPDATE messages SET queue = '{_LONGEST}', due = max(due, json_extract({_DOCUMENT}, '$.schedule.due'))
    WHERE due IS NOT NULL AND CAST(substr(body, -3) AS TEXT) = ']}}}}'
    AND CASE WHEN json_valid({_DOCUMENT}) THEN json_array_length({_DOCUMENT}, '$.schedule.hops') > 0 ELSE 0 END"""  # noqa: S608  constants
_UNDELAY = f"DELETE FROM messages WHERE id IN (SELECT id {_DUE})"  # noqa: S608  constants


class NewRow(NamedTuple):
    """A message to write. `headers` is a JSON object; `due` in epoch seconds, None if the message does not wait."""

    queue: str
    kind: str | None
    content_type: str | None
    message_id: str | None
    headers: str
    published_at: float
    due: float | None
    body: bytes


def new_row(queue: str, message: Outgoing, published_at: float, *, due: float | None = None) -> NewRow:
    """The message as a row to write."""
    return NewRow(
        queue=queue,
        kind=message.kind,
        content_type=message.content_type,
        message_id=storable(message.message_id),
        headers=json.dumps(dict(message.headers)) if message.headers else "{}",
        published_at=published_at,
        due=due,
        body=message.body,
    )


def storable(text: str) -> str:
    """The text. Raises ValueError for half of a surrogate pair, here and not on the writer's thread."""
    text.encode()
    return text


def queue_of_wait(seconds: float) -> str:
    """The name under which a message is kept that waits for so long."""
    return next((name for name, most in DELAYS.items() if seconds <= most), _LONGEST)


@dataclass(frozen=True, slots=True, eq=False)
class RowTag:
    """Names one taking of a row. Tags compare by identity: when the row is taken again it gets another one."""

    id: int


class Store:
    """An open queue file, for the thread that opened it. Raises QueueUnavailable for whatever SQLite refuses."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._database = database
        self._path = path

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the file. Raises TopologyMismatch for a file that is not ours, and leaves it as it is."""
        return cls(open_file(path), path)

    def transaction(self) -> AbstractContextManager[None]:
        """Everything done inside becomes durable together (fsync) or not at all."""
        return transaction(self._database, self._path)

    def reclaim(self) -> None:
        """Fold what can be folded of the write-ahead log into the file, so that the log starts anew.

        SQLite does so after a commit, once the log has 4 MiB. On a disk that is full before that no commit succeeds, so
        SQLite never does, and the log keeps the disk full. Waits for nobody, and never raises.
        """
        with suppress(sqlite3.Error):
            self._database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def insert(self, rows: Sequence[NewRow]) -> None:
        """Write messages, in their order."""
        start = 0
        while start < len(rows):
            # Powers of two, so that nine statements serve every number of rows and stay prepared.
            size = min(LARGEST_INSERT, 1 << ((len(rows) - start).bit_length() - 1))
            values = [value for row in rows[start : start + size] for value in row]
            self._database.execute(_insert(size), values)
            start += size

    def delete(self, ids: Sequence[int]) -> None:
        """Delete messages."""
        if ids:
            self._database.execute("DELETE FROM messages WHERE id IN (SELECT value FROM json_each(?))", (str(ids),))

    def read(self, queue: str, after: int, limit: int) -> list[tuple[int, Message]]:
        """The first messages of a queue beyond the id `after`, in order, each with its id."""
        lane = _LANES.get(queue, Lane.RETRIES)  # where a delayed or dead one would come again
        rows = json.loads(self._one(_READ, queue, after, limit))
        return sorted(((row[0], _message(lane, row)) for row in rows), key=lambda found: found[0])

    def within(self, queue: str, after: int, limit: int, size: int) -> int:
        """How many of the first `limit` messages beyond the id `after` have bodies of `size` bytes, or one more."""
        return int(self._one(_WITHIN, queue, after, limit, size))

    def last_id(self, queue: str) -> int:
        """The id of the newest message of a queue; 0 if it is empty."""
        return int(self._one("SELECT coalesce(max(id), 0) FROM messages WHERE queue = ?", queue))

    def standing(self, queue: str, ids: Sequence[int]) -> set[int]:
        """Which of these messages are still there."""
        sql = """SELECT json_group_array(id) FROM messages
                 WHERE queue = ? AND id IN (SELECT value FROM json_each(?))"""
        return set(json.loads(self._one(sql, queue, str(list(ids)))))

    def take_to(self, lane: Lane, id_: int) -> None:
        """Mark every message of the lane up to `id_` as taken."""
        self._database.execute("UPDATE lanes SET taken_to = ? WHERE queue = ?", (id_, lane))

    def taken_to(self, queue: str) -> int:
        """The last id that was taken; 0 for queues that are not consumed."""
        found = self._database.execute("SELECT max(taken_to) FROM lanes WHERE queue = ?", (queue,)).fetchone()[0]
        return 0 if found is None else int(found)

    def give_back(self, now: float) -> None:
        """Give back the messages that were taken and not acked: in their places, with `delivery_count` one higher.

        What kills whoever takes it would kill for ever: beyond the limit it is moved to `dead` as it is. Nobody reads
        it on the way, which may be what kills.
        """
        self._database.execute(_GIVE_BACK)
        self._database.execute(_GIVE_UP, (now,))
        self._database.execute(f"DELETE {_GIVEN_UP}")
        self._database.execute("UPDATE lanes SET taken_to = 0")

    def bound_delays(self, now: float) -> None:
        """If the wall clock was set back meanwhile, bring every due time forward by as much as the farthest shows.

        None lies ahead by more than its queue's name says. All are moved, so that they keep their distances.
        """
        farthest = "SELECT queue, max(due) FROM messages WHERE due IS NOT NULL GROUP BY queue"
        found = [(queue, due) for queue, due in self._database.execute(farthest) if queue != _LONGEST]
        ahead = max((due - DELAYS[queue] - now for queue, due in found), default=0.0)
        if ahead > 0:
            self._database.execute("UPDATE messages SET due = due - ? WHERE due IS NOT NULL", (ahead,))

    def join_hops(self) -> None:
        """Let a message that an earlier release delayed in several steps wait until it is due."""
        self._database.execute(_JOIN_HOPS)

    def move_due(self, now: float) -> None:
        """Move messages that are due to `retries`, the earliest first, `DUE_AT_ONCE` at most."""
        self._database.execute(_MOVE, (now, DUE_AT_ONCE))
        self._database.execute(_UNDELAY, (now, DUE_AT_ONCE))

    def next_due(self) -> float | None:
        """When the next delayed message comes due, in epoch seconds."""
        due: float | None = self._one("SELECT min(due) FROM messages WHERE due IS NOT NULL")
        return due

    def depths(self, *, consumed: bool) -> Mapping[str, int]:
        """The number of messages in each queue. While a worker lives (`consumed`), those that it took do not count."""
        with translating(self._path):
            counted: dict[str, int] = json.loads(self._one(_DEPTHS, consumed))
        return counted

    def oldest(self) -> dict[str, float]:
        """When the first message of each queue was written, in epoch seconds, even if a worker holds it."""
        first = "SELECT min(id) FROM messages GROUP BY queue"
        sql = f"SELECT queue, published_at FROM messages WHERE id IN ({first})"  # noqa: S608  constants
        with translating(self._path):
            return dict(self._database.execute(sql).fetchall())

    def browse(self, queue: str, limit: int, *, consumed: bool) -> list[Message]:
        """The first ready messages of a queue."""
        with translating(self._path):
            after = self.taken_to(queue) if consumed else 0
            found: list[tuple[int, Message]] = []
            while len(found) < limit and (page := self.read(queue, after, min(64, limit - len(found)))):
                found += page
                after = page[-1][0]
        return [message for _, message in found]

    def keep_notices(self, batch: Sequence[FeedNotice], retention: Retention, now: float) -> None:
        """Write notices of the feed beside the messages, and delete the oldest."""
        feed_table.create(self._database)
        feed_table.insert(self._database, batch)
        feed_table.prune(self._database, retention, now)

    def changes_elsewhere(self) -> int:
        """A number that is another one whenever another process has committed since."""
        with translating(self._path):
            return int(self._one("PRAGMA data_version"))

    def use(self, work: Callable[[sqlite3.Connection], T], *, writing: bool) -> T:
        """Have this done on the open file, in a transaction where it writes."""
        with self.transaction() if writing else translating(self._path):
            return work(self._database)

    def close(self) -> None:
        """Close the file. The last one to leave folds the write-ahead log into it."""
        self._database.close()

    def _one(self, sql: str, *parameters: object) -> Any:
        return one(self._database, sql, *parameters)


def _message(lane: Lane, row: list[Any]) -> Message:
    id_, kind, content_type, message_id, headers, published_at, delivery_count, body = row
    asker = headers.pop(ASKER, None)
    given_up = headers.pop(GIVEN_UP, None)
    if given_up is not None:  # told as RabbitMQ tells it
        headers["x-death"] = [{"reason": "delivery_limit", "time": datetime.fromtimestamp(given_up, UTC)}]
    return Message(
        lane=lane,
        body=bytes.fromhex(body),
        tag=RowTag(id_),
        kind=kind_named(kind),
        content_type=content_type,
        headers=headers,
        message_id=message_id,
        timestamp=published_at,
        delivery_count=delivery_count,
        reply_to=None if asker is None else ReplyTo(to=IN_FILE, correlation_id=asker),
    )


@cache
def _insert(rows: int) -> str:
    values = ",".join([f"({','.join('?' * len(NewRow._fields))})"] * rows)
    return f"INSERT INTO messages ({', '.join(NewRow._fields)}) VALUES {values}"  # noqa: S608  our own field names
