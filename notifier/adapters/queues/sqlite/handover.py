"""What the event loop and the one thread that does all SQLite work hand each other."""

from asyncio import Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from notifier.adapters.queues.sqlite.store import Row
from notifier.domain.errors import QueueError
from notifier.domain.message import Lane, Message


class Insert(NamedTuple):
    """Make a message durable."""

    row: Row
    done: "Future[None]"


class Ack(NamedTuple):
    """A message that was taken has found its fate."""

    id: int
    lane: Lane


class Call(NamedTuple):
    """Run something on the thread, after this turn's commit."""

    run: Callable[[], object]
    done: "Future[Any]"


Operation = Insert | Ack | Call


class FutureResult(NamedTuple):
    """What a future of the loop is to be told there."""

    done: "Future[Any]"
    result: object = None
    error: QueueError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of a turn. `problem` says what is wrong, None where nothing is. `ended`: the thread's last word.

    `damage`: why a worker cannot go on with this file.
    """

    connected: bool
    answers: Sequence[FutureResult] = ()
    taken: Sequence[Message] = ()
    problem: str | None = None
    damage: str | None = None
    ended: bool = False
