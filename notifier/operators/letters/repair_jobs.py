"""The jobs that go through dead letters, or through what waits: replay, discard, cancel.

A job gives the messages back once a minute, and at once if another request waits for them while it pauses for its rate.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace as _replace
from typing import Any, Literal, Protocol, TypeVar

from notifier.model.frozen import frozen
from notifier.operators.letters.groups import Summary
from notifier.operators.letters.jobs import AWAY, ENDED, Job, JobEnds, Turns
from notifier.operators.letters.repair import remove
from notifier.operators.letters.repair_audit import narrowing
from notifier.operators.letters.replay_now import Became
from notifier.operators.letters.visits import STOPPED, Filter, RepairResult
from notifier.queues.passes import RepairOptions

AT_A_TIME = 60.0  # seconds that a job has the messages
WATCHED = 600.0  # seconds
DID: Mapping[Literal["replay", "discard", "cancel"], str] = {
    "replay": "replayed",
    "discard": "discarded",
    "cancel": "cancelled",
}

P = TypeVar("P")
S = TypeVar("S", bound=Summary)

WatchAfter = Callable[[RepairOptions, float, Callable[[Became], None]], Awaitable[Became]]


class Passes(Protocol):
    """What goes through the messages. `reasons` counts those that are done by now."""

    reasons: Counter[str]

    async def run(self, options: RepairOptions, until: float | None) -> RepairResult:
        """Go through them once; `until` leaves out what came later. Never raises QueueError."""


class RemovalPasses:
    """Deletes messages. `report` hears of each."""

    def __init__(self, messages: P, chosen: Filter[P, S], report: Callable[[S], None]) -> None:
        def note(summary: S) -> None:
            self.reasons[summary.reason] += 1
            report(summary)

        async def run(options: RepairOptions, until: float | None) -> RepairResult:
            return await remove(messages, chosen if until is None else chosen.come_by(until), options, note)

        self.reasons: Counter[str] = Counter()
        self.run = run


def issuers_of(chosen: Filter[Any, Any]) -> frozenset[str] | None:
    """Whose messages a filter means at most, None for anybody's."""
    if chosen.iss is None or (chosen.issuers is not None and chosen.iss not in chosen.issuers):
        return chosen.issuers
    return frozenset({chosen.iss})


@frozen
class AskedRepair:
    """A repair as it was asked for. `most`: so many messages at most. `conclude` logs what it came to.

    `watch` tells what became of the messages.
    """

    kind: Literal["replay", "discard", "cancel"]
    chosen: Filter[Any, Any]
    issuers: frozenset[str] | None
    passes: Passes
    conclude: Callable[[RepairResult], None]
    most: int | None = None
    rate: float | None = None
    watch: WatchAfter | None = None


class RepairWork:
    """One repair: pass by pass, each with the messages alone, until the end."""

    def __init__(self, asked: AskedRepair, turns: Turns) -> None:
        self.kind = asked.kind
        self.issuers = asked.issuers
        self.wanted = narrowing(asked.chosen)
        self._asked = asked
        self._turns = turns
        self._last = RepairResult(done=0, by_reason={})  # of the last pass
        self._became: Became | None = None

    @property
    def _result(self) -> RepairResult:
        """What it did by now."""
        reasons = self._asked.passes.reasons
        return _replace(self._last, done=reasons.total(), by_reason=dict(reasons.most_common()))

    def account(self) -> dict[str, Any]:
        """See Work."""
        result = self._result
        members = {DID[self.kind]: result.done, "dry_run": False, **result.document()}
        del members["by_client"], members["clients"]  # those of the last pass
        if self._asked.watch is not None:
            members["became"] = None if self._became is None else self._became.document()
        return members

    async def carry_out(self, job: Job) -> None:
        """See Work."""
        try:
            await self._repair(job)
        except JobEnds as ends:
            self._last = _replace(self._last, unfinished=str(ends))
        except asyncio.CancelledError:
            self._last = _replace(self._last, unfinished=job.ending or ENDED)
            raise
        finally:
            self._asked.conclude(self._result)
        if self._asked.watch is not None:
            job.state = "watching"
            options = RepairOptions(
                clock=job.clock, steady=job.steady, pause=asyncio.sleep, stop=lambda: job.ending is not None
            )
            self._became = await self._asked.watch(options, WATCHED, self._tell)

    def _tell(self, became: Became) -> None:
        self._became = became

    async def _repair(self, job: Job) -> None:
        due, until, rate = job.steady(), None, self._asked.rate
        while True:
            async with job.turn(self._turns, due):
                began = job.steady()
                part = await self._asked.passes.run(self._of_pass(job), until)
            if part.failed:  # its own text names hosts and files
                part = _replace(part, unfinished=AWAY)
            elif part.limited:
                part = _replace(
                    part, unfinished=f"the limit of {self._asked.most:,} is reached; begin another for the rest"
                )
            self._last = part
            if part.unfinished != STOPPED:
                return
            until = job.began_at  # what came back, or came later, stays
            due = began if rate is None else began + part.done / rate

    def _of_pass(self, job: Job) -> RepairOptions:
        """A pass that gives the messages back after a while."""
        until, gives_way = job.steady() + AT_A_TIME, False
        most = self._asked.most

        async def pause(seconds: float) -> None:
            nonlocal gives_way
            gives_way = self._turns.wanted
            if not gives_way:
                await asyncio.sleep(seconds)

        def stop() -> bool:
            return gives_way or job.ending is not None or job.steady() >= until

        return RepairOptions(
            clock=job.clock, steady=job.steady, pause=pause, stop=stop, rate=self._asked.rate,
            limit=None if most is None else most - self._result.done,
        )  # fmt: skip
