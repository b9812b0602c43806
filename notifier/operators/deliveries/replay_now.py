"""Replays dead letters and accounts for them, for the command and the API.

It first sends the IDs of the letters to the workers, which follow them (`replay_account`). Then it replays, and
queries the workers until every letter has a result, or no more results arrive. Ending the watching stops no delivery. A
letter of a source is parsed again by a worker, so its events are unknown beforehand and it is not followed; neither are
letters beyond `FOLLOWED`.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from notifier.model.errors import QueueError
from notifier.model.message import Kind
from notifier.operators.deliveries.dead_letter_summary import DeadLetterSummary
from notifier.operators.deliveries.delivery_filter import DeliveryFilter
from notifier.operators.deliveries.readmission import Readmitted, ReplayRules
from notifier.operators.deliveries.repair import replay
from notifier.operators.deliveries.replay_account import ReplayAccount, question_of, requests_of
from notifier.operators.deliveries.retry_now import LOOK_EVERY
from notifier.operators.deliveries.visits import RepairResult
from notifier.operators.status.worker_requests import ANSWER_WITHIN, GONE, LastAnswers, ask_workers_to
from notifier.queues.passes import RepairOptions, no_progress
from notifier.queues.queue_port import Queue

FOLLOWED = 10_000  # letters of one replay
QUIET = 3.0  # seconds without news, after which nothing more happens soon, if something is known of each letter
UNHEARD = 15.0  # the same while nothing is known of some: others are before them in the queue
NO_WORKER = "no worker consumes the queue: they wait until one does; start one: notifier run"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayWish:
    """The letters to replay. `id` identifies this replay at the workers."""

    id: str
    who: str
    chosen: DeliveryFilter
    rules: ReplayRules


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """The results of the replayed letters. `waiting` counts the unfinished deliveries.

    `not_followed` letters are not in the account. `answered` of `workers` reported; `unfinished` is the reason why the
    account is not final.
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
    """One replay: `run` replays the letters, `watch` reports their results."""

    def __init__(self, queue: Queue, wish: ReplayWish) -> None:
        self._queue = queue
        self._wish = wish
        self._letters: dict[str, tuple[Kind, str]] = {}  # by id, those that the workers follow
        self._moved: Counter[Kind] = Counter()
        self._named = False
        self.reasons: Counter[str] = Counter()  # of those that were replayed by now

    async def run(self, options: RepairOptions, until: float | None = None) -> RepairResult:
        """Replay the letters. A further call continues; `until` then excludes letters that came back meanwhile.

        Never raises QueueError.
        """
        if not (options.dry_run or self._named):
            self._named = True
            await self._have_followed(options)

        def note(summary: DeadLetterSummary) -> None:
            self.reasons[summary.reason] += 1
            if (letter := self._letters.pop(summary.id, None)) is not None:
                self._moved[letter[0]] += 1

        chosen = self._wish.chosen if until is None else self._wish.chosen.come_by(until)
        return await replay(self._queue.dead_letters(), chosen, self._wish.rules, options, note)

    async def _have_followed(self, options: RepairOptions) -> None:
        """Send the IDs of the letters to the workers. On failure the replay continues without an account."""
        limit = FOLLOWED if options.limit is None else min(options.limit, FOLLOWED)
        look = replace(options, dry_run=True, limit=limit, progress=no_progress)

        def see(summary: DeadLetterSummary, readmitted: Readmitted) -> None:
            kind, message_id = readmitted.outgoing.kind, readmitted.outgoing.message_id
            if message_id and (kind is Kind.DELIVERY or kind is Kind.EVENT):
                self._letters[summary.id] = (kind, message_id)

        await replay(self._queue.dead_letters(), self._wish.chosen, self._wish.rules, look, readmitted=see)
        ids = {kind: [id_ for of, id_ in self._letters.values() if of is kind] for kind in (Kind.DELIVERY, Kind.EVENT)}
        try:
            for request in requests_of(self._wish.id, self._wish.who, ids[Kind.DELIVERY], ids[Kind.EVENT]):
                await ask_workers_to(self._queue, request, ANSWER_WITHIN)
        except QueueError:
            self._letters.clear()

    async def watch(
        self, options: RepairOptions, seconds: float, tell: Callable[[ReplayResult], None] = lambda _: None
    ) -> ReplayResult:
        """Query the workers until no more results are expected, for a limited number of seconds.

        `tell` receives the results so far. Never raises QueueError.
        """
        question, heard = question_of(self._wish.id, self._wish.who), LastAnswers()
        began = news_at = options.steady()
        known = ReplayResult(waiting=self._moved.total(), not_followed=self.reasons.total() - self._moved.total())
        while self._moved:
            try:
                workers, answers = await ask_workers_to(self._queue, question, ANSWER_WITHIN)
            except QueueError as error:
                return replace(known, unfinished=f"the queue went away, and nothing was lost: {error}")
            if not workers:
                return replace(known, unfinished=NO_WORKER)
            gone = heard.gone(answers)
            account = ReplayAccount.sum_of([*answers, *gone])
            if account.counts != known.account.counts:
                news_at = options.steady()
            known = replace(
                known,
                account=account,
                waiting=account.waiting(self._moved[Kind.DELIVERY], self._moved[Kind.EVENT]),
                workers=workers,
                answered=sum(answer.problem is None for answer in answers),
                unfinished=GONE if gone else None,
            )
            tell(known)
            patience = QUIET if account.heard >= self._moved.total() else UNHEARD
            if not known.waiting or options.steady() - news_at > patience:
                break
            if options.stop() or options.steady() - began > seconds:
                return replace(known, unfinished="no longer watched; the workers go on")
            await options.pause(LOOK_EVERY)
        return known
