"""The jobs on dead letters and pending deliveries: replay, discard, cancel, retry."""

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from notifier.model.errors import QueueError
from notifier.model.record import record
from notifier.operators.deliveries.job_documents import WAITING_JOBS, name_holder
from notifier.operators.deliveries.jobs import INTERNAL_ERROR_TEXT, WORKER_ENDED_TEXT, Job
from notifier.operators.deliveries.repair import WriteAudit, format_conditions
from notifier.operators.deliveries.repair_pass import Filter
from notifier.operators.deliveries.repair_result import (
    QUEUE_UNAVAILABLE_TEXT,
    STOPPED_TEXT,
    RepairResult,
    close_failure,
    log_queue_failure,
)
from notifier.operators.deliveries.replay_now import ReplayResult
from notifier.operators.deliveries.retry_now import RetryResult, retry_now
from notifier.operators.deliveries.retry_request import RetryRequest
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue

WATCH_SECONDS = 600.0  # seconds that a job waits for the results of its deliveries
PAST_VERBS: Mapping[Literal["replay", "discard", "cancel"], str] = {
    "replay": "replayed",
    "discard": "discarded",
    "cancel": "cancelled",
}


def explain_end(job: Job, error: BaseException) -> str:
    """Return why the job ends with this error: a cancellation, or an internal error."""
    return INTERNAL_ERROR_TEXT if isinstance(error, Exception) else job.end_reason or WORKER_ENDED_TEXT


WatchResults = Callable[[RepairOptions, float, Callable[[ReplayResult], None]], Awaitable[ReplayResult]]
"""Waits some seconds for the results of the replayed deliveries. The callback receives the results so far."""

RunRepair = Callable[[RepairOptions, Callable[[RepairResult], None]], Awaitable[RepairResult]]
"""Repairs the messages. The callback receives the result so far. Never raises QueueError."""


def issuers_of(filter_: Filter[Any, Any]) -> frozenset[str] | None:
    """Return the issuers whose messages the filter can select; None for all."""
    if filter_.iss is None or (filter_.issuers is not None and filter_.iss not in filter_.issuers):
        return filter_.issuers  # the filter selects all of them or, with another issuer's `iss`, no message
    return frozenset({filter_.iss})


@record
class RepairRequest:
    """A repair of at most `limit` messages, at most `rate` a second. `reasons` counts the changed messages.

    At the end, `conclude` logs the result. Then `watch` collects the results of the replayed deliveries.
    """

    kind: Literal["replay", "discard", "cancel"]
    filter_: Filter[Any, Any]
    issuers: frozenset[str] | None
    run: RunRepair
    reasons: Counter[str]
    conclude: Callable[[RepairResult], None]
    limit: int | None = None
    rate: float | None = None
    watch: WatchResults | None = None


class RepairWork:
    """The work of a repair job."""

    def __init__(self, request: RepairRequest) -> None:
        self.kind = request.kind
        self.issuers = request.issuers
        self.conditions = format_conditions(request.filter_)
        self._request = request
        self._result = RepairResult(done=0, by_reason={})
        self._replay_result: ReplayResult | None = None

    @property
    def _total(self) -> RepairResult:
        """The result so far, with the counts of the current pass."""
        reasons = self._request.reasons
        return replace(self._result, done=reasons.total(), by_reason=dict(reasons.most_common()))

    def account(self) -> dict[str, Any]:
        """Return the result so far as JSON. `became` has the results of the replayed deliveries."""
        result = self._total
        members = {PAST_VERBS[self.kind]: result.done, "dry_run": False, **result.document()}
        del members["by_client"], members["clients"]  # as of the last pass
        if self._request.watch is not None:
            members["became"] = None if self._replay_result is None else self._replay_result.document()
        return members

    async def carry_out(self, job: Job) -> None:
        """Repair the messages and log the result. Then wait for the results of replayed deliveries."""
        options = job.build_options(rate=self._request.rate, limit=self._request.limit)
        try:
            result = await self._request.run(options, self._on_result)
            if result.failed:
                result = close_failure(result)
            elif result.limited:
                text = f"the limit of {self._request.limit:,} is reached; begin another for the rest"
                result = replace(result, unfinished=text)
            elif result.unfinished == STOPPED_TEXT:
                result = replace(result, unfinished=job.end_reason)
            self._result = result
        except BaseException as error:
            self._result = replace(self._result, unfinished=explain_end(job, error))
            raise
        finally:
            self._request.conclude(self._total)
        if self._request.watch is not None:
            job.state = "watching"
            self._replay_result = await self._request.watch(job.build_options(), WATCH_SECONDS, self._on_replay_result)

    def _on_result(self, result: RepairResult) -> None:
        self._result = replace(result, unfinished=None)

    def _on_replay_result(self, result: ReplayResult) -> None:
        self._replay_result = result


class RetryWork:
    """The work of a retry job. Once the workers have received the request, an end of the job stops no attempt."""

    kind: Literal["retry"] = "retry"

    def __init__(self, queue: Queue, request: RetryRequest, write_audit: WriteAudit) -> None:
        self.request = request
        self.issuers = frozenset({request.key[0]})
        self.conditions: Mapping[str, object] = {
            "iss": request.key[0],
            "client_id": request.key[1],
            "force": request.force,
        }
        self._queue = queue
        self._write_audit = write_audit
        self._result = RetryResult(pending_before={})
        self._is_counted = False

    def account(self) -> dict[str, Any]:
        """Return the result so far as JSON. `waited` is None until the pending deliveries are counted."""
        members = {**self.conditions, "dry_run": False, **self._result.document()}
        return members if self._is_counted else members | {"waited": None}

    async def carry_out(self, job: Job) -> None:
        """Retry the deliveries and log the result. Handle all errors of the queue."""
        options, who = job.build_options(), self.request.who
        watch_until = math.inf

        def on_progress(result: RetryResult) -> None:
            nonlocal watch_until
            watch_until = min(watch_until, options.monotonic() + WATCH_SECONDS)
            self._result, self._is_counted, job.state = result, True, "watching"

        options = replace(options, stop=lambda: job.end_reason is not None or options.monotonic() >= watch_until)
        try:
            waiting = self._queue.waiting(partial(name_holder, self._queue, who, WAITING_JOBS))
            result = await retry_now(self._queue, waiting, self.request, options, on_progress=on_progress)
            self._result = replace(result, unfinished=job.end_reason) if result.unfinished == STOPPED_TEXT else result
        except QueueError as error:
            log_queue_failure(error)
            self._result = replace(self._result, unfinished=QUEUE_UNAVAILABLE_TEXT)
        except BaseException as error:
            self._result = replace(self._result, unfinished=explain_end(job, error))
            raise
        finally:
            self._write_audit("retried_now", who=self.request.who, **self.conditions, **self._result.document())
