"""Replaying and discarding dead letters, the same for the command line and the API.

Either goes through the letters once, from the oldest on, and leaves alone what comes among them meanwhile: a client
that still refuses puts its deliveries back as fast as they are replayed. It can stop between any two batches, and is
taken up again by being called again. A letter is forgotten only once what takes its place is durable: killed between
the two on RabbitMQ, one batch at most is replayed a second time, without harm; on SQLite both are one transaction.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from notifier.domain.dead_letter import load_dead_letter
from notifier.domain.errors import QueueError
from notifier.domain.letter_filter import NEWER, LetterFilter, LetterSummary, letter_reader
from notifier.domain.message import Message, Transfer
from notifier.domain.readmission import KeepReason, KeptLetter, ReplayRules, readmit
from notifier.operations.dead_letter_listing import AT_ONCE, DeadLetters, LetterVisit, Progress, no_progress

PACED = 0.25  # seconds between two batches of a replay at a rate


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairOptions:
    """How a replay or discard runs. `rate` in letters a second, `limit` in letters; None: as fast, as many as can be.

    `stop` is asked between batches. `pause` waits so many seconds, or less where `stop` comes true. `steady` is a
    monotonic clock, `clock` the time of day.
    """

    clock: Callable[[], float]
    steady: Callable[[], float]
    pause: Callable[[float], Awaitable[None]]
    progress: Progress = no_progress
    stop: Callable[[], bool] = _never
    rate: float | None = None
    limit: int | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairResult:
    """What a replay or discard did. `done` letters were, or at a dry run would be, replayed or discarded.

    `kept` says why others that were meant stay. `unfinished` says why it ended before the last, None where it did not;
    `limited` where that was its limit, which is no failure.
    """

    done: int
    by_reason: Mapping[str, int]
    kept: Mapping[KeepReason, int] = field(default_factory=lambda: MappingProxyType({}))
    unfinished: str | None = None
    limited: bool = False
    failed: bool = False

    @property
    def ended_early(self) -> bool:
        """Whether it failed or was stopped."""
        return self.unfinished is not None and not self.limited

    def document(self) -> dict[str, object]:
        """For scripts."""
        return {
            "by_reason": dict(self.by_reason),
            "kept": {why.value: count for why, count in self.kept.items()},
            "more": self.unfinished is not None,
            "unfinished": self.unfinished,
        }


async def discard(
    letters: DeadLetters,
    wanted: LetterFilter,
    course: RepairOptions,
    told: Callable[[LetterSummary], None] = lambda _: None,
) -> RepairResult:
    """Forget those that are meant, for good. `told` of each."""
    return await _Pass(letters, wanted, course, None, told).run()


async def replay(
    letters: DeadLetters,
    wanted: LetterFilter,
    rules: ReplayRules,
    course: RepairOptions,
    told: Callable[[LetterSummary, KeptLetter | None], None] = lambda *_: None,
) -> RepairResult:
    """Have those that are meant delivered anew. `told` of each: that it was replayed, or why it stays."""
    return await _Pass(letters, wanted, course, rules, lambda row: told(row, None), told).run()


class _Pass:
    """One replay (with `rules`) or discard (without). Rates, limits and stops are the same for both."""

    def __init__(
        self,
        letters: DeadLetters,
        wanted: LetterFilter,
        course: RepairOptions,
        rules: ReplayRules | None,
        told: Callable[[LetterSummary], None],
        told_kept: Callable[[LetterSummary, KeptLetter | None], None] = lambda *_: None,
    ) -> None:
        self._letters = letters
        self._wanted = wanted
        self._course = course
        self._rules = rules
        self._told = told
        self._told_kept = told_kept
        self._done = 0
        self._reasons: Counter[str] = Counter()
        self._kept: Counter[KeepReason] = Counter()
        self._unfinished: str | None = None
        self._limited = False
        self._began = course.steady()
        self._at_once = AT_ONCE if course.rate is None else max(1, min(AT_ONCE, int(course.rate * PACED)))

    async def run(self) -> RepairResult:
        """Go through, until the end or a stop or a failure."""
        failed = False
        try:
            async with self._letters.visit(letter_reader(self._wanted, whole=self._rules is not None)) as visit:
                await self._go_through(visit)
        except QueueError as error:
            self._unfinished, failed = str(error), True
        return RepairResult(
            done=self._done,
            by_reason=dict(self._reasons.most_common()),
            kept=dict(self._kept.most_common()),
            unfinished=self._unfinished,
            limited=self._limited,
            failed=failed,
        )

    async def _go_through(self, visit: LetterVisit) -> None:
        seen = 0
        while page := await visit.page():
            for start in range(0, len(page), AT_ONCE):
                chunk = page[start : start + AT_ONCE]
                meant = [(each.message, each.row) for each in chunk if each.row is not None]
                for first in range(0, len(meant), self._at_once):
                    await self._act(visit, meant[first : first + self._at_once])
                    if self._unfinished is not None:
                        return
                seen += len(chunk)
                self._course.progress(seen, seen + len(page) - start - len(chunk) + visit.left)
                if self._stops():
                    return
                await asyncio.sleep(0)

    def _stops(self) -> bool:
        if self._unfinished is None and self._course.stop():
            self._unfinished = "stopped; what is left is as it was, and the same command goes on with it"
        return self._unfinished is not None

    async def _act(self, visit: LetterVisit, meant: Sequence[tuple[Message, LetterSummary]]) -> None:
        room = None if self._course.limit is None else self._course.limit - self._done
        chosen: dict[int, LetterSummary] = {}
        removed: list[Message] = []
        transfers: list[Transfer] = []
        full = False
        for message, row in meant:
            if full := len(chosen) == room:
                break
            judged = self._judge(message, row)
            if judged is None:
                continue
            chosen[id(message)] = row
            removed.append(message)
            if isinstance(judged, Transfer):
                transfers.append(judged)
        if chosen and await self._paced():
            await self._carry_out(visit, removed, transfers, chosen)
        if full and self._unfinished is None:
            self._limited = True
            self._unfinished = f"the limit of {self._course.limit:,} is reached; the same command goes on with the rest"

    async def _carry_out(
        self,
        visit: LetterVisit,
        removed: Sequence[Message],
        transfers: Sequence[Transfer],
        chosen: Mapping[int, LetterSummary],
    ) -> None:
        if self._course.dry_run:
            self._count(removed, chosen)
        elif self._rules is None:
            self._count(await visit.remove(removed), chosen)
        else:
            moved = await visit.move(transfers)
            self._count(moved.done, chosen)
            if moved.failure is not None:
                raise moved.failure

    def _judge(self, message: Message, row: LetterSummary) -> Transfer | LetterSummary | None:
        """What takes the letter's place, its row where it is to be discarded, None where it stays."""
        if row.reason == NEWER:
            self._keep(row, KeptLetter(why=KeepReason.NEWER, text=f"{row.text}: use the notifier that wrote it"))
            return None
        if self._rules is None:
            return row
        found = readmit(load_dead_letter(message), self._rules, self._course.clock())
        if isinstance(found, KeptLetter):
            self._keep(row, found)
            return None
        return Transfer(letter=message, queue=found.queue, outgoing=found.outgoing)

    def _keep(self, row: LetterSummary, kept: KeptLetter) -> None:
        self._kept[kept.why] += 1
        self._told_kept(row, kept)

    async def _paced(self) -> bool:
        """Wait for the batch's turn. False where it was stopped meanwhile."""
        rate = self._course.rate
        while rate is not None and not self._course.dry_run:
            wait = self._began + self._done / rate - self._course.steady()
            if wait <= 0:
                break
            if self._stops():
                return False
            await self._course.pause(wait)
        return not self._stops()

    def _count(self, done: Sequence[Message], chosen: Mapping[int, LetterSummary]) -> None:
        for message in done:
            row = chosen[id(message)]
            self._done += 1
            self._reasons[row.reason] += 1
            self._told(row)
