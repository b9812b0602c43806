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
from typing import Any, Literal, Protocol, TypeVar

from notifier.model.errors import QueueError
from notifier.model.frozen import frozen
from notifier.network.listeners.problem import Refusal
from notifier.operators.deliveries.groups import Summary
from notifier.operators.deliveries.jobs import (
    QUEUE_UNAVAILABLE_TEXT,
    WORKER_ENDED_TEXT,
    ExclusiveAccess,
    Job,
    JobEndRequested,
)
from notifier.operators.deliveries.repair import WriteAudit, format_conditions, remove
from notifier.operators.deliveries.repair_pass import STOPPED_TEXT, Filter, RepairResult
from notifier.operators.deliveries.replay_now import ReplayResult
from notifier.operators.deliveries.retry_now import RetryRequest, RetryResult, retry_now
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue

PASS_SECONDS = 60.0  # seconds that a job holds the messages
WATCH_SECONDS = 600.0  # seconds
PAST_VERBS: Mapping[Literal["replay", "discard", "cancel"], str] = {
    "replay": "replayed",
    "discard": "discarded",
    "cancel": "cancelled",
}

P = TypeVar("P")
S = TypeVar("S", bound=Summary)

WatchAfter = Callable[[RepairOptions, float, Callable[[ReplayResult], None]], Awaitable[ReplayResult]]


class RepairPasses(Protocol):
    """Passes over the messages. `reasons` counts the messages done so far."""

    reasons: Counter[str]

    async def run(self, options: RepairOptions, until: float | None) -> RepairResult:
        """Pass over the messages once, without those later than `until`. Never raises QueueError."""


class RemovalPasses:
    """Deletes messages. `report` receives each summary."""

    def __init__(self, messages: P, filter_: Filter[P, S], report: Callable[[S], None]) -> None:
        def on_removal(summary: S) -> None:
            self.reasons[summary.reason] += 1
            report(summary)

        async def run(options: RepairOptions, until: float | None) -> RepairResult:
            return await remove(
                messages, filter_ if until is None else filter_.restrict_to_arrived_by(until), options, on_removal
            )

        self.reasons: Counter[str] = Counter()
        self.run = run


def issuers_of(filter_: Filter[Any, Any]) -> frozenset[str] | None:
    """Return the issuers of the selected messages; None for any."""
    if filter_.iss is None or (filter_.issuers is not None and filter_.iss not in filter_.issuers):
        return filter_.issuers
    return frozenset({filter_.iss})


@frozen
class RepairRequest:
    """A requested repair of `limit` messages at most. `conclude` logs the result.

    `watch` reports the results of the messages.
    """

    kind: Literal["replay", "discard", "cancel"]
    filter_: Filter[Any, Any]
    issuers: frozenset[str] | None
    passes: RepairPasses
    conclude: Callable[[RepairResult], None]
    limit: int | None = None
    rate: float | None = None
    watch: WatchAfter | None = None


