"""Reads a list whose pages have numbers, while it may change: no client that stays in the list is lost.

If a client is removed meanwhile, the next page begins one too late, and the client in between is on neither page. So a
reading counts at once only if all pages say the same total, as many clients were found, and none is missing that was
there before. Otherwise the list is read again, until two readings in a row find the same.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import Gathering
from notifier.features.registries.page_requests import PageLimit
from notifier.model.errors import SourceFault
from notifier.model.frozen import frozen

READINGS = 4


@frozen
class NumberedPage:
    """The rows of a page, how many the list has, and whether another page follows."""

    rows: Sequence[Any]
    total: int
    more: bool


TakePage: TypeAlias = Callable[[int], Awaitable[NumberedPage]]
"""Gets a page. The first has the number 0. Raises SourceFault."""


async def gather_pages(take: TakePage, last: SourceAnswer | None) -> Gathering:
    """Return the clients of all pages. Raises SourceFault."""
    before: frozenset[str] | None = None
    for _ in range(READINGS):
        gathering = Gathering(last)
        totals = await _read(take, gathering)
        names = gathering.names()
        whole = len(set(totals)) == 1 and len(names) >= totals[0]
        if whole and (len(totals) == 1 or not gathering.misses()):
            return gathering
        if names == before and len(names) == gathering.count:
            return gathering
        before = names
    raise SourceFault("its list changes faster than it can be read, or a proxy answers for it with the same page")


async def _read(take: TakePage, gathering: Gathering) -> list[int]:
    """Read all pages. Returns what each says of how many clients there are."""
    totals: list[int] = []
    limit = PageLimit()
    while True:
        page = await take(len(totals))
        await gathering.add_all(page.rows)
        totals.append(page.total)
        if not page.more:
            return totals
        limit.before_next(gathering.known)
