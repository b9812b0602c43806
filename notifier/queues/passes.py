"""Declares a pass over a queue. Of each message that is meant it gives a summary, and the body if that is asked for."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, Protocol, TypeAlias, TypeVar

from notifier.model.frozen import replace
from notifier.model.message import Message, Transfer, Transferred

S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Generic[S]):
    """A message that a pass came across. `summary` is None if the message is not meant."""

    message: Message
    summary: S | None


Reader: TypeAlias = Callable[[Message], Found[S]]
"""Reads one message, and keeps no more of it than the pass needs."""


def reader_of(
    summarise: Callable[[Message], S], is_meant: Callable[[Message, S], bool], *, whole: bool
) -> Callable[[Message], Found[S]]:
    """Return a reader of the messages that are meant: `whole`, or their summaries only."""

    def see(message: Message) -> Found[S]:
        summary = summarise(message)
        matches = is_meant(message, summary)
        kept = message if matches and whole else replace(message, body=b"", headers=MappingProxyType({}))
        return Found(message=kept, summary=summary if matches else None)

    return see


class Visit(Protocol[S]):
    """One pass over the messages that were there when it began. Messages that are not taken keep their order."""

    @property
    def left(self) -> int:
        """How many messages are still to come."""

    async def page(self) -> Sequence[Found[S]]:
        """Return the next messages; none at the end. Act on them before you ask for more. Raises QueueError."""

    async def remove(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Delete these, and return those that were still there. Raises QueueError."""

    async def move(self, transfers: Sequence[Transfer]) -> Transferred:
        """Make each message durable in its queue, then delete the one that it replaces. Raises QueueError."""


OpenVisit: TypeAlias = AbstractAsyncContextManager[Visit[S]]


Progress = Callable[[int, int], None]
"""Called now and then with two numbers: how much is done, and how much there is in all."""


def no_progress(_done: int, _total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairOptions:
    """How a pass that removes or moves messages runs. `rate`: messages a second, `limit`: messages; None: no limit.

    `stop` is asked between batches. `pause` waits for so many seconds at most. `steady` is a monotonic clock,
    `clock` the time of day.
    """

    clock: Callable[[], float]
    steady: Callable[[], float]
    pause: Callable[[float], Awaitable[None]]
    progress: Progress = no_progress
    stop: Callable[[], bool] = lambda: False
    rate: float | None = None
    limit: int | None = None
    dry_run: bool = False
