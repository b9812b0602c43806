"""Replays dead letters and accounts for them, for the command and the API.

It first sends the IDs of the dead letters to the workers, which follow them (`replay_account`). Then it replays, and
queries the workers until every dead letter has a result, or no more results arrive. Ending the watching stops no
delivery. A dead letter of a source is parsed again by a worker, so its events are unknown beforehand and it is not
followed; neither are dead letters beyond `MAX_FOLLOWED_MESSAGES`.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from notifier.model.errors import QueueError
from notifier.model.message import Kind
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.dead_letter_summary import DeadLetterSummary
from notifier.operators.deliveries.readmission import Readmission, ReplayRules
from notifier.operators.deliveries.repair import replay
from notifier.operators.deliveries.repair_pass import RepairResult
from notifier.operators.deliveries.replay_account import ReplayAccount, follow_requests_of, results_request_of
from notifier.operators.deliveries.retry_now import QUERY_INTERVAL_SECONDS
from notifier.operators.status.worker_requests import (
    ANSWER_TIMEOUT_SECONDS,
    GONE_WORKER_TEXT,
    LastAnswers,
    send_to_workers,
)
from notifier.queues.passes import RepairOptions, no_progress
from notifier.queues.queue_port import Queue

MAX_FOLLOWED_MESSAGES = 10_000  # dead letters of one replay
QUIET_SECONDS = 3.0  # without new results, until the watching ends, if each dead letter has some result
UNREPORTED_SECONDS = 15.0  # the same while nothing is known of some: others are before them in the queue
NO_WORKER_TEXT = "no worker consumes the queue: they wait until one does; start one: notifier run"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """The dead letters to replay. `id` identifies this replay at the workers."""

    id: str
    who: str
    filter_: DeadLetterFilter
    rules: ReplayRules


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """The results of the replayed letters. `waiting` counts the unfinished deliveries.

    `not_followed` dead letters are not in the account. `answered` of `workers` reported; `unfinished` is the reason why
    the account is not final.
    """

    account: ReplayAccount = field(default_factory=ReplayAccount)
    waiting: int = 0
    not_followed: int = 0
    workers: int = 0
    answered: int = 0
    unfinished: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the JSON for scripts and the API."""
        return {
            **self.account.document(),
            "waiting": self.waiting,
            "not_followed": self.not_followed,
            "workers": {"seen": self.workers, "answered": self.answered},
            "unfinished": self.unfinished,
        }


class Replay:
    """One replay: `run` replays the dead letters, `watch` reports their results."""

    def __init__(self, queue: Queue, request: ReplayRequest) -> None:
        self._queue = queue
        self._request = request
        self._followed: dict[str, tuple[Kind, str]] = {}  # by ID
        self._replayed_counts: Counter[Kind] = Counter()
        self._is_following_requested = False
        self.reasons: Counter[str] = Counter()  # of the dead letters replayed so far

    async def run(self, options: RepairOptions, until: float | None = None) -> RepairResult:
        """Replay the letters. A further call continues; `until` then excludes dead letters that came back meanwhile.

        Never raises QueueError.
        """
        if not (options.dry_run or self._is_following_requested):
            self._is_following_requested = True
            await self._request_following(options)

        def on_replayed(summary: DeadLetterSummary) -> None:
            self.reasons[summary.reason] += 1
            if (followed := self._followed.pop(summary.id, None)) is not None:
                self._replayed_counts[followed[0]] += 1

        filter_ = self._request.filter_ if until is None else self._request.filter_.restrict_to_arrived_by(until)
        return await replay(self._queue.dead_letters(), filter_, self._request.rules, options, on_replayed)

    async def _request_following(self, options: RepairOptions) -> None:
        """Send the IDs of the dead letters to the workers. On failure the replay continues without an account."""
        limit = MAX_FOLLOWED_MESSAGES if options.limit is None else min(options.limit, MAX_FOLLOWED_MESSAGES)
        dry_run = replace(options, dry_run=True, limit=limit, progress=no_progress)

        def on_readmission(summary: DeadLetterSummary, readmission: Readmission) -> None:
            kind, message_id = readmission.outgoing.kind, readmission.outgoing.message_id
            if message_id and (kind is Kind.DELIVERY or kind is Kind.EVENT):
                self._followed[summary.id] = (kind, message_id)

        await replay(
            self._queue.dead_letters(),
            self._request.filter_,
            self._request.rules,
            dry_run,
            on_readmission=on_readmission,
        )
        ids = {kind: [id_ for of, id_ in self._followed.values() if of is kind] for kind in (Kind.DELIVERY, Kind.EVENT)}
        try:
            for follow_request in follow_requests_of(
                self._request.id, self._request.who, ids[Kind.DELIVERY], ids[Kind.EVENT]
            ):
                await send_to_workers(self._queue, follow_request, ANSWER_TIMEOUT_SECONDS)
        except QueueError:
            self._followed.clear()

    async def watch(
        self, options: RepairOptions, seconds: float, on_progress: Callable[[ReplayResult], None] = lambda _: None
    ) -> ReplayResult:
        """Query the workers until no more results are expected, for a limited number of seconds.

        `on_progress` receives the results so far. Never raises QueueError.
        """
        query, last_answers = results_request_of(self._request.id, self._request.who), LastAnswers()
        began_at = news_at = options.steady()
        result = ReplayResult(
            waiting=self._replayed_counts.total(), not_followed=self.reasons.total() - self._replayed_counts.total()
        )
        while self._replayed_counts:
            try:
                workers, answers = await send_to_workers(self._queue, query, ANSWER_TIMEOUT_SECONDS)
            except QueueError as error:
                return replace(result, unfinished=f"the queue went away, and nothing was lost: {error}")
            if not workers:
                return replace(result, unfinished=NO_WORKER_TEXT)
            gone = last_answers.take_missing(answers)
            account = ReplayAccount.sum_of([*answers, *gone])
            if account.counts != result.account.counts:
                news_at = options.steady()
            result = replace(
                result,
                account=account,
                waiting=account.count_waiting(self._replayed_counts[Kind.DELIVERY], self._replayed_counts[Kind.EVENT]),
                workers=workers,
                answered=sum(answer.problem is None for answer in answers),
                unfinished=GONE_WORKER_TEXT if gone else None,
            )
            on_progress(result)
            patience = QUIET_SECONDS if account.heard >= self._replayed_counts.total() else UNREPORTED_SECONDS
            if not result.waiting or options.steady() - news_at > patience:
                break
            if options.stop() or options.steady() - began_at > seconds:
                return replace(result, unfinished="no longer watched; the workers go on")
            await options.pause(QUERY_INTERVAL_SECONDS)
        return result
