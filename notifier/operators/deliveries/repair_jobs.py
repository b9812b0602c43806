"""The jobs on dead letters and pending deliveries: replay, discard, cancel, retry.

One job or request at a time locks the messages. A job unlocks them once a minute. It also does so when it waits for its
rate and another request needs them. A retry attempts the pending deliveries of one client (`retry_now`). It locks the
messages only while it passes over them, so the retry of a slow client does not block others.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Generic, Literal, Protocol, TypeVar

from notifier.model.errors import QueueError
from notifier.model.record import record
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

PASS_SECONDS = 60.0  # seconds after which a job unlocks the messages
WATCH_SECONDS = 600.0  # seconds that a job waits for the results of its deliveries
PAST_VERBS: Mapping[Literal["replay", "discard", "cancel"], str] = {
    "replay": "replayed",
    "discard": "discarded",
    "cancel": "cancelled",
}

P = TypeVar("P")
S = TypeVar("S", bound=Summary)

WatchResults = Callable[[RepairOptions, float, Callable[[ReplayResult], None]], Awaitable[ReplayResult]]
"""Waits some seconds for the results of the replayed deliveries. The callback receives the results so far."""


class RepairPasses(Protocol):
    """The port through which a job passes over messages. `reasons` counts the changed messages of all passes."""

    reasons: Counter[str]

    async def run(self, options: RepairOptions, until: float | None) -> RepairResult:
        """Pass once over the messages that arrived until `until` (None: over all). Never raises QueueError."""


class RemovalPasses(Generic[P, S]):
    """Deletes the selected messages. `report` receives the summary of each deleted message."""

    def __init__(self, messages: P, filter_: Filter[P, S], report: Callable[[S], None]) -> None:
        self.reasons: Counter[str] = Counter()
        self._messages = messages
        self._filter = filter_
        self._report = report

    async def run(self, options: RepairOptions, until: float | None) -> RepairResult:
        """Delete the selected messages that arrived until `until`. Never raises QueueError."""
        filter_ = self._filter if until is None else self._filter.restrict_to_arrived_by(until)
        return await remove(self._messages, filter_, options, self._on_removal)

    def _on_removal(self, summary: S) -> None:
        self.reasons[summary.reason] += 1
        self._report(summary)


def issuers_of(filter_: Filter[Any, Any]) -> frozenset[str] | None:
    """Return the issuers whose messages the filter can select; None for all."""
    if filter_.iss is None or (filter_.issuers is not None and filter_.iss not in filter_.issuers):
        return filter_.issuers  # the filter selects all of them or, with another issuer's `iss`, no message
    return frozenset({filter_.iss})


@record
class RepairRequest:
    """A repair of at most `limit` messages, at most `rate` a second. `passes` carries it out.

    At the end, `conclude` logs the result. Then `watch` collects the results of the replayed deliveries.
    """

    kind: Literal["replay", "discard", "cancel"]
    filter_: Filter[Any, Any]
    issuers: frozenset[str] | None
    passes: RepairPasses
    conclude: Callable[[RepairResult], None]
    limit: int | None = None
    rate: float | None = None
    watch: WatchResults | None = None


class RepairWork:
    """The work of a repair job: passes over the locked messages, until a pass is complete."""

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
        """The result so far: counts of all passes, and the reason why the last pass ended."""
        reasons = self._request.passes.reasons
        return replace(self._last, done=reasons.total(), by_reason=dict(reasons.most_common()))

    def account(self) -> dict[str, Any]:
        """Return the result so far as JSON. `became` has the results of the replayed deliveries."""
        result = self._total
        members = {PAST_VERBS[self.kind]: result.done, "dry_run": False, **result.document()}
        del members["by_client"], members["clients"]  # they describe only the last pass
        if self._request.watch is not None:
            members["became"] = None if self._replay_result is None else self._replay_result.document()
        return members

    async def carry_out(self, job: Job) -> None:
        """Repair the messages and log the result. Then wait for the results of replayed deliveries."""
        try:
            await self._repair(job)
        except JobEndRequested as request:
            self._last = replace(self._last, unfinished=str(request))
        except asyncio.CancelledError:
            self._last = replace(self._last, unfinished=job.end_reason or WORKER_ENDED_TEXT)
            raise
        finally:
            self._request.conclude(self._total)
        if self._request.watch is not None:
            job.state = "watching"
            options = RepairOptions(
                clock=job.clock, monotonic=job.monotonic, pause=asyncio.sleep, stop=lambda: job.end_reason is not None
            )
            self._replay_result = await self._request.watch(options, WATCH_SECONDS, self._on_replay_result)

    def _on_replay_result(self, result: ReplayResult) -> None:
        self._replay_result = result

    async def _repair(self, job: Job) -> None:
        """Pass over the messages until a pass is complete or fails, or the limit is reached. Raises JobEndRequested."""
        not_before, arrived_by, rate = job.monotonic(), None, self._request.rate
        while True:
            async with job.lock(self._access, not_before):
                pass_began_at = job.monotonic()
                result = await self._request.passes.run(self._build_pass_options(job), arrived_by)
            if result.failed:  # the text of the failure names hosts and files
                result = replace(result, unfinished=QUEUE_UNAVAILABLE_TEXT)
            elif result.limited:
                text = f"the limit of {self._request.limit:,} is reached; begin another for the rest"
                result = replace(result, unfinished=text)
            self._last = result
            if result.unfinished != STOPPED_TEXT:
                return
            arrived_by = job.began_at  # exclude later messages: a replayed delivery may fail again
            not_before = pass_began_at if rate is None else pass_began_at + result.done / rate

    def _build_pass_options(self, job: Job) -> RepairOptions:
        """Return the options of one pass, which stops so that the job can unlock the messages."""
        end_at, is_access_wanted = job.monotonic() + PASS_SECONDS, False
        remaining = None if self._request.limit is None else self._request.limit - self._total.done

        async def pause(seconds: float) -> None:
            nonlocal is_access_wanted
            is_access_wanted = self._access.has_waiters
            if not is_access_wanted:
                await asyncio.sleep(seconds)

        def stop() -> bool:
            return is_access_wanted or job.end_reason is not None or job.monotonic() >= end_at

        return RepairOptions(
            clock=job.clock, monotonic=job.monotonic, pause=pause, stop=stop, rate=self._request.rate, limit=remaining
        )


class RetryWork:
    """The work of a retry job. Once the workers have received the request, an end of the job stops no attempt."""

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
        self._result = RetryResult(pending_before={})
        self._is_counted = False

    def account(self) -> dict[str, Any]:
        """Return the result so far as JSON. `waited` is None until the pending deliveries are counted."""
        members = {**self.conditions, "dry_run": False, **self._result.document()}
        return members if self._is_counted else members | {"waited": None}

    async def carry_out(self, job: Job) -> None:
        """Retry the deliveries and log the result. Handle all errors of the queue and of `job.lock`."""
        watch_until = job.monotonic() + WATCH_SECONDS

        def lock() -> AbstractAsyncContextManager[None]:
            return job.lock(self._access)

        def on_progress(result: RetryResult) -> None:
            self._result, self._is_counted = result, True
            if job.idle.is_set():
                job.state = "watching"

        options = RepairOptions(
            clock=job.clock,
            monotonic=job.monotonic,
            pause=asyncio.sleep,
            stop=lambda: job.end_reason is not None or job.monotonic() >= watch_until,
        )
        try:
            self._result = await retry_now(self._queue, self.request, options, lock=lock, on_progress=on_progress)
        except JobEndRequested as request:
            self._result = replace(self._result, unfinished=str(request))
        except (QueueError, Refusal):  # the text of the error names hosts and files
            self._result = replace(self._result, unfinished=QUEUE_UNAVAILABLE_TEXT)
        except asyncio.CancelledError:
            self._result = replace(self._result, unfinished=job.end_reason or WORKER_ENDED_TEXT)
            raise
        finally:
            self._write_audit("retried_now", who=self.request.who, **self.conditions, **self._result.document())
