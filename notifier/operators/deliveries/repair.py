"""Removes, replays and makes due dead letters and pending deliveries, for commands and the API. See `repair_pass`.

`RepairAudit` writes the lines of the audit log: the operator and the operation, but never `sub` or `sid`.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar

from notifier.model.backoff import MIN_WAIT_SECONDS
from notifier.model.documents.dead_letter import load_dead_letter
from notifier.model.documents.documents import add_due
from notifier.model.message import Message, Transfer
from notifier.model.moment import format_moment
from notifier.model.printable import excerpt
from notifier.model.shared_resources import shared_bound
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.dead_letter_summary import NEWER_RELEASE, DeadLetterSummary
from notifier.operators.deliveries.groups import Summary
from notifier.operators.deliveries.readmission import KeepReason, KeptDeadLetter, Readmission, ReplayRules, readmit
from notifier.operators.deliveries.repair_pass import REMOVE, Decision, Filter, KeptMessage, RepairPass
from notifier.operators.deliveries.repair_result import STOPPED_TEXT, RepairResult, format_limit
from notifier.operators.deliveries.waiting_filter import WaitingFilter, WaitingSummary, to_due_transfer
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import DeadLetters, WaitingDeliveries

MAX_LOGGED_IDS = 20  # IDs in one audit line
MAX_LOGGED_NAME_CHARACTERS = 300  # of each ID
DISCARDED_ONE, CANCELLED_ONE = REMOVALS = ("dead_letter_discarded", "waiting_cancelled_one")
"""The actions of the lines that name one removed message. The lines of one repair by the API share a `repair_id`."""
MAX_DUE_PER_SECOND = shared_bound(1000.0)  # a quarter of what a worker can start: retries of other clients continue
MIN_PASS_INTERVAL_SECONDS = 1.0  # seconds between the beginnings of two passes with a rate
PAUSE_PER_PASS = 9.0  # pause between two passes with a rate, as a multiple of the duration of a pass
DUE_EARLIER = "earlier"  # reason to keep a delivery: it is due before `make_due` would make it due
CLIENT_DELAY = "asked"  # reason to keep a delivery: its client requested the delay


class WriteAudit(Protocol):
    """The port through which an action is logged."""

    def __call__(self, action: str, **details: object) -> None:
        """Write one line of the audit log, whatever the log level is."""


def mask_subject(_subject: str) -> str:
    """Return the placeholder for a `sub` or `sid` in the log, if no key to hash it is configured."""
    return "[given]"


class RepairAudit:
    """Writes the audit lines of repairs, of reads of whole dead letters, and of searches for a user or an event.

    `subject_id` returns what the log shows in place of a `sub` or `sid`.
    """

    def __init__(self, write: WriteAudit, subject_id: Callable[[str], str] = mask_subject) -> None:
        self._write = write
        self._subject_id = subject_id

    def log_repair(
        self, action: str, who: str, filter_: Filter[Any, Any], result: RepairResult, **details: object
    ) -> None:
        """Log the result of a repair. `action` is `replayed`, `discarded` or `cancelled`."""
        are_dead_letters = isinstance(filter_, DeadLetterFilter)
        self._write(
            f"dead_letters_{action}" if are_dead_letters else f"waiting_{action}",
            who=who,
            done=result.done,
            by_reason=dict(result.by_reason),
            **({"kept": dict(result.kept)} if are_dead_letters else {}),
            unfinished=result.unfinished,
            wanted=format_conditions(filter_, self._subject_id),
            **details,
        )

    def log_removal(self, who: str, summary: Summary, **details: object) -> None:
        """Log one dead letter that was discarded, or one delivery that was cancelled."""
        action, omitted = CANCELLED_ONE, ("text", "asked")
        if isinstance(summary, DeadLetterSummary):
            action, omitted = DISCARDED_ONE, ("text", "attempts")
        members = {name: value for name, value in summary.document().items() if name not in omitted}
        self._write(action, who=who, **members, **details)

    def log_job_end(self, who: str, job: str) -> None:
        """Log that an operator ended a job. The job logs its result separately."""
        self._write("job_ended", who=who, id=job)

    def log_read(self, action: str, who: str, filter_: Filter[Any, Any]) -> None:
        """Log that an operator reads whole dead letters, with `sub` and `sid`, or searches.

        `action` is `shown`, `exported` or `looked_for`.
        """
        queue = "dead_letters" if isinstance(filter_, DeadLetterFilter) else "waiting"
        self._write(f"{queue}_{action}", who=who, wanted=format_conditions(filter_, self._subject_id))

    def log_search(self, who: str, filter_: Filter[Any, Any]) -> None:
        """Log a read if its conditions select a user, a session or an event. Other reads are not logged."""
        if format_conditions(filter_).keys() & {"subject", "event_id"}:
            self.log_read("looked_for", who, filter_)


def format_conditions(
    filter_: Filter[Any, Any], subject_id: Callable[[str], str] = mask_subject
) -> Mapping[str, object]:
    """Return the conditions of the filter for the log: `subject_id` replaces the `sub` or `sid`.

    A member that is None, empty or a bool (`parked`) is not a condition. Without conditions, return `all`.
    """
    names = [member.name for member in fields(filter_) if "unlogged" not in member.metadata]
    members = {name: getattr(filter_, name) for name in names}
    if members.get("subject") is not None:
        members["subject"] = subject_id(members["subject"])
    conditions = {
        name: _format_condition(name, value)
        for name, value in members.items()
        if value not in (None, "", frozenset()) and not isinstance(value, bool)
    }
    return conditions or {"all": True}


def _format_condition(name: str, value: object) -> object:
    """Return a condition for the log: a set as a sorted list, with MAX_LOGGED_IDS IDs at most, and a time as text."""
    match value:
        case frozenset():
            listed = [excerpt(each, MAX_LOGGED_NAME_CHARACTERS) for each in sorted(value)]
            return listed if name != "ids" or len(listed) <= MAX_LOGGED_IDS else [*listed[:MAX_LOGGED_IDS], "…"]
        case float():
            return format_moment(value)
        case _:
            return value


P = TypeVar("P")
S = TypeVar("S", bound=Summary)


async def remove(
    messages: P, filter_: Filter[P, S], options: RepairOptions, report: Callable[[S], None] = lambda _: None
) -> RepairResult:
    """Delete the selected messages permanently: their clients are not notified. Never raises QueueError.

    `report` receives the summary of each deleted message. Dead letters that a newer release wrote are not deleted.
    """

    def decide(_message: Message, summary: S) -> Decision:
        return KeptMessage(KeepReason.NEWER.value) if summary.reason == NEWER_RELEASE else REMOVE

    open_pass = partial(filter_.open_pass, messages, whole=False)
    return await RepairPass(open_pass, decide, options, report, filter_.ids).run()


class RepairPace:
    """Spreads repaired messages over time: `rate` a second, none before its turn. `monotonic` never jumps."""

    def __init__(self, rate: float, monotonic: Callable[[], float]) -> None:
        self._rate = rate
        self._monotonic = monotonic
        self.next_turn_at = -math.inf

    def take_turn(self) -> float:
        """Return the seconds until the next turn, which is taken."""
        now = self._monotonic()
        turn_at = max(now, self.next_turn_at)
        self.next_turn_at = turn_at + 1 / self._rate
        return turn_at - now

    def turns_until(self, moment: float) -> int:
        """Return the number of turns before the moment, rounded up; at least 1."""
        return max(1, math.ceil(self._rate * (moment - max(self._monotonic(), self.next_turn_at))))


async def replay(
    dead_letters: DeadLetters,
    filter_: DeadLetterFilter,
    rules: ReplayRules,
    options: RepairOptions,
    report: Callable[[DeadLetterSummary], None] = lambda _: None,
    *,
    pace: RepairPace | None = None,
    on_readmission: Callable[[DeadLetterSummary, Readmission], None] = lambda _summary, _readmission: None,
) -> RepairResult:
    """Deliver the selected dead letters again, as far as `rules` permit. Never raises QueueError.

    With `pace`, each becomes due at its turn. `on_readmission` is called before a dead letter is replaced, also in a
    dry run, and `report` afterwards.
    """

    def decide(message: Message, summary: DeadLetterSummary) -> Decision:
        if summary.reason == NEWER_RELEASE:
            return KeptMessage(KeepReason.NEWER.value)
        readmission = readmit(load_dead_letter(message), rules, options.clock())
        if isinstance(readmission, KeptDeadLetter):
            return KeptMessage(readmission.reason.value)
        on_readmission(summary, readmission)
        wait = 0.0 if pace is None else pace.take_turn()
        if wait < MIN_WAIT_SECONDS:
            return Transfer(taken=message, queue=readmission.queue, outgoing=readmission.outgoing)
        outgoing = add_due(readmission.outgoing, options.clock() + wait)
        return Transfer(taken=message, queue=readmission.queue, outgoing=outgoing, wait=wait)

    open_pass = partial(filter_.open_pass, dead_letters, whole=True)
    return await RepairPass(open_pass, decide, options, report, filter_.ids).run()


async def make_due(
    waiting: WaitingDeliveries,
    filter_: WaitingFilter,
    options: RepairOptions,
    *,
    force: bool,
    pace: Callable[[str], float] = lambda _iss: math.inf,
) -> RepairResult:
    """Make the selected delayed deliveries due, one after the other, at the rate of `pace`. Never raises QueueError.

    `pace` is called with the issuer of each of these deliveries, and returns the current rate in deliveries per second.
    A delivery that is due earlier stays unchanged. Without `force`, so does a delay that the client requested.
    """
    next_turn_at = options.clock()

    def decide(message: Message, summary: WaitingSummary) -> Decision:
        nonlocal next_turn_at
        if summary.asked and not force:
            return KeptMessage(CLIENT_DELAY)
        turn_at = next_turn_at
        next_turn_at += 1 / pace(summary.iss)
        if summary.due is not None and summary.due <= turn_at:
            return KeptMessage(DUE_EARLIER)
        return to_due_transfer(message, turn_at, options.clock())

    return await RepairPass(partial(filter_.open_pass, waiting, whole=True), decide, options).run()


def time_passes(options: RepairOptions) -> tuple[RepairOptions, Callable[[], float]]:
    """Return options, and a function that returns the seconds since a pass with them last began to hold messages."""
    held_at = options.monotonic()

    def on_hold(read_share: float | None) -> None:
        nonlocal held_at
        if read_share == 0.0:
            held_at = options.monotonic()
        options.on_hold(read_share)

    return replace(options, on_hold=on_hold), lambda: options.monotonic() - held_at


RunPass: TypeAlias = Callable[[RepairOptions, float | None, RepairPace | None], Awaitable[RepairResult]]
"""Runs one pass over the messages that arrived until a moment (epoch seconds; None: over all), at a pace."""


async def repair_at_rate(
    run_pass: RunPass,
    options: RepairOptions,
    on_result: Callable[[RepairResult], None] = lambda _: None,
    pass_seconds: float = 0.0,
) -> RepairResult:
    """Repair messages in one pass or, with a rate, in short passes. Never raises QueueError.

    Each pass changes as many messages as have their turn until the end of the next. The pause before the next is
    PAUSE_PER_PASS times as long as a pass, so others have access to the messages for most of the time. `on_result`
    receives the result so far. `pass_seconds`: how long a pass is expected to take.
    """
    if options.rate is None or options.dry_run:
        result = await run_pass(options, None, None)
        on_result(result)
        return result
    monotonic, began_at = options.monotonic, options.clock()
    timed_options, get_held_seconds = time_passes(options)
    total, pace = RepairResult(done=0, by_reason={}), RepairPace(options.rate, options.monotonic)
    arrived_by = None
    while True:
        interval = max(MIN_PASS_INTERVAL_SECONDS, (1 + PAUSE_PER_PASS) * pass_seconds)
        limit = pace.turns_until(monotonic() + interval)
        if options.limit is not None:
            limit = min(limit, options.limit - total.done)
        total = total.add(await run_pass(replace(timed_options, limit=limit), arrived_by, pace))
        on_result(total)
        if not total.limited:
            return total
        if total.done == options.limit:
            return replace(total, unfinished=format_limit(options.limit))
        pass_seconds, arrived_by = get_held_seconds(), began_at  # a replayed delivery may fail again
        while (wait_seconds := pace.next_turn_at - pass_seconds - monotonic()) > 0 or options.stop():
            if options.stop():
                return replace(total, unfinished=STOPPED_TEXT, limited=False)
            await options.pause(wait_seconds)
