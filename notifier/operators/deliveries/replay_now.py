"""Replays dead letters and reports the results of their deliveries, for the command and the API.

`Replay.run` first sends the IDs of the dead letters to the workers, which then count their results (`replay_account`).
`Replay.watch` queries the workers until every dead letter has a result, or no more results arrive. Ending `watch` stops
no delivery. Only MAX_FOLLOWED_MESSAGES dead letters are followed, and no messages of sources: which events they contain
is unknown until a worker has parsed them.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from notifier.model.errors import QueueError
from notifier.model.message import Kind
from notifier.model.printable import counted
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.dead_letter_summary import DeadLetterSummary
from notifier.operators.deliveries.readmission import Readmission, ReplayRules
from notifier.operators.deliveries.repair import RepairPace, repair_at_rate, replay, time_passes
from notifier.operators.deliveries.repair_result import RESULTS_UNAVAILABLE_TEXT, RepairResult, log_queue_failure
from notifier.operators.deliveries.replay_account import (
    MAX_FOLLOWED_MESSAGES,
    UNREAD_ACCOUNT_SECONDS,
    ReplayAccount,
    make_follow_requests,
    make_results_request,
)
from notifier.operators.deliveries.retry_now import QUERY_INTERVAL_SECONDS
from notifier.operators.status.worker_requests import (
    ANSWER_TIMEOUT_SECONDS,
    GONE_WORKER_TEXT,
    LastAnswers,
    send_to_workers,
)
from notifier.queues.passes import RepairOptions, no_progress
from notifier.queues.queue_port import DeadLetters, Queue

QUIET_SECONDS = 3.0  # seconds without new results after which `watch` ends, once every dead letter has a result
UNREPORTED_SECONDS = 15.0  # likewise, while some have none: other messages may be before them in the queue
NO_WORKER_TEXT = "no worker consumes the queue: they wait until one does; start one: notifier run"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """The dead letters to replay, and the rules. `id` identifies this replay at the workers."""

    id: str
    who: str
    filter_: DeadLetterFilter
    rules: ReplayRules


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """The results of the replayed dead letters. `waiting` counts the unfinished deliveries and events.

    `not_followed` counts the dead letters whose results are not in the account: those beyond the first
    MAX_FOLLOWED_MESSAGES or, if `changed_by_others`, those that took the place of dead letters which others removed
    meanwhile. `answered` of all `workers` have sent an account. `unfinished` is the reason why the account is not
    final.
    """

    account: ReplayAccount = field(default_factory=ReplayAccount)
    waiting: int = 0
    not_followed: int = 0
    changed_by_others: bool = False
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

    def format_lines(self) -> list[str]:
        """Return the results as lines of text."""
        results, lines = self.account.results, list[str]()
        if self.workers:
            lines += results.format_lines("given up again: notifier dead-letters list")
            if self.account.skipped:
                lines.append(f"{self.account.skipped:,} skipped: no address, or session_only")
            if self.waiting:
                lines.append(f"{self.waiting:,} wait{'s' if self.waiting == 1 else ''}: notifier waiting list")
                lines += [f"  {cause}" for cause in results.put_off]
        if self.not_followed:
            why = (
                "somebody changed the dead letters meanwhile" if self.changed_by_others else "so many are not followed"
            )
            text = f"{counted(self.not_followed, 'replayed dead letter')} with unknown results, since {why}"
            lines.append(f"{text}: notifier dead-letters list shows those that were given up again")
        if self.workers > self.answered:
            lines.append(
                f"{counted(self.workers - self.answered, 'worker')} did not answer: the figures leave out what it does"
            )
        if self.unfinished is not None:
            lines.append(self.unfinished)
        return lines


class Replay:
    """One replay: `run` replays the dead letters, `watch` reports their results."""

    def __init__(self, queue: Queue, dead_letters: DeadLetters, request: ReplayRequest) -> None:
        self._queue = queue
        self._dead_letters = dead_letters
        self._request = request
        self._results_request = make_results_request(request.id, request.who)
        self._asked_at = 0.0
        self._followed: dict[str, tuple[Kind, str]] = {}  # by dead letter ID: kind and ID of the new message
        self._replayed_counts: Counter[Kind] = Counter()  # of followed dead letters
        self._wanted_count = 0
        self.reasons: Counter[str] = Counter()  # of all dead letters that were replayed so far

    async def run(
        self, options: RepairOptions, on_result: Callable[[RepairResult], None] = lambda _: None
    ) -> RepairResult:
        """Replay the dead letters at the rate of `options`. `on_result` receives the result so far.

        Progress counts replayed dead letters, of all that will be replayed. Never raises QueueError.
        """
        pass_seconds = 0.0 if options.dry_run else await self._prepare(options)
        self._asked_at = options.monotonic()
        replayed_ids = set[str]()  # of the filter's IDs

        def on_replayed(summary: DeadLetterSummary) -> None:
            self.reasons[summary.reason] += 1
            options.progress(self.reasons.total(), max(self._wanted_count, self.reasons.total()))
            if summary.id in self._request.filter_.ids:
                replayed_ids.add(summary.id)
            if (followed := self._followed.pop(summary.id, None)) is not None:
                kind, _ = followed
                self._replayed_counts[kind] += 1

        async def run_pass(
            pass_options: RepairOptions, arrived_by: float | None, pace: RepairPace | None
        ) -> RepairResult:
            filter_ = self._request.filter_.restrict_to_arrived_by(arrived_by)
            rules = self._request.rules
            result = await replay(self._dead_letters, filter_, rules, pass_options, on_replayed, pace=pace)
            await self._keep_accounts(options.monotonic())
            return result

        quiet = options if options.dry_run else replace(options, progress=no_progress)
        result = await repair_at_rate(run_pass, quiet, on_result, pass_seconds)
        return replace(result, missing=result.missing - replayed_ids)

    async def _prepare(self, options: RepairOptions) -> float:
        """Count the dead letters by a dry run, and send their IDs to the workers. Return the seconds of the dry run.

        If the queue fails, the replay continues, but no dead letter is followed.
        """
        dry_run, get_held_seconds = time_passes(replace(options, dry_run=True, progress=no_progress))

        def on_readmission(summary: DeadLetterSummary, readmission: Readmission) -> None:
            kind, message_id = readmission.outgoing.kind, readmission.outgoing.message_id
            is_followed = message_id and len(self._followed) < MAX_FOLLOWED_MESSAGES
            if is_followed and (kind is Kind.DELIVERY or kind is Kind.EVENT):
                self._followed[summary.id] = (kind, message_id)

        filter_, rules = self._request.filter_, self._request.rules
        result = await replay(self._dead_letters, filter_, rules, dry_run, on_readmission=on_readmission)
        pass_seconds = get_held_seconds()
        self._wanted_count = result.done
        deliveries = [id_ for kind, id_ in self._followed.values() if kind is Kind.DELIVERY]
        events = [id_ for kind, id_ in self._followed.values() if kind is Kind.EVENT]
        try:
            for follow_request in make_follow_requests(self._request.id, self._request.who, deliveries, events):
                await send_to_workers(self._queue, follow_request, ANSWER_TIMEOUT_SECONDS)
        except QueueError:
            self._followed.clear()
        return pass_seconds

    async def _keep_accounts(self, now: float) -> None:
        """Query the workers from time to time, since they forget an account that nobody reads."""
        if self._replayed_counts and now - self._asked_at > UNREAD_ACCOUNT_SECONDS / 4:
            self._asked_at = now
            with suppress(QueueError):
                await send_to_workers(self._queue, self._results_request, ANSWER_TIMEOUT_SECONDS)

    async def watch(
        self, options: RepairOptions, seconds: float, on_progress: Callable[[ReplayResult], None] = lambda _: None
    ) -> ReplayResult:
        """Query the workers until no more results are expected, for `seconds` at most.

        `on_progress` receives the results so far. Never raises QueueError.
        """
        query, last_answers = self._results_request, LastAnswers()
        began_at = changed_at = options.monotonic()
        not_followed = self.reasons.total() - self._replayed_counts.total()
        result = ReplayResult(
            waiting=self._replayed_counts.total(), not_followed=not_followed,
            changed_by_others=0 < not_followed < self.reasons.total() and self._wanted_count <= MAX_FOLLOWED_MESSAGES,
        )  # fmt: skip
        while self._replayed_counts:
            try:
                workers, answers = await send_to_workers(self._queue, query, ANSWER_TIMEOUT_SECONDS)
            except QueueError as error:
                log_queue_failure(error)
                return replace(result, unfinished=RESULTS_UNAVAILABLE_TEXT)
            if not workers:
                return replace(result, unfinished=NO_WORKER_TEXT)
            ended_workers = last_answers.find_missing(answers)
            last_answers.store(answers)
            account = ReplayAccount.sum_of([*answers, *ended_workers])
            if account.counts != result.account.counts:
                changed_at = options.monotonic()
            result = replace(
                result,
                account=account,
                waiting=account.count_waiting(self._replayed_counts[Kind.DELIVERY], self._replayed_counts[Kind.EVENT]),
                workers=workers,
                answered=sum(answer.problem is None for answer in answers),
                unfinished=GONE_WORKER_TEXT if ended_workers else None,
            )
            on_progress(result)
            quiet_limit = QUIET_SECONDS if account.reported >= self._replayed_counts.total() else UNREPORTED_SECONDS
            if not result.waiting or options.monotonic() - changed_at > quiet_limit:
                break
            if options.stop() or options.monotonic() - began_at > seconds:
                return replace(result, unfinished="no longer watched; the workers go on")
            await options.pause(QUERY_INTERVAL_SECONDS)
        return result
