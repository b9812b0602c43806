"""What the event loop and the writer's thread hand each other: operations one way, reports the other way."""

from asyncio import Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from notifier.model.errors import QueueError
from notifier.model.message import Lane, Message
from notifier.queues.sqlite.rows import NewRow


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
