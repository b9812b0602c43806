"""Attempts the pending deliveries of one client at once, and reports the results, for commands and the API.

It counts the pending deliveries; then every worker probes the client and, if it accepts, drains its bucket at its pace.
Delayed deliveries are made due at a thousand a second. It watches the workers until they have nothing more to do for
the client, and counts again. Ending the watching stops no delivery.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, Any, Required

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.client import ClientKey
from notifier.model.errors import QueueError
from notifier.model.moment import format_optional_moment
from notifier.operators.deliveries.repair import MAX_DUE_PER_SECOND, make_due
from notifier.operators.deliveries.repair_pass import STOPPED_TEXT, find_messages
from notifier.operators.deliveries.retry_request import RetryAccount, request_of, sum_of
from notifier.operators.deliveries.waiting_filter import WaitingFilter
from notifier.operators.status.worker_requests import (
    ANSWER_TIMEOUT_SECONDS,
    GONE_WORKER_TEXT,
    LastAnswers,
    send_to_workers,
)
from notifier.queues.passes import RepairOptions, no_progress
from notifier.queues.queue_port import Queue

QUERY_INTERVAL_SECONDS = 0.5  # seconds between two queries of the workers
STUCK_SECONDS = (
    60.0  # seconds without results while a worker is busy with the client: its rate may be one attempt a minute
)
QUIET_SECONDS = 1.5  # seconds without news, after which nothing more is going to happen
NO_WORKER_TEXT = "no worker consumes the queue, so nothing would be attempted; start one: notifier run"


@with_config(ConfigDict(extra="forbid"))
class RetryMembers(TypedDict, total=False):
    """The members of a retry, in a request and as options."""

    client_id: Annotated[Required[str], Field(min_length=1, description="The client whose deliveries are attempted.")]
    iss: Annotated[str, Field(min_length=1, description="Its issuer. Needed if there are several.")]
    dry_run: Annotated[bool, Field(description="Show the pending deliveries; attempt none.")]
    force: Annotated[
        bool, Field(description="Do not wait for the end of a pause that the client requested (Retry-After).")
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRequest:
    """The client to retry. `force`: also deliveries that the client asked to delay."""

    key: ClientKey
    who: str
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryResult:
    """The result of a retry. `waited` and `waiting`: the pending deliveries before and after, by reason.

    `asked` counts those that stay because the client requested the delay. `answered` of `workers` took part.
    `unfinished` is the reason why the account is not final.
    """

    waited: Mapping[str, int]
    asked: int = 0
    workers: int = 0
    answered: int = 0
    account: RetryAccount = field(default_factory=RetryAccount)
    waiting: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    unfinished: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the JSON for scripts and the API."""
        account = self.account.document()
        moments = ("next_try", "paused_until")
        counts = {name: account[name] for name in ("delivered", "failed", "dead", "put_off", "text")}
        counts |= {name: format_optional_moment(account[name]) for name in moments}
        return {
            "waited": sum(self.waited.values()),
            "asked": self.asked,
            **counts,
            "waiting": sum(self.waiting.values()),
            "waiting_for": dict(self.waiting),
            "workers": {"seen": self.workers, "answered": self.answered},
            "unfinished": self.unfinished,
        }


async def preview_retry(queue: Queue, request: RetryRequest, options: RepairOptions) -> RetryResult:
    """Return what a retry would attempt. Changes nothing. Raises QueueError."""
    result = await _count(queue, request, options)
    query = request_of(request.key, request.who, begin=False)
    workers, answers = await send_to_workers(queue, query, ANSWER_TIMEOUT_SECONDS)
    return replace(result, workers=workers, answered=len(answers), account=sum_of(answers))


async def retry_now(
    queue: Queue,
    request: RetryRequest,
    options: RepairOptions,
    *,
    lock: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    on_progress: Callable[[RetryResult], None] = lambda _: None,
) -> RetryResult:
    """Attempt the pending deliveries. Each pass over them is within `lock`.

    The queue must be open. `on_progress` receives the results so far. Raises QueueError.
    """
    async with lock():
        result = await _count(queue, request, options)
        total = sum(result.waited.values())
        on_progress(result)
        if not total or result.unfinished is not None:
            return result
        begin = request_of(request.key, request.who, begin=True, force=request.force, everything=result.asked == 0)
        workers, answers = await send_to_workers(queue, begin, ANSWER_TIMEOUT_SECONDS)
        if not workers:
            return replace(result, unfinished=NO_WORKER_TEXT)
        result = replace(result, workers=workers, answered=len(answers))
        delayed = WaitingFilter(iss=request.key[0], client_id=request.key[1], parked=False)
        due_options = replace(options, progress=no_progress)
        due = await make_due(
            queue.waiting(), delayed, due_options, force=request.force, pace=lambda: MAX_DUE_PER_SECOND
        )

    def on_account(account: RetryAccount) -> None:
        nonlocal result
        remaining = max(0, total - account.settled)
        result = replace(result, account=account, waiting={"not counted again": remaining} if remaining else {})
        on_progress(result)

    last_answers = LastAnswers()
    last_answers.take_missing(answers)
    unfinished = await _watch(queue, request, options, total, due.unfinished, last_answers, on_account)
    if unfinished not in (None, GONE_WORKER_TEXT):
        return replace(result, unfinished=unfinished)
    async with lock():
        after = await _count(queue, request, options)
    return replace(result, waiting=after.waiting, unfinished=after.unfinished or unfinished)


async def _count(queue: Queue, request: RetryRequest, options: RepairOptions) -> RetryResult:
    """Count the pending deliveries. Raises QueueError."""
    filter_ = WaitingFilter(iss=request.key[0], client_id=request.key[1])
    reasons, asked, unfinished = Counter[str](), 0, None
    async with aclosing(find_messages(queue.waiting(), filter_)) as summaries:
        async for summary, _ in summaries:
            reasons[summary.reason] += 1
            asked += summary.asked and not request.force
            if options.stop():
                unfinished = STOPPED_TEXT
                break
    waiting = dict(reasons.most_common())
    return RetryResult(waited=waiting, waiting=waiting, asked=asked, unfinished=unfinished)


async def _watch(
    queue: Queue,
    request: RetryRequest,
    options: RepairOptions,
    total: int,
    unfinished: str | None,
    last_answers: LastAnswers,
    on_account: Callable[[RetryAccount], None],
) -> str | None:
    """Query the workers until they are done with the client; `on_account` receives each. Return why it ended early."""
    last = RetryAccount()
    quiet_since = news_at = options.steady()
    query = request_of(request.key, request.who, begin=False)
    while True:
        try:
            _, answers = await send_to_workers(queue, query, ANSWER_TIMEOUT_SECONDS)
        except QueueError as error:
            return unfinished or f"the queue went away, and nothing was lost: {error}"
        gone = last_answers.take_missing(answers)
        account = sum_of(answers, gone)
        news = account.counts != last.counts
        if news:
            news_at = options.steady()
        if account.busy or news:
            quiet_since = options.steady()
        if account.settled != last.settled:
            options.progress(min(account.settled, total), total)
        last = account
        on_account(account)
        if unfinished is not None or options.steady() - quiet_since > QUIET_SECONDS:
            return unfinished or (GONE_WORKER_TEXT if gone else None)
        if options.stop() or options.steady() - news_at > STUCK_SECONDS:
            return "no longer watched; the workers go on, and `notifier status` shows how far they are"
        await options.pause(QUERY_INTERVAL_SECONDS)
