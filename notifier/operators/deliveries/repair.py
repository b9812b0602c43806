"""Repairs dead letters and pending deliveries, oldest first, for commands and the API, and writes the audit lines.

An audit line names the operator and the operation. It never has `sub` or `sid`. See `repair_pass`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Protocol, TypeVar

from notifier.model.documents.dead_letter import load_dead_letter
from notifier.model.message import Message, Transfer
from notifier.model.moment import format_moment
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.dead_letter_summary import NEWER_RELEASE, DeadLetterSummary
from notifier.operators.deliveries.groups import Summary
from notifier.operators.deliveries.readmission import KeepReason, KeptDeadLetter, Readmission, ReplayRules, readmit
from notifier.operators.deliveries.repair_pass import REMOVE, Decision, Filter, KeptMessage, RepairPass, RepairResult
from notifier.operators.deliveries.waiting_filter import WaitingFilter, WaitingSummary, to_due_transfer
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import DeadLetters, WaitingDeliveries

MAX_LOGGED_IDS = 20  # IDs in one audit line
MAX_DUE_PER_SECOND = (
    1000.0  # a second that are made due: a worker takes four times as many, so that others' retries go on
)
DUE_EARLIER = "earlier"  # why one stays: its turn would come later than it comes itself
CLIENT_DELAY = "asked"  # why one stays: its client is not to be called before


class WriteAudit(Protocol):
    """Writes one line of the audit log."""

    def __call__(self, action: str, **details: object) -> None:
        """Write the line at any log level."""


def mask_subject(_subject: str) -> str:
    """Return the placeholder of a `sub` or `sid` where no configured key hashes it."""
    return "[given]"


class RepairAudit:
    """Logs each repair, each read of whole dead letters, and each search for a user or an event.

    `subject_id` returns what the log shows in place of a `sub` or `sid`.
    """

    def __init__(self, write: WriteAudit, subject_id: Callable[[str], str] = mask_subject) -> None:
        self._write = write
        self._subject_id = subject_id

    def log_repair(
        self, action: str, who: str, filter_: Filter[Any, Any], result: RepairResult, **more: object
    ) -> None:
        """Log a replay, a discard or a cancellation by its result: `replayed`, `discarded`, `cancelled`."""
        are_dead_letters = isinstance(filter_, DeadLetterFilter)
        self._write(
            f"dead_letters_{action}" if are_dead_letters else f"waiting_{action}",
            who=who,
            done=result.done,
            by_reason=dict(result.by_reason),
            **({"kept": dict(result.kept)} if are_dead_letters else {}),
            unfinished=result.unfinished,
            wanted=format_conditions(filter_, self._subject_id),
            **more,
        )

    def log_removal(self, who: str, summary: Summary) -> None:
        """Log one dead letter that was discarded, or one delivery that was cancelled. It cannot come back."""
        action, hidden = "waiting_cancelled_one", ("text", "asked")
        if isinstance(summary, DeadLetterSummary):
            action, hidden = "dead_letter_discarded", ("text", "attempts")
        self._write(
            action, who=who, **{name: value for name, value in summary.document().items() if name not in hidden}
        )

    def log_job_end(self, who: str, job: str) -> None:
        """Log that an operator ended a job. The job logs its result separately."""
        self._write("job_ended", who=who, id=job)

    def log_read(self, action: str, who: str, filter_: Filter[Any, Any]) -> None:
        """Log that an operator reads whole dead letters with `sub` and `sid`, or searches for a user: `looked_for`."""
        queue = "dead_letters" if isinstance(filter_, DeadLetterFilter) else "waiting"
        self._write(f"{queue}_{action}", who=who, wanted=format_conditions(filter_, self._subject_id))

    def log_search(self, who: str, filter_: Filter[Any, Any]) -> None:
        """Log a read that selects a user, a session or an event; other reads select nobody in particular."""
        if format_conditions(filter_).keys() & {"subject", "event_id"}:
            self.log_read("looked_for", who, filter_)


def format_conditions(
    filter_: Filter[Any, Any], subject_id: Callable[[str], str] = mask_subject
) -> Mapping[str, object]:
    """Return the given conditions in a form that may be logged."""
    chosen_by = (member for member in fields(filter_) if "aside" not in member.metadata)
    members = {member.name: getattr(filter_, member.name) for member in chosen_by}
    if (subject := members.get("subject")) is not None:
        members["subject"] = subject_id(subject)
    conditions = {
        name: _format_condition(name, value) for name, value in members.items() if value and value is not True
    }
    return conditions or {"all": True}


def _format_condition(name: str, value: object) -> object:
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
    """Delete the selected messages permanently: their clients are not notified. `report` receives each summary.

    Messages that a newer release wrote stay among the dead letters.
    """

    def decide(_message: Message, summary: S) -> Decision:
        return KeptMessage(KeepReason.NEWER.value) if summary.reason == NEWER_RELEASE else REMOVE

    return await RepairPass(filter_.open_visit(messages, whole=False), decide, options, report, filter_.ids).run()


async def replay(
    dead_letters: DeadLetters,
    filter_: DeadLetterFilter,
    rules: ReplayRules,
    options: RepairOptions,
    report: Callable[[DeadLetterSummary], None] = lambda _: None,
    *,
    on_readmission: Callable[[DeadLetterSummary, Readmission], None] = lambda _letter, _readmitted: None,
) -> RepairResult:
    """Deliver the matching dead letters again. `report` receives each summary, `on_readmission` the new message too."""

    def decide(message: Message, summary: DeadLetterSummary) -> Decision:
        if summary.reason == NEWER_RELEASE:
            return KeptMessage(KeepReason.NEWER.value)
        readmission = readmit(load_dead_letter(message), rules, options.clock())
        if isinstance(readmission, KeptDeadLetter):
            return KeptMessage(readmission.reason.value)
        on_readmission(summary, readmission)
        return Transfer(taken=message, queue=readmission.queue, outgoing=readmission.outgoing)

    return await RepairPass(filter_.open_visit(dead_letters, whole=True), decide, options, report, filter_.ids).run()


async def make_due(
    waiting: WaitingDeliveries,
    filter_: WaitingFilter,
    options: RepairOptions,
    *,
    force: bool,
    pace: Callable[[], float] = lambda: math.inf,
) -> RepairResult:
    """Attempt delayed deliveries now. Without `force`, deliveries that their client asked to delay stay.

    `pace` is called for each delivery and returns how many to attempt per second. A delivery is attempted at its turn,
    or when it is due if that is earlier.
    """
    next_at = options.clock()

    def decide(message: Message, summary: WaitingSummary) -> Decision:
        nonlocal next_at
        if summary.asked and not force:
            return KeptMessage(CLIENT_DELAY)
        at, next_at = next_at, next_at + 1 / pace()
        if summary.due is not None and summary.due <= at:
            return KeptMessage(DUE_EARLIER)
        return to_due_transfer(message, at, options.clock())

    return await RepairPass(filter_.open_visit(waiting, whole=True), decide, options).run()
