"""Summarises dead letters for lists, and converts whole dead letters to JSON, for commands and the API."""

from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pydantic import TypeAdapter

from notifier.model.documents.dead_letter import DeadLetter, load_dead_letter
from notifier.model.documents.unreadable import RawMessage, body_document
from notifier.model.errors import UnknownVersion
from notifier.model.message import Message
from notifier.model.moment import format_moment
from notifier.operators.deliveries.groups import Group

NEWER_RELEASE = "newer_release"  # instead of a reason: a newer release wrote the dead letter


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterSummary:
    """A dead letter in a list. `reason` is a `DeadReason` or `NEWER_RELEASE`. Times are in epoch seconds.

    `session_at` is the time when the session ended or, if unknown, when the event arrived. Lists do not show it.
    """

    id: str
    event_id: str = ""
    client_id: str = ""
    iss: str = ""
    reason: str
    dead_since: float
    attempts: int = 0
    text: str
    source: str | None = None
    session_at: float | None = field(default=None, metadata={"hidden": True})

    def document(self) -> dict[str, object]:
        """Return the JSON for scripts and the API; `source` only if the dead letter came from a source."""
        members = {name: getattr(self, name) for name in _LISTED_MEMBERS}
        present = {name: value for name, value in members.items() if value is not None}
        return present | {"dead_since": format_moment(self.dead_since)}

    def group(self) -> Group:
        """Return a group that contains only this dead letter."""
        since = self.dead_since
        return Group(client_id=self.client_id, iss=self.iss, reason=self.reason, oldest=since, newest=since)


_LISTED_MEMBERS = tuple(member.name for member in fields(DeadLetterSummary) if "hidden" not in member.metadata)


def read_summary(message: Message) -> DeadLetterSummary:
    """Summarise any message of the queue `dead`. Never raises."""
    try:
        return summary_of(load_dead_letter(message))
    except UnknownVersion as newer:
        return DeadLetterSummary(
            id=message.message_id or "", reason=NEWER_RELEASE, text=str(newer), dead_since=message.timestamp or 0.0,
        )  # fmt: skip


def summary_of(dead_letter: DeadLetter) -> DeadLetterSummary:
    """Summarise a dead letter that was parsed whole."""
    content = dead_letter.delivery or dead_letter.event
    ended_at = None if content is None else content.ended_at
    taken_at = None if dead_letter.delivery is None else dead_letter.delivery.progress.first_taken_at
    # An event without `taken_at` was never deferred, so it arrived when it was given up.
    session_at = next(moment for moment in (ended_at, taken_at, dead_letter.dead_since) if moment is not None)
    return DeadLetterSummary(session_at=session_at, **{name: getattr(dead_letter, name) for name in _LISTED_MEMBERS})


_DEAD_LETTER, _RAW = TypeAdapter(DeadLetter), TypeAdapter(RawMessage)


def to_export_document(message: Message) -> dict[str, object]:
    """Return the whole dead letter as JSON. For a dead letter of a newer release: its summary and its body."""
    try:
        return document_of(load_dead_letter(message))
    except UnknownVersion:
        return {**read_summary(message).document(), "body": message.body.decode(errors="replace")}


def to_document_without_subject(message: Message) -> dict[str, object]:
    """Return the summary and the outcomes of the attempts, without `sub` and `sid`."""
    outcomes: list[dict[str, Any]] = []
    with suppress(UnknownVersion):
        outcomes = _outcomes(load_dead_letter(message))
    return {**read_summary(message).document(), "outcomes": outcomes}


def document_of(dead_letter: DeadLetter) -> dict[str, Any]:
    """Return the whole dead letter as JSON. `outcomes` lists the results of its attempts."""
    content = _DEAD_LETTER.dump_python(replace(dead_letter, raw=None), mode="json", exclude_defaults=True)
    if dead_letter.raw is not None:
        raw = _RAW.dump_python(replace(dead_letter.raw, body=b""), mode="json", exclude_defaults=True)
        content["raw"] = {**body_document(dead_letter.raw), **raw}
    return {"v": 1, **content, "outcomes": _outcomes(dead_letter)}


def _outcomes(dead_letter: DeadLetter) -> list[dict[str, Any]]:
    return [
        {"at": format_moment(past.at), "reason": past.reason, "status": past.status, "text": past.text}
        for past in dead_letter.outcomes
    ]
