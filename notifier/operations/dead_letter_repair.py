"""Replays and discards dead letters, for the command line and the API.

A replay or discard goes through the letters once, oldest first. It ignores letters that arrive meanwhile, since a
client that still refuses fills the queue as fast as it is emptied. It can stop between two batches; a second call goes
on with the rest. A letter is deleted only after the message that replaces it is durable. On SQLite both happen in one
transaction. On RabbitMQ a replay that is killed in between repeats one batch at most, which does no harm.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairOptions:
    """How a replay or discard runs. `rate` is in letters a second, `limit` in letters; None means no limit.

    `stop` is asked between batches. `pause` waits for some seconds, and ends early if `stop` becomes true. `steady` is
    a monotonic clock, `clock` the time of day.
    """

    clock: Callable[[], float]
    steady: Callable[[], float]
    pause: Callable[[float], Awaitable[None]]
    progress: Progress = no_progress
    stop: Callable[[], bool] = lambda: False
    rate: float | None = None
    limit: int | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairResult:
    """What a replay or discard did. `done` letters were replayed or discarded; a dry run counts what would be.

    `kept` counts the letters that stay, by reason. `unfinished` says why it stopped early; None means that it reached
    the end. `limited` is true if it stopped at its limit, which is no failure.
    """

    done: int
    by_reason: Mapping[str, int]
    kept: Mapping[KeepReason, int] = field(default_factory=lambda: MappingProxyType({}))
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
            "kept": {why.value: count for why, count in self.kept.items()},
            "more": self.unfinished is not None,
            "unfinished": self.unfinished,
        }


async def discard(
    letters: DeadLetters,
    chosen: LetterFilter,
    options: RepairOptions,
    report: Callable[[LetterSummary], None] = lambda _: None,
) -> RepairResult:
    """Delete the letters that match, for good. `report` hears of each."""
    return await _Repair(letters, chosen, options, None, report).run()


async def replay(
    letters: DeadLetters, chosen: LetterFilter, rules: ReplayRules, options: RepairOptions
) -> RepairResult:
    """Have the letters that match delivered again."""
    return await _Repair(letters, chosen, options, rules).run()


class _Repair:
    """One replay (with `rules`) or discard (without). Rates, limits and stops work the same way for both."""

    def __init__(
        self,
        letters: DeadLetters,
        chosen: LetterFilter,
        options: RepairOptions,
        rules: ReplayRules | None,
        report: Callable[[LetterSummary], None] = lambda _: None,
    ) -> None:
        self._letters = letters
        self._chosen = chosen
        self._options = options
        self._rules = rules
        self._report = report
        self._done = 0
        self._reasons: Counter[str] = Counter()
        self._kept: Counter[KeepReason] = Counter()
        self._unfinished: str | None = None
        self._limited = False
        self._began = options.steady()
        self._at_once = AT_ONCE if options.rate is None else max(1, min(AT_ONCE, int(options.rate * PACED)))

    async def run(self) -> RepairResult:
        """Go through the letters until the end, a stop or a failure."""
        failed = False
        try:
            async with self._letters.visit(letter_reader(self._chosen, whole=self._rules is not None)) as visit:
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
                meant = [(each.message, each.summary) for each in chunk if each.summary is not None]
                for first in range(0, len(meant), self._at_once):
                    await self._act(visit, meant[first : first + self._at_once])
                    if self._unfinished is not None:
                        return
                seen += len(chunk)
                self._options.progress(seen, seen + len(page) - start - len(chunk) + visit.left)
                if self._stops():
                    return
                await asyncio.sleep(0)

    def _stops(self) -> bool:
        if self._unfinished is None and self._options.stop():
            self._unfinished = "stopped; the rest is unchanged, and the same command goes on with it"
        return self._unfinished is not None

    async def _act(self, visit: LetterVisit, meant: Sequence[tuple[Message, LetterSummary]]) -> None:
        room = None if self._options.limit is None else self._options.limit - self._done
        chosen: dict[int, LetterSummary] = {}
        removed: list[Message] = []
        transfers: list[Transfer] = []
        full = False
        for message, summary in meant:
            if full := len(chosen) == room:
                break
            judged = self._judge(message, summary)
            if judged is None:
                continue
            chosen[id(message)] = summary
            removed.append(message)
            if isinstance(judged, Transfer):
                transfers.append(judged)
        if chosen and await self._paced():
            await self._carry_out(visit, removed, transfers, chosen)
        if full and self._unfinished is None:
            self._limited = True
            self._unfinished = (
                f"the limit of {self._options.limit:,} is reached; the same command goes on with the rest"
            )

    async def _carry_out(
        self,
        visit: LetterVisit,
        removed: Sequence[Message],
        transfers: Sequence[Transfer],
        chosen: Mapping[int, LetterSummary],
    ) -> None:
        if self._options.dry_run:
            self._count(removed, chosen)
        elif self._rules is None:
            self._count(await visit.remove(removed), chosen)
        else:
            moved = await visit.move(transfers)
            self._count(moved.done, chosen)
            if moved.failure is not None:
                raise moved.failure

    def _judge(self, message: Message, summary: LetterSummary) -> Transfer | LetterSummary | None:
        """The message that replaces the letter; its summary if it is to be discarded; None if it stays."""
        if summary.reason == NEWER:
            self._kept[KeepReason.NEWER] += 1
            return None
        if self._rules is None:
            return summary
        found = readmit(load_dead_letter(message), self._rules, self._options.clock())
        if isinstance(found, KeptLetter):
            self._kept[found.why] += 1
            return None
        return Transfer(letter=message, queue=found.queue, outgoing=found.outgoing)

    async def _paced(self) -> bool:
        """Wait until the rate allows the next batch. False if a stop came first."""
        rate = self._options.rate
        while rate is not None and not self._options.dry_run:
            wait = self._began + self._done / rate - self._options.steady()
            if wait <= 0:
                break
            if self._stops():
                return False
            await self._options.pause(wait)
        return not self._stops()

    def _count(self, done: Sequence[Message], chosen: Mapping[int, LetterSummary]) -> None:
        for message in done:
            summary = chosen[id(message)]
            self._done += 1
            self._reasons[summary.reason] += 1
            self._report(summary)