class RepairWork:
    """One repair: passes with exclusive access to the messages, until none is left."""

    def __init__(self, request: RepairRequest, access: ExclusiveAccess) -> None:
        self.kind = request.kind
        self.issuers = request.issuers
        self.conditions = format_conditions(request.filter_)
        self._request = request
        self._access = access
        self._last = RepairResult(done=0, by_reason={})  # result of the last pass
        self._replay_result: ReplayResult | None = None

    @property
    def _total(self) -> RepairResult:
        """What it did by now."""
        reasons = self._request.passes.reasons
        return replace(self._last, done=reasons.total(), by_reason=dict(reasons.most_common()))

    def account(self) -> dict[str, Any]:
        """See Work."""
        result = self._total
        members = {PAST_VERBS[self.kind]: result.done, "dry_run": False, **result.document()}
        del members["by_client"], members["clients"]  # they describe only the last pass
        if self._request.watch is not None:
            members["became"] = None if self._replay_result is None else self._replay_result.document()
        return members

    async def carry_out(self, job: Job) -> None:
        """See Work."""
        try:
            await self._repair(job)
        except JobEndRequested as ends:
            self._last = replace(self._last, unfinished=str(ends))
        except asyncio.CancelledError:
            self._last = replace(self._last, unfinished=job.end_reason or WORKER_ENDED_TEXT)
            raise
        finally:
            self._request.conclude(self._total)
        if self._request.watch is not None:
            job.state = "watching"
            options = RepairOptions(
                clock=job.clock, steady=job.steady, pause=asyncio.sleep, stop=lambda: job.end_reason is not None
            )
            self._replay_result = await self._request.watch(options, WATCH_SECONDS, self._on_replay_result)

    def _on_replay_result(self, result: ReplayResult) -> None:
        self._replay_result = result

    async def _repair(self, job: Job) -> None:
        due, until, rate = job.steady(), None, self._request.rate
        while True:
            async with job.lock(self._access, due):
                began = job.steady()
                part = await self._request.passes.run(self._build_pass_options(job), until)
            if part.failed:  # its own text names hosts and files
                part = replace(part, unfinished=QUEUE_UNAVAILABLE_TEXT)
            elif part.limited:
                part = replace(
                    part, unfinished=f"the limit of {self._request.limit:,} is reached; begin another for the rest"
                )
            self._last = part
            if part.unfinished != STOPPED_TEXT:
                return
            until = job.began_at  # exclude messages that came back or arrived later
            due = began if rate is None else began + part.done / rate

    def _build_pass_options(self, job: Job) -> RepairOptions:
        """Return the options of a pass that releases the messages after a while."""
        until, is_access_wanted = job.steady() + PASS_SECONDS, False
        limit = self._request.limit

        async def pause(seconds: float) -> None:
            nonlocal is_access_wanted
            is_access_wanted = self._access.has_waiters
            if not is_access_wanted:
                await asyncio.sleep(seconds)

        def stop() -> bool:
            return is_access_wanted or job.end_reason is not None or job.steady() >= until

        return RepairOptions(
            clock=job.clock, steady=job.steady, pause=pause, stop=stop, rate=self._request.rate,
            limit=None if limit is None else limit - self._total.done,
        )  # fmt: skip


class RetryWork:
    """One retry. Ending it ends only the watching, once the workers have received the request."""

    kind: Literal["retry"] = "retry"

    def __init__(self, queue: Queue, request: RetryRequest, access: ExclusiveAccess, write_audit: WriteAudit) -> None:
        self.request = request
        self.issuers = frozenset({request.key[0]})
        self.conditions: Mapping[str, object] = {
            "iss": request.key[0],
            "client_id": request.key[1],
            "force": request.force,
        }
        self._queue = queue
        self._access = access
        self._write_audit = write_audit
        self._result = RetryResult(waited={})
        self._is_counted = False

    def account(self) -> dict[str, Any]:
        """See Work. `waited` is None until it is counted."""
        members = {**self.conditions, "dry_run": False, **self._result.document()}
        return members if self._is_counted else members | {"waited": None}

    async def carry_out(self, job: Job) -> None:
        """See Work."""
        until = job.steady() + WATCH_SECONDS

        def lock() -> AbstractAsyncContextManager[None]:
            return job.lock(self._access)

        def on_progress(result: RetryResult) -> None:
            self._result, self._is_counted = result, True
            if job.idle.is_set():
                job.state = "watching"

        options = RepairOptions(
            clock=job.clock,
            steady=job.steady,
            pause=asyncio.sleep,
            stop=lambda: job.end_reason is not None or job.steady() >= until,
        )
        try:
            self._result = await retry_now(self._queue, self.request, options, lock=lock, on_progress=on_progress)
        except JobEndRequested as ends:
            self._result = replace(self._result, unfinished=str(ends))
        except (QueueError, Refusal):  # its own text names hosts and files
            self._result = replace(self._result, unfinished=QUEUE_UNAVAILABLE_TEXT)
        except asyncio.CancelledError:
            self._result = replace(self._result, unfinished=job.end_reason or WORKER_ENDED_TEXT)
            raise
        finally:
            self._write_audit("retried_now", who=self.request.who, **self.conditions, **self._result.document())
