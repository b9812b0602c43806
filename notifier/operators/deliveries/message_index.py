"""Keeps summaries of dead letters or pending deliveries in memory, so that the API can page through them.

Without an index, each page would need a pass over the queue: 6 s for 100,000 dead letters. Their summaries take 35 MB.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.moment import format_moment
from notifier.model.record import record
from notifier.model.shared_resources import shared_lock, shared_ring
from notifier.network.listeners.operation import Counts, Items
from notifier.operators.deliveries.groups import Group, GroupCounts, Summary
from notifier.operators.deliveries.repair_pass import Filter

PAGE_MEMBERS = {
    "as_of": str, "took": float, "total": int, "skip": int, "left_off": int, "reasons": Counts, "groups": Items,
    "more_groups": int,
}  # fmt: skip
MAX_SUMMARIES = 100_000  # summaries in one index
MAX_KEPT_SUMMARIES = MAX_SUMMARIES // 4  # a larger index is dropped when another is built
MAX_TEXT_LENGTH = 200  # characters of a failure text
SUMMARIES_PER_STEP = 500  # summaries between two yields to the event loop: 2 ms
UNUSED_INDEX_SECONDS = 120.0  # seconds after the last page until an index is dropped


@with_config(ConfigDict(extra="forbid"))
class PageQuery(TypedDict, total=False):
    """The query members that all pages share."""

    rows: Annotated[int, Field(ge=0, le=1000, description="Number of summaries on the page; default 50.")]
    skip: Annotated[int, Field(ge=0, description="Skip this many summaries, to request a later page.")]
    age: Annotated[float, Field(ge=0, le=600, description="Maximum age of the counts in seconds; default 60.")]


@record
class PageSelection:
    """A selection of summaries to page through. `reasons` restricts the rows but not the counts; empty: all reasons."""

    filter_: Filter[Any, Any]
    reasons: frozenset[str]
    newest_first: bool


@record
class _SelectionResult:
    """The summaries of the rows, and the counts of the selection: by reason, and by group."""

    summaries: Sequence[Summary]
    reasons: Mapping[str, int]
    groups: Sequence[Group]


class MessageIndex:
    """Up to `MAX_SUMMARIES` summaries in queue order; older ones are dropped. Equal texts share one object."""

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.made_at = monotonic()
        self._as_of = clock()
        self._took_seconds = 0.0
        self._summaries: deque[Any] = shared_ring(MAX_SUMMARIES)
        self._added_count = 0
        self._texts: dict[str, str] = {}
        self._selection_lock = shared_lock()
        # The last selection, since consecutive pages mostly have the same.
        self._last: tuple[PageSelection, _SelectionResult] | None = None

    def __len__(self) -> int:
        return len(self._summaries)

    def add(self, summary: Any) -> None:
        """Add a summary, with its text cut to `MAX_TEXT_LENGTH`."""
        text = summary.text if len(summary.text) <= MAX_TEXT_LENGTH else f"{summary.text[: MAX_TEXT_LENGTH - 1]}…"
        texts = {"client_id": summary.client_id, "iss": summary.iss, "reason": summary.reason, "text": text}
        shared_texts = {name: self._texts.setdefault(value, value) for name, value in texts.items()}
        self._summaries.append(replace(summary, **shared_texts))
        self._added_count += 1

    def complete(self) -> None:
        """Record that the pass over the queue has ended."""
        self._took_seconds = self._monotonic() - self.made_at
        self._texts.clear()

    async def page(
        self, selection: PageSelection, rows_member: str, *, rows: int, skip: int, groups: int
    ) -> dict[str, Any]:
        """Return as JSON up to `rows` summaries after the first `skip`, and the counts of the `groups` largest groups.

        `rows_member` names the member with the summaries.
        """
        async with self._selection_lock:
            if self._last is None or self._last[0] != selection:
                self._last = selection, await self._select(selection)
            selected = self._last[1]
        return {
            "as_of": format_moment(self._as_of),
            "took": round(self._took_seconds, 3),
            "total": len(selected.summaries),
            "skip": skip,
            "left_off": self._added_count - len(self._summaries),
            "reasons": dict(selected.reasons),
            "groups": [group.document() for group in selected.groups[:groups]],
            "more_groups": max(0, len(selected.groups) - groups),
            rows_member: [summary.document() for summary in selected.summaries[skip : skip + rows]],
        }

    async def _select(self, selection: PageSelection) -> _SelectionResult:
        """Apply the selection to all summaries. Yield to the event loop meanwhile."""
        reasons, groups, selected = Counter[str](), GroupCounts(), list[Summary]()
        for number, summary in enumerate(tuple(self._summaries)):
            if number % SUMMARIES_PER_STEP == SUMMARIES_PER_STEP - 1:
                await asyncio.sleep(0)
            if not selection.filter_.matches_summary(summary):
                continue
            reasons[summary.reason] += 1
            groups.add(summary)
            if not selection.reasons or summary.reason in selection.reasons:
                selected.append(summary)
        if selection.newest_first:
            selected.reverse()
        return _SelectionResult(summaries=selected, reasons=dict(reasons.most_common()), groups=groups.groups())


class MessageIndexes:
    """The indexes of one worker, by owner. An unused index is dropped, and a large one when another is built."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._indexes: dict[object, tuple[MessageIndex, asyncio.TimerHandle]] = {}
        self._build_lock = shared_lock()

    async def index(self, owner: object, max_age: float, build: Callable[[], Awaitable[MessageIndex]]) -> MessageIndex:
        """Return the index of the owner. Call `build` if there is none, or if it is older than `max_age` seconds.

        Concurrent callers share one pass, even if `max_age` is 0.
        """
        called_at = self._monotonic()
        async with self._build_lock:
            entry = self._indexes.get(owner)
            self.forget(owner)
            if entry is not None and entry[0].made_at >= called_at - max_age:
                index = entry[0]
            else:
                entry = None  # free its memory for the new index
                for other, (other_index, _) in list(self._indexes.items()):
                    if len(other_index) > MAX_KEPT_SUMMARIES:
                        self.forget(other)
                index = await build()
            expiry = asyncio.get_running_loop().call_later(UNUSED_INDEX_SECONDS, self.forget, owner)
            self._indexes[owner] = index, expiry
        return index

    def forget(self, owner: object) -> None:
        """Drop the owner's index, so that the next caller rebuilds it."""
        if (entry := self._indexes.pop(owner, None)) is not None:
            entry[1].cancel()
