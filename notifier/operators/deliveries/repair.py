"""Removes, replays and makes due dead letters and pending deliveries, for commands and the API. See `repair_pass`.

`RepairAudit` writes the lines of the audit log: the operator and the operation, but never `sub` or `sid`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Protocol, TypeVar

from notifier.model.documents.dead_letter import load_dead_letter
from notifier.model.message import Message, Transfer
from notifier.model.moment import format_moment
from notifier.model.shared_resources import shared_bound
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.dead_letter_summary import NEWER_RELEASE, DeadLetterSummary
from notifier.operators.deliveries.groups import Summary
from notifier.operators.deliveries.readmission import KeepReason, KeptDeadLetter, Readmission, ReplayRules, readmit
from notifier.operators.deliveries.repair_pass import REMOVE, Decision, Filter, KeptMessage, RepairPass, RepairResult
from notifier.operators.deliveries.waiting_filter import WaitingFilter, WaitingSummary, to_due_transfer
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import DeadLetters, WaitingDeliveries

MAX_LOGGED_IDS = 20  # IDs in one audit line
DISCARDED_ONE, CANCELLED_ONE = REMOVALS = ("dead_letter_discarded", "waiting_cancelled_one")
"""The actions of the lines that name one removed message. The lines of one repair by the API share a `repair_id`."""
MAX_DUE_PER_SECOND = shared_bound(1000.0)  # a quarter of what a worker can start: retries of other clients continue
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
            listed = sorted(value)
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

    return await RepairPass(filter_.open_pass(messages, whole=False), decide, options, report, filter_.ids).run()


async def replay(
    dead_letters: DeadLetters,
    filter_: DeadLetterFilter,
    rules: ReplayRules,
    options: RepairOptions,
    report: Callable[[DeadLetterSummary], None] = lambda _: None,
    *,
    on_readmission: Callable[[DeadLetterSummary, Readmission], None] = lambda _summary, _readmission: None,
) -> RepairResult:
    """Deliver the selected dead letters again, as far as `rules` permit. Never raises QueueError.

    `on_readmission` is called before a dead letter is replaced, also in a dry run, and `report` afterwards.
    """

    def decide(message: Message, summary: DeadLetterSummary) -> Decision:
        if summary.reason == NEWER_RELEASE:
            return KeptMessage(KeepReason.NEWER.value)
        readmission = readmit(load_dead_letter(message), rules, options.clock())
        if isinstance(readmission, KeptDeadLetter):
            return KeptMessage(readmission.reason.value)
        on_readmission(summary, readmission)
        return Transfer(taken=message, queue=readmission.queue, outgoing=readmission.outgoing)

    return await RepairPass(filter_.open_pass(dead_letters, whole=True), decide, options, report, filter_.ids).run()


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

    return await RepairPass(filter_.open_pass(waiting, whole=True), decide, options).run()
