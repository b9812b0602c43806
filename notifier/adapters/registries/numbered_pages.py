"""Reads a list whose pages have numbers, while it may change: none that stays in the list is left out.

A client that is removed meanwhile lets the next page begin one too late. So a reading counts only if it found as many
clients as the server says there are, or if the one before found the very same, and none came twice.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from notifier.adapters.registries.remote_rows import Gathering
from notifier.domain.client_rows import Answer, SourceFault
from notifier.domain.frozen import frozen

MOST = 10_000  # pages
READINGS = 3


@frozen
class NumberedPage:
    """The rows of a page, how many the list has, and whether another page follows."""

    rows: Sequence[Any]
    total: int
    more: bool


TakePage: TypeAlias = Callable[[int], Awaitable[NumberedPage]]
"""Gets a page. The first has the number 0. Raises SourceFault."""


async def gather_pages(take: TakePage, last: Answer | None) -> Gathering:
    """Return the clients of all pages. Raises SourceFault."""
    before: frozenset[str] | None = None
    for _ in range(READINGS):
        gathering = Gathering(last)
        total = await _read(take, gathering)
        names = gathering.names()
        if len(names) >= total or (names == before and len(names) == gathering.count):
            return gathering
        before = names
    raise SourceFault("its list changes faster than it can be read, or a proxy answers for it with the same page")


async def _read(take: TakePage, gathering: Gathering) -> int:
    for nth in range(MOST):
        page = await take(nth)
        await gathering.add_all(page.rows)
        if not page.more:
            return page.total
    raise SourceFault(f"its list never ends: more than {MOST} pages")
