"""Cancels what waits, or makes it due, for the command line and the API.

It goes through what waits once, and ignores what comes to wait meanwhile. What is made due is durable among the retries
before it leaves its place. So whoever is killed in between repeats one batch at most, and loses nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from notifier.domain.errors import QueueError
from notifier.domain.message import Message
from notifier.domain.waiting_filter import FoundWaiting, WaitingFilter, WaitingSummary, due_now
from notifier.operations.dead_letter_listing import AT_ONCE
from notifier.operations.dead_letter_repair import RepairOptions
from notifier.operations.waiting_listing import WaitingPlace, WaitingWalk

DUE_RATE = 1000.0  # a second that are made due: a worker takes four times as many, so that others' retries go on


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingResult:
    """What became of what waits. `done` were cancelled or made due; a dry run counts what would be.

    `asked` stay, since their client is not to be called before (`Retry-After`, `paused`). `unfinished` says why it
    stopped early; None means that it reached the end. `limited` is true if it stopped at its limit.
    """

    done: int
    by_reason: Mapping[str, int]
    asked: int = 0
    issuers: frozenset[str] = field(default_factory=frozenset)
    unfinished: str | None = None
    limited: bool = False
    failed: bool = False

    @property
    def ended_early(self) -> bool:
        """True if it failed or was stopped."""
        return self.unfinished is not None and not self.limited

    def document(self) -> dict[str, object]:
        """The JSON that scripts and the API get."""
        return {
            "by_reason": dict(self.by_reason),
            "more": self.unfinished is not None,
            "unfinished": self.unfinished,
        }


NOTHING = WaitingResult(done=0, by_reason=MappingProxyType({}))


async def cancel(
    waiting: WaitingPlace,
    meant: WaitingFilter,
    options: RepairOptions,
    report: Callable[[WaitingSummary], None] = lambda _: None,
) -> WaitingResult:
    """Delete what is meant, for good: its clients are never told. `report` hears of each."""
    return await _Pass(waiting, meant, options, due=False, force=True, report=report).run()


async def make_due(
    waiting: WaitingPlace, meant: WaitingFilter, options: RepairOptions, *, force: bool
) -> WaitingResult:
    """Have what waits in delay queues attempted now. What its client asked to wait for stays, but with `force`."""
    return await _Pass(waiting, meant, options, due=True, force=force).run()


class _Pass:
    """One walk that takes what is meant."""

    def __init__(
        self,
        waiting: WaitingPlace,
        meant: WaitingFilter,
        options: RepairOptions,
        *,
        due: bool,
        force: bool,
        report: Callable[[WaitingSummary], None] = lambda _: None,
    ) -> None:
        self._waiting = waiting
        self._meant = meant
        self._options = options
        self._due = due
        self._force = force
        self._report = report
        self._reasons: Counter[str] = Counter()
        self._issuers: set[str] = set()
        self._done = self._asked = 0
        self._unfinished: str | None = None
        self._limited = False
        self._began = options.steady()

    async def run(self) -> WaitingResult:
        """Go through what waits until the end, a stop or a failure."""
        failed = False
        try:
            async with self._waiting.visit(self._meant, whole=self._due) as walk:
                await self._go_through(walk)
        except QueueError as error:
            self._unfinished, failed = str(error), True
        return WaitingResult(
            done=self._done,
            by_reason=dict(self._reasons.most_common()),
            asked=self._asked,
            issuers=frozenset(self._issuers),
            unfinished=self._unfinished,
            limited=self._limited,
            failed=failed,
        )

    async def _go_through(self, walk: WaitingWalk) -> None:
        seen = 0
        while page := await walk.page():
            for start in range(0, len(page), AT_ONCE):
                await self._act(walk, page[start : start + AT_ONCE])
                if self._unfinished is not None:
                    return
                self._options.progress(seen + start, seen + len(page) + walk.left)
                await asyncio.sleep(0)
            seen += len(page)

    async def _act(self, walk: WaitingWalk, found: Sequence[FoundWaiting]) -> None:
        chosen: dict[int, WaitingSummary] = {}
        messages: list[Message] = []
        for each in found:
            if each.summary is None:
                continue
            self._issuers.add(each.summary.iss)
            if each.summary.asked and not self._force:
                self._asked += 1
                continue
            if self._done + len(messages) == self._options.limit:
                self._limited = True
                self._unfinished = f"the limit of {self._options.limit:,} is reached; repeat it for the rest"
                break
            chosen[id(each.message)] = each.summary
            messages.append(each.message)
        if self._unfinished is None and self._options.stop():
            self._unfinished = "stopped; the rest is unchanged, and the same command goes on with it"
            return
        for message in await self._take(walk, messages) if messages else ():
            self._done += 1
            self._reasons[chosen[id(message)].reason] += 1
            self._report(chosen[id(message)])

    async def _take(self, walk: WaitingWalk, messages: Sequence[Message]) -> Sequence[Message]:
        if self._options.dry_run:
            return messages
        if not self._due:
            return await walk.remove(messages)
        rate = self._options.rate
        if rate is not None and (wait := self._began + self._done / rate - self._options.steady()) > 0:
            await self._options.pause(wait)
        moved = await walk.move([due_now(message) for message in messages])
        if moved.failure is not None:
            self._unfinished = str(moved.failure)
        return moved.done
