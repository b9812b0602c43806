"""The jobs on dead letters and pending deliveries: replay, discard, cancel, retry.

A job releases the messages once a minute, and at once if another request needs them while it pauses for its rate. A
retry attempts the pending deliveries of one client and reports on them: see `retry_now`. It holds the messages only
while it passes over them, so the retry of a slow client does not block others.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from dataclasses import replace as _replace
from typing import Any, Literal, Protocol, TypeVar

from notifier.model.errors import QueueError
from notifier.model.frozen import frozen
from notifier.network.listeners.problem import Refusal
from notifier.operators.deliveries.groups import Summary
from notifier.operators.deliveries.jobs import AWAY, ENDED, Job, JobEnds, Turns
from notifier.operators.deliveries.repair import WriteAudit, narrowing, remove
from notifier.operators.deliveries.replay_now import ReplayResult
from notifier.operators.deliveries.retry_now import RetryResult, RetryWish, retry_now
from notifier.operators.deliveries.visits import STOPPED, Filter, RepairResult
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue

AT_A_TIME = 60.0  # seconds that a job holds the messages
WATCHED = 600.0  # seconds
DID: Mapping[Literal["replay", "discard", "cancel"], str] = {
    "replay": "replayed",
    "discard": "discarded",
    "cancel": "cancelled",
}

P = TypeVar("P")
S = TypeVar("S", bound=Summary)

WatchAfter = Callable[[RepairOptions, float, Callable[[ReplayResult], None]], Awaitable[ReplayResult]]


class Passes(Protocol):
    """Passes over the messages. `reasons` counts the messages done so far."""

    reasons: Counter[str]

    async def run(self, options: RepairOptions, until: float | None) -> RepairResult:
        """Pass over the messages once, without those later than `until`. Never raises QueueError."""


class RemovalPasses:
    """Deletes messages. `report` receives each summary."""

    def __init__(self, messages: P, chosen: Filter[P, S], report: Callable[[S], None]) -> None:
        def note(summary: S) -> None:
            self.reasons[summary.reason] += 1
            report(summary)

        async def run(options: RepairOptions, until: float | None) -> RepairResult:
            return await remove(messages, chosen if until is None else chosen.come_by(until), options, note)

        self.reasons: Counter[str] = Counter()
        self.run = run


def issuers_of(chosen: Filter[Any, Any]) -> frozenset[str] | None:
    """Return the issuers of the selected messages; None for any."""
    if chosen.iss is None or (chosen.issuers is not None and chosen.iss not in chosen.issuers):
        return chosen.issuers
    return frozenset({chosen.iss})


@frozen
class AskedRepair:
    """A requested repair of `most` messages at most. `conclude` logs the result.

    `watch` reports the results of the messages.
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
    """One repair: passes with exclusive access to the messages, until none is left."""

    def __init__(self, asked: AskedRepair, turns: Turns) -> None:
        self.kind = asked.kind
        self.issuers = asked.issuers
        self.wanted = narrowing(asked.chosen)
        self._asked = asked
        self._turns = turns
        self._last = RepairResult(done=0, by_reason={})  # result of the last pass
        self._became: ReplayResult | None = None

    @property
    def _result(self) -> RepairResult:
        """What it did by now."""
        reasons = self._asked.passes.reasons
        return _replace(self._last, done=reasons.total(), by_reason=dict(reasons.most_common()))

    def account(self) -> dict[str, Any]:
        """See Work."""
        result = self._result
        members = {DID[self.kind]: result.done, "dry_run": False, **result.document()}
        del members["by_client"], members["clients"]  # they describe only the last pass
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

    def _tell(self, became: ReplayResult) -> None:
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
            until = job.began_at  # exclude messages that came back or arrived later
            due = began if rate is None else began + part.done / rate

    def _of_pass(self, job: Job) -> RepairOptions:
        """Return the options of a pass that releases the messages after a while."""
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


class RetryWork:
    """One retry. Ending it ends only the watching, once the workers have received the request."""

    kind: Literal["retry"] = "retry"

    def __init__(self, queue: Queue, wish: RetryWish, turns: Turns, write_audit: WriteAudit) -> None:
        self.wish = wish
        self.issuers = frozenset({wish.key[0]})
        self.wanted: Mapping[str, object] = {"iss": wish.key[0], "client_id": wish.key[1], "force": wish.force}
        self._queue = queue
        self._turns = turns
        self._write_audit = write_audit
        self._result = RetryResult(waited={})
        self._counted = False

    def account(self) -> dict[str, Any]:
        """See Work. `waited` is None until it is counted."""
        members = {**self.wanted, "dry_run": False, **self._result.document()}
        return members if self._counted else members | {"waited": None}

    async def carry_out(self, job: Job) -> None:
        """See Work."""
        until = job.steady() + WATCHED

        def alone() -> AbstractAsyncContextManager[None]:
            return job.turn(self._turns)

        def tell(result: RetryResult) -> None:
            self._result, self._counted = result, True
            if job.free.is_set():
                job.state = "watching"

        options = RepairOptions(
            clock=job.clock,
            steady=job.steady,
            pause=asyncio.sleep,
            stop=lambda: job.ending is not None or job.steady() >= until,
        )
        try:
            self._result = await retry_now(self._queue, self.wish, options, alone=alone, tell=tell)
        except JobEnds as ends:
            self._result = replace(self._result, unfinished=str(ends))
        except (QueueError, Refusal):  # its own text names hosts and files
            self._result = replace(self._result, unfinished=AWAY)
        except asyncio.CancelledError:
            self._result = replace(self._result, unfinished=job.ending or ENDED)
            raise
        finally:
            self._write_audit("retried_now", who=self.wish.who, **self.wanted, **self._result.document())
