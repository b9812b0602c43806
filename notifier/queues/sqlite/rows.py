"""Converts messages into rows of the queue file, and rows into messages.

Defines the operations that the event loop passes to the writer's thread, and the reports that it returns."""

import json
import sqlite3
from asyncio import Future
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from notifier.model.errors import NotifierError
from notifier.model.message import DELAYED, Lane, Message, MessageDraft, parse_kind
from notifier.model.reply import ReplyTo

MAX_ROWS_PER_INSERT = 256
FILE_ADDRESS = "file"  # the reply address of a publisher in another process: the tables of `side_channel`
ASKER_HEADER = "notifier.asker"  # the header with the publisher's name; only notifier writes to the file
GIVEN_UP_HEADER = "notifier.given_up"  # the header with the time of the dead letter, in epoch seconds
# The due time of a message is in its row. The queue's name, `delay.64s`, only states the maximum wait, as on RabbitMQ.
DELAYS: Mapping[str, int] = {f"{DELAYED}{2**power}s": 2**power for power in range(17)}
LONGEST_DELAY = f"{DELAYED}{2**16}s"  # longer waits too


class NewRow(NamedTuple):
    """A message to write. `headers`: a JSON object; `due`: epoch seconds, None if the message is not delayed.

    `parked`: the bucket that holds it until it is fetched or due.
    """

    queue: str
    kind: str | None
    content_type: str | None
    message_id: str | None
    headers: str
    published_at: float
    due: float | None
    body: bytes
    parked: str | None = None


def new_row(
    queue: str, message: MessageDraft, published_at: float, *, due: float | None = None, parked: str | None = None
) -> NewRow:
    """Return the message as a row to write."""
    return NewRow(
        queue=queue,
        kind=message.kind,
        content_type=message.content_type,
        message_id=storable(message.message_id),
        headers=json.dumps(dict(message.headers)) if message.headers else "{}",
        published_at=published_at,
        due=due,
        body=message.body,
        parked=parked,
    )


def storable(text: str) -> str:
    """Return the text. Raises ValueError for an unpaired surrogate before it reaches the writer's thread."""
    text.encode()
    return text


def queue_of_wait(seconds: float) -> str:
    """Return the name of the queue for messages that wait this long."""
    return next((name for name, most in DELAYS.items() if seconds <= most), LONGEST_DELAY)


@dataclass(frozen=True, slots=True, eq=False)
class RowTag:
    """Identifies one taking of a row, from a lane or from `bucket`.

    Tags compare by identity: a row that is taken again gets a new tag.
    """

    id: int
    bucket: str | None = None


def message_of(lane: Lane, row: list[Any], *, bucket: str | None = None) -> Message:
    """Return the row as a message taken from the lane, or from the bucket."""
    id_, kind, content_type, message_id, headers, published_at, delivery_count, body = row
    asker = headers.pop(ASKER_HEADER, None)
    if (given_up := headers.pop(GIVEN_UP_HEADER, None)) is not None:  # in the form of RabbitMQ's header
        headers["x-death"] = [{"reason": "delivery_limit", "time": datetime.fromtimestamp(given_up, UTC)}]
    own_kind = parse_kind(kind)
    return Message(
        lane=lane,
        body=bytes.fromhex(body),
        tag=RowTag(id_, bucket),
        kind=own_kind,
        vouched=own_kind is None,  # the API has checked its events; other writers have access to the file
        content_type=content_type,
        headers=headers,
        message_id=message_id,
        timestamp=published_at,
        delivery_count=delivery_count,
        reply_to=None if asker is None else ReplyTo(to=FILE_ADDRESS, correlation_id=asker),
    )


def event_row(
    lane: Lane, body: bytes, message_id: str | None, content_type: str, headers: Mapping[str, str], now: float
) -> NewRow:
    """Return the row of an event that a publisher sends."""
    if lane is Lane.RETRIES:
        raise ValueError("no event is published to the retries")
    return NewRow(
        queue=lane, kind=None, content_type=storable(content_type), headers=json.dumps(headers), published_at=now,
        message_id=None if message_id is None else storable(message_id), due=None, body=body,
    )  # fmt: skip


class Insert(NamedTuple):
    """Make a message durable."""

    row: NewRow
    done: "Future[None]"


class Ack(NamedTuple):
    """Delete a message that was taken from the lane, or fetched from the bucket."""

    id: int
    lane: Lane
    bucket: str | None


class SetAside(NamedTuple):
    """Let the lane take another message in place of this one, which will be acked late."""

    id: int
    lane: Lane


class Call(NamedTuple):
    """Run a function on the thread after the next commit."""

    run: Callable[[], object]
    done: "Future[Any]"


Operation = Insert | Ack | SetAside | Call


class FutureResult(NamedTuple):
    """The result or error for a future of the loop."""

    done: "Future[Any]"
    result: object = None
    error: NotifierError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterReport:
    """The results of a commit. `problem`: why the file is unusable, or None. `ended`: this is the last report.

    `damage`: why a worker cannot continue with this file.
    """

    connected: bool
    completions: Sequence[FutureResult] = ()
    taken: Sequence[Message] = ()
    problem: str | None = None
    damage: str | None = None
    ended: bool = False

    def complete(self) -> None:
        """Pass the result to each caller that was not cancelled."""
        for done, result, error in self.completions:
            if done.done():
                continue
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)


def insert_rows(database: sqlite3.Connection, into: str, rows: Sequence[Sequence[object]]) -> None:
    """Insert the rows in their order. `into`: the statement up to the columns."""
    start = 0
    while start < len(rows):
        # Powers of two, so that nine statements serve every number of rows and stay prepared.
        size = min(MAX_ROWS_PER_INSERT, 1 << ((len(rows) - start).bit_length() - 1))
        values = [value for row in rows[start : start + size] for value in row]
        database.execute(_insert_statement(into, len(rows[0]), size), values)
        start += size


@cache
def _insert_statement(into: str, columns: int, rows: int) -> str:
    row = f"({','.join('?' * columns)})"
    return f"{into} VALUES {','.join([row] * rows)}"
