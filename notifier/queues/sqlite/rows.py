"""Turns messages into rows of the queue file, and rows into messages.

Defines what the event loop and the writer's thread exchange: operations one way, reports the other way."""

import json
from asyncio import Future
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from notifier.model.errors import QueueError
from notifier.model.message import DELAYED, Lane, Message, Outgoing, kind_named
from notifier.model.reply import ReplyTo

IN_FILE = "file"  # where a publisher beside the worker is answered: in the tables of `side_channel`
ASKER = "notifier.asker"  # the header by which it says who it is; only we write to the file
GIVEN_UP = "notifier.given_up"  # the header that says when this was, in epoch seconds
# A message that waits goes by its due time. The queue's name only says how long it waits at the most, `delay.64s`, so
# that people find the names of RabbitMQ.
DELAYS: Mapping[str, int] = MappingProxyType({f"{DELAYED}{2**power}s": 2**power for power in range(17)})
LONGEST_DELAY = f"{DELAYED}{2**16}s"  # longer waits too


class NewRow(NamedTuple):
    """A message to write. `headers` is a JSON object; `due` in epoch seconds, None if the message does not wait.

    `parked` is the bucket in which it waits until it is fetched, or is due.
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
    queue: str, message: Outgoing, published_at: float, *, due: float | None = None, parked: str | None = None
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
    """Return the text. Raises ValueError for half of a surrogate pair, so that the writer's thread meets none."""
    text.encode()
    return text


def queue_of_wait(seconds: float) -> str:
    """The name under which a message is kept that waits for so long."""
    return next((name for name, most in DELAYS.items() if seconds <= most), LONGEST_DELAY)


@dataclass(frozen=True, slots=True, eq=False)
class RowTag:
    """Names one taking of a row, from a lane or from `bucket`.

    Tags compare by identity: when the row is taken again it gets another one.
    """

    id: int
    bucket: str | None = None


def message_of(lane: Lane, row: list[Any], *, bucket: str | None = None) -> Message:
    """The row as a message that was taken from the lane, or from the bucket."""
    id_, kind, content_type, message_id, headers, published_at, delivery_count, body = row
    asker = headers.pop(ASKER, None)
    given_up = headers.pop(GIVEN_UP, None)
    if given_up is not None:  # told as RabbitMQ tells it
        headers["x-death"] = [{"reason": "delivery_limit", "time": datetime.fromtimestamp(given_up, UTC)}]
    own_kind = kind_named(kind)
    return Message(
        lane=lane,
        body=bytes.fromhex(body),
        tag=RowTag(id_, bucket),
        kind=own_kind,
        vouched=own_kind is None,  # what came over HTTP is ours by now; else it is from one who may write the file
        content_type=content_type,
        headers=headers,
        message_id=message_id,
        timestamp=published_at,
        delivery_count=delivery_count,
        reply_to=None if asker is None else ReplyTo(to=IN_FILE, correlation_id=asker),
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


class Call(NamedTuple):
    """Run a function on the thread, after the next commit."""

    run: Callable[[], object]
    done: "Future[Any]"


Operation = Insert | Ack | Call


class FutureResult(NamedTuple):
    """The result or error for a future that waits on the loop."""

    done: "Future[Any]"
    result: object = None
    error: QueueError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterReport:
    """The results of a commit. `problem` says what is wrong; None if nothing is. `ended`: no further report follows.

    `damage` says why a worker cannot go on with this file.
    """

    connected: bool
    completions: Sequence[FutureResult] = ()
    taken: Sequence[Message] = ()
    problem: str | None = None
    damage: str | None = None
    ended: bool = False

    def complete(self) -> None:
        """Give its result to each caller that was not cancelled."""
        for done, result, error in self.completions:
            if done.done():
                continue
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)
