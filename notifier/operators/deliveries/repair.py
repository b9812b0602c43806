"""Repairs dead letters and pending deliveries, oldest first, for commands and the API, and writes the audit lines.

An audit line names the operator and the operation. It never has `sub` or `sid`. See `visits`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Protocol, TypeVar, cast

from notifier.model.documents.dead_letter import load_dead_letter
from notifier.model.message import Message, Transfer
from notifier.model.moment import render_moment
from notifier.operators.deliveries.dead_letter_summary import NEWER, DeadLetterSummary
from notifier.operators.deliveries.delivery_filter import DeliveryFilter
from notifier.operators.deliveries.groups import Summary
from notifier.operators.deliveries.readmission import KeepReason, KeptDeadLetter, Readmitted, ReplayRules, readmit
from notifier.operators.deliveries.visits import REMOVE, Decision, Filter, KeptMessage, Pass, RepairResult
from notifier.operators.deliveries.waiting_filter import WaitingFilter, WaitingSummary, due_in
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import DeadLetters, WaitingDeliveries

NAMED = 20  # IDs in one audit line
DUE_RATE = 1000.0  # a second that are made due: a worker takes four times as many, so that others' retries go on
EARLIER = "earlier"  # why one stays: its turn would come later than it comes itself
ASKED = "asked"  # why one stays: its client is not to be called before


class WriteAudit(Protocol):
    """Writes one line of the audit log."""

    def __call__(self, action: str, **details: object) -> None:
        """Write the line at any log level."""


def given(_subject: str) -> str:
    """Return the placeholder of a `sub` or `sid` where no configured key hashes it."""
    return "[given]"


class RepairAudit:
    """Logs each repair, each read of whole letters, and each search for a user or an event.

    `subject_id` returns what the log shows in place of a `sub` or `sid`.
    """

    def __init__(self, write: WriteAudit, subject_id: Callable[[str], str] = given) -> None:
        self._write = write
        self._subject_id = subject_id

    def repaired(self, action: str, who: str, wanted: Filter[Any, Any], result: RepairResult, **more: object) -> None:
        """Log a replay, a discard or a cancellation by its result: `replayed`, `discarded`, `cancelled`."""
        letters = isinstance(wanted, DeliveryFilter)
        self._write(
            f"dead_letters_{action}" if letters else f"waiting_{action}",
            who=who,
            done=result.done,
            by_reason=dict(result.by_reason),
            **({"kept": dict(result.kept)} if letters else {}),
            unfinished=result.unfinished,
            wanted=narrowing(wanted, self._subject_id),
            **more,
        )

    def removed(self, who: str, summary: Summary) -> None:
        """Log one letter that was discarded, or one delivery that was cancelled. It cannot come back."""
        action, hidden = "waiting_cancelled_one", ("text", "asked")
        if isinstance(summary, DeadLetterSummary):
            action, hidden = "dead_letter_discarded", ("text", "attempts")
        self._write(
            action, who=who, **{name: value for name, value in summary.document().items() if name not in hidden}
        )

    def ended(self, who: str, job: str) -> None:
        """Log that an operator ended a job. The job logs its result separately."""
        self._write("job_ended", who=who, id=job)

    def read(self, action: str, who: str, wanted: Filter[Any, Any]) -> None:
        """Log that an operator reads whole letters with `sub` and `sid`, or searches for a user: `looked_for`."""
        room = "dead_letters" if isinstance(wanted, DeliveryFilter) else "waiting"
        self._write(f"{room}_{action}", who=who, wanted=narrowing(wanted, self._subject_id))

    def looked(self, who: str, wanted: Filter[Any, Any]) -> None:
        """Log a read that selects a user, a session or an event; other reads select nobody in particular."""
        if narrowing(wanted).keys() & {"subject", "event_id"}:
            self.read("looked_for", who, wanted)


def narrowing(wanted: Filter[Any, Any], subject_id: Callable[[str], str] = given) -> Mapping[str, object]:
    """Return the given conditions in a form that may be logged."""
    chosen_by = (member for member in fields(cast("Any", wanted)) if "aside" not in member.metadata)
    members = {member.name: getattr(wanted, member.name) for member in chosen_by}
    if (subject := members.get("subject")) is not None:
        members["subject"] = subject_id(subject)
    narrowing = {name: _shown(name, value) for name, value in members.items() if value and value is not True}
    return narrowing or {"all": True}


def _shown(name: str, value: object) -> object:
    match value:
        case frozenset():
            listed = sorted(value)
            return listed if name != "ids" or len(listed) <= NAMED else [*listed[:NAMED], "…"]
        case float() | int():
            return render_moment(value)
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

    def judge(_message: Message, summary: S) -> Decision:
        return KeptMessage(KeepReason.NEWER.value) if summary.reason == NEWER else REMOVE

    return await Pass(filter_.opened(messages, whole=False), judge, options, report, filter_.ids).run()


async def replay(
    letters: DeadLetters,
    chosen: DeliveryFilter,
    rules: ReplayRules,
    options: RepairOptions,
    report: Callable[[DeadLetterSummary], None] = lambda _: None,
    *,
    readmitted: Callable[[DeadLetterSummary, Readmitted], None] = lambda _letter, _readmitted: None,
) -> RepairResult:
    """Deliver the matching letters again. `report` receives each summary, `readmitted` also the new message."""

    def judge(message: Message, summary: DeadLetterSummary) -> Decision:
        if summary.reason == NEWER:
            return KeptMessage(KeepReason.NEWER.value)
        readmission = readmit(load_dead_letter(message), rules, options.clock())
        if isinstance(readmission, KeptDeadLetter):
            return KeptMessage(readmission.why.value)
        readmitted(summary, readmission)
        return Transfer(letter=message, queue=readmission.queue, outgoing=readmission.outgoing)

    return await Pass(chosen.opened(letters, whole=True), judge, options, report, chosen.ids).run()


async def make_due(
    waiting: WaitingDeliveries,
    filter_: WaitingFilter,
    options: RepairOptions,
    *,
    force: bool,
    pace: Callable[[], float] = lambda: math.inf,
) -> RepairResult:
    """Attempt delayed deliveries now. Without `force`, deliveries that their client asked to delay stay.

    `pace`: how many a second are to be attempted, asked for each. A delivery comes at its turn, or when it is due.
    """
    turn = options.clock()

    def judge(message: Message, summary: WaitingSummary) -> Decision:
        nonlocal turn
        if summary.asked and not force:
            return KeptMessage(ASKED)
        own, turn = turn, turn + 1 / pace()
        if summary.due is not None and summary.due <= own:
            return KeptMessage(EARLIER)
        return due_in(message, own - options.clock(), own)

    return await Pass(filter_.opened(waiting, whole=True), judge, options).run()
