"""Looking at dead letters: one by one or counted, the same for the command line and the API. It changes nothing.

What a replay or discard needs of them stands in `dead_letter_repair`.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from notifier.domain.letter_filter import FoundLetter, LetterFilter, LetterReader, LetterSummary, letter_reader
from notifier.domain.message import Message, Transfer, Transferred

AT_ONCE = 100  # letters read without giving way to others on the loop: 1 to 3 ms
GROUPS = 10_000  # pairs of client and reason that are counted apart; client ids of malformed events are anybody's


class LetterVisit(Protocol):
    """One pass over the letters that were there at its beginning, oldest first."""

    @property
    def left(self) -> int:
        """How many are still to be seen."""

    async def page(self) -> Sequence[FoundLetter]:
        """The next letters as they were looked at; none at the end. Raises QueueError."""

    async def remove(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Forget these for good; those that were still there. Raises QueueError."""

    async def move(self, transfers: Sequence[Transfer]) -> Transferred:
        """Make each durable where it goes, and only then forget the letter. Raises QueueError."""


class DeadLetters(Protocol):
    """The dead letters of a queue."""

    def visit(self, read: LetterReader) -> AbstractAsyncContextManager[LetterVisit]:
        """Open one pass, in which `read` gets each message. Letters that are not removed keep their order.

        Raises QueueError.
        """


Progress = Callable[[int, int], None]
"""Told now and then: how many letters were seen, and how many there are in all."""


def no_progress(_seen: int, _of: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterGroup:
    """The letters of one client with one reason. Moments in epoch seconds."""

    client_id: str
    iss: str
    reason: str
    count: int
    oldest: float
    newest: float


async def rows(
    letters: DeadLetters, wanted: LetterFilter, progress: Progress = no_progress, *, whole: bool = False
) -> AsyncGenerator[tuple[LetterSummary, Message], None]:
    """Those that are meant, oldest first; each message has its body where `whole`.

    The caller closes the iterator (`aclosing`). Raises QueueError.
    """
    async with letters.visit(letter_reader(wanted, whole=whole)) as visit:
        seen = 0
        while page := await visit.page():
            for number, each in enumerate(page):
                if number % AT_ONCE == AT_ONCE - 1:
                    progress(seen + number, seen + len(page) + visit.left)
                    await asyncio.sleep(0)
                if each.row is not None:
                    yield each.row, each.message
            seen += len(page)
            progress(seen, seen + visit.left)


class LetterCounts:
    """Counts letters by client and reason."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, str], list[float]] = {}
        self.total = 0

    def add(self, row: LetterSummary) -> None:
        """One more."""
        self.total += 1
        key = (row.client_id, row.iss, row.reason)
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= GROUPS:
                key = ("_other", "", row.reason)
            group = self._groups.setdefault(key, [0, row.dead_since, row.dead_since])
        group[0] += 1
        group[1] = min(group[1], row.dead_since)
        group[2] = max(group[2], row.dead_since)

    def groups(self) -> list[LetterGroup]:
        """The largest first."""
        found = [
            LetterGroup(client_id=client_id, iss=iss, reason=reason, count=int(count), oldest=oldest, newest=newest)
            for (client_id, iss, reason), (count, oldest, newest) in self._groups.items()
        ]
        return sorted(found, key=lambda group: (-group.count, group.client_id, group.iss, group.reason))
