"""Summaries of the dead letters, or of what waits, as they were at one moment: for pages of them.

A pass over 100,000 letters takes 6 s, so a page must not need one. The summaries of so many take 35 MB.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Protocol

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.frozen import frozen
from notifier.model.moment import render_moment
from notifier.network.listeners.operation import Counts, Items
from notifier.operators.letters.groups import Group, GroupCounts, Summary

PAGE = {
    "as_of": str, "took": float, "total": int, "skip": int, "left_off": int, "reasons": Counts, "groups": Items,
    "more_groups": int,
}  # fmt: skip
MOST = 100_000  # summaries of an index
SMALL = MOST // 4  # summaries of one that may stay beside another
LONGEST_TEXT = 200  # characters of it that a page shows
AT_ONCE = 500  # summaries before other tasks of the loop get their chance: 2 ms
FORGOTTEN = 120.0  # seconds after the last page


@with_config(ConfigDict(extra="forbid"))
class PageQuery(TypedDict, total=False):
    """What every page takes."""

    rows: Annotated[int, Field(ge=0, le=1000, description="So many summaries; 50 unless given.")]
    skip: Annotated[int, Field(ge=0, description="Leave out this many of them: for the next page.")]
    age: Annotated[float, Field(ge=0, le=600, description="Seconds that the counts may be old; 60 unless given.")]


class Chosen(Protocol):
    """What is meant. Two that mean the same are equal."""

    def means(self, summary: Any, /) -> bool:
        """True if this one is meant."""


@frozen
class Shown:
    """What pages show, one after another. `reasons`: of these, if any; others are counted all the same."""

    chosen: Chosen
    reasons: frozenset[str]
    newest_first: bool


@frozen
class AskedPage:
    """A page as it was asked for."""

    selection: Shown
    rows: int
    skip: int
    groups: int


@frozen
class _Selected:
    """What was selected, the counts of reasons, and the groups."""

    summaries: Sequence[Summary]
    reasons: Mapping[str, int]
    groups: Sequence[Group]


class MessageIndex:
    """The summaries, in the order of the queue. Of more than `MOST` the last. Equal texts are one object."""

    def __init__(self, clock: Callable[[], float], steady: Callable[[], float]) -> None:
        self._steady = steady
        self.made = steady()
        self._as_of = clock()
        self._took = 0.0
        self._summaries: deque[Any] = deque(maxlen=MOST)
        self._seen = 0
        self._texts: dict[str, str] = {}
        self._selecting = asyncio.Lock()
        self._last: tuple[Shown, _Selected] | None = None  # most pages follow one of the same selection

    def __len__(self) -> int:
        return len(self._summaries)

    def add(self, summary: Any) -> None:
        """Add one more."""
        text = summary.text if len(summary.text) <= LONGEST_TEXT else f"{summary.text[: LONGEST_TEXT - 1]}…"
        texts = {"client_id": summary.client_id, "iss": summary.iss, "reason": summary.reason, "text": text}
        same = self._texts.setdefault
        self._summaries.append(replace(summary, **{name: same(value, value) for name, value in texts.items()}))
        self._seen += 1

    def complete(self) -> None:
        """Note that these are all."""
        self._took = self._steady() - self.made
        self._texts.clear()

    async def page(self, asked: AskedPage, rows: str) -> dict[str, Any]:
        """The page as JSON, with its summaries as the member `rows`. Lets others run meanwhile."""
        async with self._selecting:
            if self._last is None or self._last[0] != asked.selection:
                self._last = asked.selection, await self._select(asked.selection)
            selected = self._last[1]
        return {
            "as_of": render_moment(self._as_of),
            "took": round(self._took, 3),
            "total": len(selected.summaries),
            "skip": asked.skip,
            "left_off": self._seen - len(self._summaries),
            "reasons": dict(selected.reasons),
            "groups": [group.document() for group in selected.groups[: asked.groups]],
            "more_groups": max(0, len(selected.groups) - asked.groups),
            rows: [summary.document() for summary in selected.summaries[asked.skip : asked.skip + asked.rows]],
        }

    async def _select(self, selection: Shown) -> _Selected:
        reasons, counts, chosen = Counter[str](), GroupCounts(), list[Summary]()
        for number, summary in enumerate(tuple(self._summaries)):
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            if not selection.chosen.means(summary):
                continue
            reasons[summary.reason] += 1
            counts.add(summary)
            if not selection.reasons or summary.reason in selection.reasons:
                chosen.append(summary)
        if selection.newest_first:
            chosen.reverse()
        return _Selected(summaries=chosen, reasons=dict(reasons.most_common()), groups=counts.groups())


class Indexes:
    """The indexes of one worker, by whose they are. One is forgotten if nobody asks, a large one if another is made."""

    def __init__(self, steady: Callable[[], float]) -> None:
        self._steady = steady
        self._kept: dict[object, tuple[MessageIndex, asyncio.TimerHandle]] = {}
        self._making = asyncio.Lock()

    async def index(self, of: object, age: float, make: Callable[[], Awaitable[MessageIndex]]) -> MessageIndex:
        """The index, made anew if it is older than `age` seconds. One pass serves all who ask meanwhile."""
        asked_at = self._steady()
        async with self._making:
            known = self._kept.get(of)
            self.forget(of)
            # One that was begun after the question was asked is young enough, however short `age` is.
            if known is not None and known[0].made >= asked_at - age:
                index = known[0]
            else:
                known = None  # its memory is for the new one
                for other in [other for other, (kept, _) in self._kept.items() if len(kept) > SMALL]:
                    self.forget(other)
                index = await make()
            self._kept[of] = index, asyncio.get_running_loop().call_later(FORGOTTEN, self.forget, of)
        return index

    def forget(self, of: object) -> None:
        """Have the next who asks see what is there by then."""
        if (known := self._kept.pop(of, None)) is not None:
            known[1].cancel()
