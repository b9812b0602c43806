"""Attempts the pending deliveries of one client at once, and reports the results, for commands and the API.

A retry opens an account at every worker, then counts the pending deliveries. Every worker probes the client; if the
client accepts the probe, the workers deliver its parked deliveries, and its delayed deliveries, of which a thousand
become due each second. The retry queries the workers until they have nothing more to do for the client, and counts
again. Ending the retry earlier stops no delivery.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field, with_config

from notifier.model.errors import NotifierError, PassStopped, QueueError
from notifier.model.moment import format_optional_moment
from notifier.operators.deliveries.repair import MAX_DUE_PER_SECOND, make_due
from notifier.operators.deliveries.repair_pass import find_messages
from notifier.operators.deliveries.repair_result import RESULTS_UNAVAILABLE_TEXT, STOPPED_TEXT, log_queue_failure
from notifier.operators.deliveries.retry_request import RetryAccount, RetryRequest, sum_accounts
from notifier.operators.deliveries.waiting_filter import ClientMembers, WaitingFilter
from notifier.operators.status.worker_requests import (
    ANSWER_TIMEOUT_SECONDS,
    GONE_WORKER_TEXT,
    LastAnswers,
    send_to_workers,
)
from notifier.queues.passes import RepairOptions, no_progress
from notifier.queues.queue_port import Queue, WaitingDeliveries

QUERY_INTERVAL_SECONDS = 0.5  # seconds between two queries of the workers
STUCK_SECONDS = 60.0  # seconds without new results that end the wait for busy workers: one attempt a minute is slow
QUIET_SECONDS = 1.5  # seconds for which no worker is busy with the client, after which no more results are expected
NO_WORKER_TEXT = "no worker consumes the queue, so nothing would be attempted; start one: notifier run"


@with_config(ConfigDict(extra="forbid"))
class RetryMembers(ClientMembers, total=False):
    """The members of a retry, in a request and as options."""

    dry_run: Annotated[bool, Field(description="Show the pending deliveries; attempt none.")]
    force: Annotated[
        bool, Field(description="Do not wait for the end of a pause that the client requested (Retry-After).")
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryResult:
    """The result of a retry. `pending_before` and `pending_after` count the pending deliveries, by reason.

    `delayed_by_client` counts the deliveries that are not attempted because the client requested the delay. `answered`
    of all `workers` took part. `unfinished` is the reason why the account is not final.
    """

    pending_before: Mapping[str, int]
    delayed_by_client: int = 0
    workers: int = 0
    answered: int = 0
    account: RetryAccount = field(default_factory=RetryAccount)
    pending_after: Mapping[str, int] = field(default_factory=dict)
    unfinished: str | None = None

    @property
    def waited(self) -> int:
        """Return the number of deliveries that this result is about, including the ones held by a worker at first."""
        return max(sum(self.pending_before.values()), self.account.finished + sum(self.pending_after.values()))

    @property
    def unknown(self) -> int:
        """Return how many of them neither were reported nor are pending: cancelled, or in the hands of a worker."""
        return self.waited - self.account.finished - sum(self.pending_after.values())

    def document(self) -> dict[str, Any]:
        """Return the JSON for scripts and the API."""
        account = self.account.document()
        moments = ("next_try", "paused_until")
        counts = {name: account[name] for name in ("delivered", "failed", "dead", "put_off", "text")}
        counts |= {name: format_optional_moment(account[name]) for name in moments}
        return {
            "waited": self.waited,
            "asked": self.delayed_by_client,
            **counts,
            "waiting": sum(self.pending_after.values()),
            "waiting_for": dict(self.pending_after),
            "unknown": self.unknown,
            "workers": {"seen": self.workers, "answered": self.answered},
            "unfinished": self.unfinished,
        }


async def preview_retry(
    queue: Queue, waiting: WaitingDeliveries, request: RetryRequest, options: RepairOptions
) -> RetryResult:
    """Return what a retry would attempt, without attempting it. Raises QueueError."""
    result = await _count_pending(waiting, request, options)
    workers, answers = await send_to_workers(queue, request.to_worker(), ANSWER_TIMEOUT_SECONDS)
    result = replace(result, workers=workers, answered=len(answers), account=sum_accounts(answers))
    return replace(result, unfinished=result.unfinished or await _describe_pause(queue, request, options))


async def retry_now(
    queue: Queue,
    waiting: WaitingDeliveries,
    request: RetryRequest,
    options: RepairOptions,
    *,
    on_progress: Callable[[RetryResult], None] = lambda _: None,
) -> RetryResult:
    """Attempt the pending deliveries of the client, and return the result once the workers are done. Raises QueueError.

    The queue must be open. `on_progress` receives the results so far.
    """
    await send_to_workers(queue, request.to_worker(follow=True), ANSWER_TIMEOUT_SECONDS)
    result = await _count_pending(waiting, request, options)
    total = sum(result.pending_before.values())
    on_progress(result)
    unfinished = result.unfinished or await _describe_pause(queue, request, options)
    if not total or unfinished is not None:
        return replace(result, unfinished=unfinished)
    begin_request = request.to_worker(begin=True, all=result.delayed_by_client == 0)  # only such ones stay delayed
    workers, answers = await send_to_workers(queue, begin_request, ANSWER_TIMEOUT_SECONDS)
    if not workers:
        return replace(result, unfinished=NO_WORKER_TEXT)
    result = replace(result, workers=workers, answered=len(answers))
    delayed = WaitingFilter(iss=request.key[0], client_id=request.key[1], parked=False)
    due_options = replace(options, progress=no_progress)
    due_result = await make_due(
        waiting, delayed, due_options, force=request.force, pace=lambda _iss: MAX_DUE_PER_SECOND
    )

    unfinished = due_result.unfinished
    if due_result.failed:
        log_queue_failure(unfinished)
        unfinished = RESULTS_UNAVAILABLE_TEXT

    def on_account(account: RetryAccount) -> None:
        nonlocal result
        remaining = max(0, total - account.finished)
        result = replace(result, account=account, pending_after={"not counted again": remaining} if remaining else {})
        on_progress(result)

    last_answers = LastAnswers(answers)
    unfinished = await _watch(queue, request, options, total, unfinished, last_answers, on_account)
    if unfinished not in (None, GONE_WORKER_TEXT):  # then results are missing, and a recount would not be final
        return replace(result, unfinished=unfinished)
    recount = await _count_pending(waiting, request, options)
    result = replace(result, pending_after=recount.pending_after, unfinished=recount.unfinished or unfinished)
    if result.unknown and unfinished is None:  # results of the time between the last account and the second count
        _, answers = await send_to_workers(queue, request.to_worker(), ANSWER_TIMEOUT_SECONDS)
        result = replace(result, account=sum_accounts(answers, last_answers.find_missing(answers)))
    return result


async def _describe_pause(queue: Queue, request: RetryRequest, options: RepairOptions) -> str | None:
    """Return that an operator has paused the client. If the pauses are unreadable, the retry goes on without them."""
    with suppress(NotifierError):
        now = options.clock()
        pauses = (await queue.register.read()).limit_ends(request.registry(), now).in_force(now)
        if (pause := pauses.get(request.key)) is not None:
            return f"the client is {pause.text}; nothing is attempted before: notifier resume"
    return None


async def _count_pending(waiting: WaitingDeliveries, request: RetryRequest, options: RepairOptions) -> RetryResult:
    """Return a result with the current counts as both `pending_before` and `pending_after`. Raises QueueError."""
    filter_ = WaitingFilter(iss=request.key[0], client_id=request.key[1])
    reasons, delayed_by_client, unfinished = Counter[str](), 0, None
    try:
        async with aclosing(find_messages(waiting, filter_, replace(options, progress=no_progress))) as summaries:
            async for summary, _ in summaries:
                reasons[summary.reason] += 1
                delayed_by_client += summary.asked and not request.force
                if options.stop():
                    unfinished = STOPPED_TEXT
                    break
    except PassStopped:
        unfinished = STOPPED_TEXT
    counts = dict(reasons.most_common())
    return RetryResult(
        pending_before=counts, pending_after=counts, delayed_by_client=delayed_by_client, unfinished=unfinished
    )


async def _watch(
    queue: Queue,
    request: RetryRequest,
    options: RepairOptions,
    total: int,
    unfinished: str | None,
    last_answers: LastAnswers,
    on_account: Callable[[RetryAccount], None],
) -> str | None:
    """Query the workers until they are done with the client. `on_account` receives the account of each round.

    If `unfinished` is given (deliveries could not be made due), query once. Return the reason why the account is not
    final; None if it is.
    """
    last = RetryAccount()
    quiet_since = changed_at = options.monotonic()
    while True:
        try:
            _, answers = await send_to_workers(queue, request.to_worker(), ANSWER_TIMEOUT_SECONDS)
        except QueueError as error:
            log_queue_failure(error)
            return unfinished or RESULTS_UNAVAILABLE_TEXT
        ended_workers = last_answers.find_missing(answers)
        last_answers.store(answers)
        account = sum_accounts(answers, ended_workers)
        has_changed = account.counts != last.counts
        if has_changed:
            changed_at = options.monotonic()
        if account.busy or has_changed:
            quiet_since = options.monotonic()
        if account.finished != last.finished:
            options.progress(min(account.finished, total), total)
        last = account
        on_account(account)
        if unfinished is not None or options.monotonic() - quiet_since > QUIET_SECONDS:
            return unfinished or (GONE_WORKER_TEXT if ended_workers else None)
        if options.stop() or options.monotonic() - changed_at > STUCK_SECONDS:
            return "no longer watched; the workers go on, and `notifier status` shows how far they are"
        await options.pause(QUERY_INTERVAL_SECONDS)
