"""Keeps summaries of dead letters or pending deliveries in memory, so that the API can page through them.

A pass over 100,000 dead letters takes 6 s, too long for each page. Their summaries take 35 MB.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.frozen import frozen
from notifier.model.moment import format_moment
from notifier.network.listeners.operation import Counts, Items
from notifier.operators.deliveries.groups import Group, GroupCounts, Summary
from notifier.operators.deliveries.repair_pass import Filter

PAGE_MEMBERS = {
    "as_of": str, "took": float, "total": int, "skip": int, "left_off": int, "reasons": Counts, "groups": Items,
    "more_groups": int,
}  # fmt: skip
MAX_SUMMARIES = 100_000  # summaries in one index
MAX_KEPT_SUMMARIES = MAX_SUMMARIES // 4  # an index of at most this many summaries may stay when another is built
MAX_TEXT_LENGTH = 200  # characters of a failure text
SUMMARIES_PER_STEP = 500  # summaries between two yields to the event loop: 2 ms
UNUSED_INDEX_SECONDS = 120.0  # seconds after the last page until an index is dropped


@with_config(ConfigDict(extra="forbid"))
class PageQuery(TypedDict, total=False):
    """The query members that all pages share."""

    rows: Annotated[int, Field(ge=0, le=1000, description="Number of summaries on the page; default 50.")]
    skip: Annotated[int, Field(ge=0, description="Skip this many summaries, to request a later page.")]
    age: Annotated[float, Field(ge=0, le=600, description="Maximum age of the counts in seconds; default 60.")]


@frozen
class PageSelection:
    """A selection of summaries to page through. `reasons` limits the rows (empty: all), but not the counts."""

    filter_: Filter[Any, Any]
    reasons: frozenset[str]
    newest_first: bool


@frozen
class PageRequest:
    """A requested page: the selection, and how many rows, skipped rows and groups."""

    selection: PageSelection
    rows: int
    skip: int
    groups: int


@frozen
class _SelectionResult:
    """The selected summaries, the counts by reason, and the groups."""

    summaries: Sequence[Summary]
    reasons: Mapping[str, int]
    groups: Sequence[Group]


class MessageIndex:
    """Up to `MAX_SUMMARIES` summaries in queue order; older ones are dropped. Equal texts share one object."""

    def __init__(self, clock: Callable[[], float], steady: Callable[[], float]) -> None:
        self._steady = steady
        self.made_at = steady()
        self._as_of = clock()
        self._took_seconds = 0.0
        self._summaries: deque[Any] = deque(maxlen=MAX_SUMMARIES)
        self._seen = 0
        self._texts: dict[str, str] = {}
        self._selection_lock = asyncio.Lock()
        self._last: tuple[PageSelection, _SelectionResult] | None = (
            None  # consecutive pages mostly use the same selection
        )

    def __len__(self) -> int:
        return len(self._summaries)

    def add(self, summary: Any) -> None:
        """Add a summary, with its text cut to `MAX_TEXT_LENGTH`."""
        text = summary.text if len(summary.text) <= MAX_TEXT_LENGTH else f"{summary.text[: MAX_TEXT_LENGTH - 1]}…"
        texts = {"client_id": summary.client_id, "iss": summary.iss, "reason": summary.reason, "text": text}
        same = self._texts.setdefault
        self._summaries.append(replace(summary, **{name: same(value, value) for name, value in texts.items()}))
        self._seen += 1

    def complete(self) -> None:
        """Record that the pass has ended."""
        self._took_seconds = self._steady() - self.made_at
        self._texts.clear()

    async def page(self, asked: PageRequest, rows: str) -> dict[str, Any]:
        """Return the page as JSON, with its summaries in the member `rows`. Yields to the event loop."""
        async with self._selection_lock:
            if self._last is None or self._last[0] != asked.selection:
                self._last = asked.selection, await self._select(asked.selection)
            selected = self._last[1]
        return {
            "as_of": format_moment(self._as_of),
            "took": round(self._took_seconds, 3),
            "total": len(selected.summaries),
            "skip": asked.skip,
            "left_off": self._seen - len(self._summaries),
            "reasons": dict(selected.reasons),
            "groups": [group.document() for group in selected.groups[: asked.groups]],
            "more_groups": max(0, len(selected.groups) - asked.groups),
            rows: [summary.document() for summary in selected.summaries[asked.skip : asked.skip + asked.rows]],
        }

    async def _select(self, selection: PageSelection) -> _SelectionResult:
        reasons, counts, chosen = Counter[str](), GroupCounts(), list[Summary]()
        for number, summary in enumerate(tuple(self._summaries)):
            if number % SUMMARIES_PER_STEP == SUMMARIES_PER_STEP - 1:
                await asyncio.sleep(0)
            if not selection.filter_.matches_summary(summary):
                continue
            reasons[summary.reason] += 1
            counts.add(summary)
            if not selection.reasons or summary.reason in selection.reasons:
                chosen.append(summary)
        if selection.newest_first:
            chosen.reverse()
        return _SelectionResult(summaries=chosen, reasons=dict(reasons.most_common()), groups=counts.groups())


class MessageIndexes:
    """The indexes of one worker. An unused index is dropped; a large one also when another index is built."""

    def __init__(self, steady: Callable[[], float]) -> None:
        self._steady = steady
        self._indexes: dict[object, tuple[MessageIndex, asyncio.TimerHandle]] = {}
        self._build_lock = asyncio.Lock()

    async def index(self, of: object, age: float, make: Callable[[], Awaitable[MessageIndex]]) -> MessageIndex:
        """Return the index of `of`, rebuilt if older than `age` seconds. Concurrent callers share one pass."""
        asked_at = self._steady()
        async with self._build_lock:
            known = self._indexes.get(of)
            self.forget(of)
            # An index that was built after this call is recent enough, however short `age` is.
            if known is not None and known[0].made_at >= asked_at - age:
                index = known[0]
            else:
                known = None  # free its memory for the new index
                for other in [other for other, (kept, _) in self._indexes.items() if len(kept) > MAX_KEPT_SUMMARIES]:
                    self.forget(other)
                index = await make()
            self._indexes[of] = index, asyncio.get_running_loop().call_later(UNUSED_INDEX_SECONDS, self.forget, of)
        return index

    def forget(self, of: object) -> None:
        """Drop the index, so that the next caller rebuilds it."""
        if (known := self._indexes.pop(of, None)) is not None:
            known[1].cancel()
