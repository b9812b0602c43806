"""Looking at what waits, for the command line and the API: one by one, or counted. Looking uses nothing up.

`waiting_repair` cancels it, or makes it due.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from typing import Protocol

from notifier.domain.message import Message, Transfer, Transferred
from notifier.domain.moment import render_moment
from notifier.domain.waiting_filter import FoundWaiting, WaitingFilter, WaitingSummary
from notifier.operations.dead_letter_listing import AT_ONCE, GROUPS, Progress, no_progress


class WaitingWalk(Protocol):
    """One walk over what waited when it began. What is not taken keeps its place, its due time and its hops."""

    @property
    def left(self) -> int:
        """How many are still to come."""

    async def page(self) -> Sequence[FoundWaiting]:
        """The next ones; empty at the end. Act on them before you ask for the next. Raises QueueError."""

    async def remove(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Delete these, and return those that were still there. Raises QueueError."""

    async def move(self, transfers: Sequence[Transfer]) -> Transferred:
        """Make each message durable in its queue, then delete the one that waited. Raises QueueError."""


class WaitingPlace(Protocol):
    """All that waits in a queue: in delay queues and in buckets, and not what a worker has in hand at the moment."""

    def visit(self, meant: WaitingFilter, *, whole: bool) -> AbstractAsyncContextManager[WaitingWalk]:
        """Begin a walk, which gives summaries of what is meant, and `whole` messages if asked.

        Only one walk runs at a time on RabbitMQ. Raises QueueError.
        """


async def waiting_deliveries(
    waiting: WaitingPlace, meant: WaitingFilter, progress: Progress = no_progress, *, whole: bool = False
) -> AsyncGenerator[tuple[WaitingSummary, Message], None]:
    """What is meant, in the order of the queues. The caller closes the iterator (`aclosing`). Raises QueueError."""
    async with waiting.visit(meant, whole=whole) as walk:
        seen = 0
        while page := await walk.page():
            for number, each in enumerate(page):
                if number % AT_ONCE == AT_ONCE - 1:
                    progress(seen + number, seen + len(page) + walk.left)
                    await asyncio.sleep(0)
                if each.summary is not None:
                    yield each.summary, each.message
            seen += len(page)
            progress(seen, seen + walk.left)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingGroup:
    """What waits for one client, in one place, for one reason. Moments are in epoch seconds, None if unknown."""

    client_id: str
    iss: str
    where: str
    reason: str
    count: int
    oldest: float | None
    next: float | None

    def document(self) -> dict[str, object]:
        """The JSON that the API gives."""
        return asdict(self) | {"oldest": _moment(self.oldest), "next": _moment(self.next)}


class WaitingCounts:
    """Counts what waits by client, place and reason."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, str, str], WaitingGroup] = {}
        self.total = 0

    def add(self, one: WaitingSummary) -> None:
        """Count one more."""
        self.total += 1
        key = (one.client_id, one.iss, one.where, one.reason)
        if key not in self._groups and len(self._groups) >= GROUPS:
            key = ("_other", "", one.where, one.reason)
        before = self._groups.get(key)
        self._groups[key] = WaitingGroup(
            client_id=key[0],
            iss=key[1],
            where=one.where,
            reason=one.reason,
            count=1 if before is None else before.count + 1,
            oldest=one.since if before is None else _earlier(before.oldest, one.since),
            next=one.due if before is None else _earlier(before.next, one.due),
        )

    def groups(self) -> list[WaitingGroup]:
        """The groups, the largest first."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.client_id, group.iss, group.reason))


def _earlier(one: float | None, other: float | None) -> float | None:
    return min((moment for moment in (one, other) if moment is not None), default=None)


def _moment(moment: float | None) -> str | None:
    return None if moment is None else render_moment(moment)
