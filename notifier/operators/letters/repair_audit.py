"""Logs what people did by hand with dead letters and with what waits, and who they are. It logs no `sub` or `sid`."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Protocol, cast

from notifier.model.moment import render_moment
from notifier.operators.letters.groups import Summary
from notifier.operators.letters.letter_filter import LetterFilter, LetterSummary
from notifier.operators.letters.visits import Filter, RepairResult

NAMED = 20  # ids of one line


class WriteAudit(Protocol):
    """Writes one line of the audit."""

    def __call__(self, action: str, **details: object) -> None:
        """Write it, whatever the level of the log."""


def given(_subject: str) -> str:
    """Return the placeholder of a `sub` or `sid` where no configured key hashes it."""
    return "[given]"


class RepairAudit:
    """Logs each repair, each look at whole letters, and each search for a user or an event.

    `subject_id` returns what the log shows in place of a `sub` or `sid`.
    """

    def __init__(self, write: WriteAudit, subject_id: Callable[[str], str] = given) -> None:
        self._write = write
        self._subject_id = subject_id

    def repaired(self, action: str, who: str, wanted: Filter[Any, Any], result: RepairResult, **more: object) -> None:
        """Log a replay, a discard or a cancellation by its result: `replayed`, `discarded`, `cancelled`."""
        letters = isinstance(wanted, LetterFilter)
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
        if isinstance(summary, LetterSummary):
            action, hidden = "dead_letter_discarded", ("text", "attempts")
        self._write(
            action, who=who, **{name: value for name, value in summary.document().items() if name not in hidden}
        )

    def ended(self, who: str, job: str) -> None:
        """Log that somebody ended a job. What it did has a line of its own."""
        self._write("job_ended", who=who, id=job)

    def read(self, action: str, who: str, wanted: Filter[Any, Any]) -> None:
        """Log that somebody reads whole letters, with `sub` and `sid`, or looks for those of a user: `looked_for`."""
        room = "dead_letters" if isinstance(wanted, LetterFilter) else "waiting"
        self._write(f"{room}_{action}", who=who, wanted=narrowing(wanted, self._subject_id))

    def looked(self, who: str, wanted: Filter[Any, Any]) -> None:
        """Log a look that chooses by a user, a session or an event; others choose nobody in particular."""
        if narrowing(wanted).keys() & {"subject", "event_id"}:
            self.read("looked_for", who, wanted)


def narrowing(wanted: Filter[Any, Any], subject_id: Callable[[str], str] = given) -> Mapping[str, object]:
    """What was given to choose by, as it may be shown."""
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
