"""Selects dead letters by an operator's filter, and summarises them for a list.

A list reads only the members that it shows: 7 µs for each letter instead of 16.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NotRequired

from pydantic import TypeAdapter
from pydantic_core import from_json

from notifier.model.documents.dead_letter import DeadLetter, load_dead_letter
from notifier.model.documents.documents import OF_NAMES
from notifier.model.documents.letter_names import Names, disagreements
from notifier.model.durations import parse_duration
from notifier.model.errors import Mistake, UnknownVersion
from notifier.model.message import Kind, Message
from notifier.model.moment import read_moment, render_moment
from notifier.model.outcome import DeadReason
from notifier.model.session_ended import ClientEntry
from notifier.operators.letters.groups import Group
from notifier.queues.passes import OpenVisit, reader_of
from notifier.queues.queue_port import DeadLetters

NEWER = "newer_release"  # instead of a reason: a later release wrote the letter


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterSummary:
    """A dead letter in a list. `dead_since` is in epoch seconds. `reason` is one of `DeadReason`, or `NEWER`."""

    id: str
    event_id: str = ""
    client_id: str = ""
    iss: str = ""
    reason: str
    dead_since: float
    attempts: int = 0
    text: str
    source: str | None = None

    def document(self) -> dict[str, object]:
        """The JSON that scripts and the API get. `source` is there if it came from one."""
        members = {name: value for name in _SHOWN if (value := getattr(self, name)) is not None}
        return members | {"dead_since": render_moment(self.dead_since)}

    def group(self) -> Group:
        """See Summary."""
        since = self.dead_since
        return Group(client_id=self.client_id, iss=self.iss, reason=self.reason, oldest=since, newest=since)


_SHOWN = tuple(member.name for member in fields(LetterSummary))


class _Members(Names):
    v: int
    reason: str
    text: str
    dead_since: str
    attempts: NotRequired[int]


_MEMBERS = TypeAdapter(_Members)


def read_summary(message: Message) -> LetterSummary:
    """Summarise any message of the queue `dead`. Never raises."""
    if message.kind is Kind.DEAD_LETTER:
        try:
            members = _MEMBERS.validate_json(message.body)
            since = read_moment(members["dead_since"])
        except ValueError:  # pydantic's ValidationError is one
            pass
        else:
            # A name that is too long to be repeated is read from the delivery or event.
            whole = all(map(members.get, ("iss", "client_id", "event_id")))
            if members["v"] <= OF_NAMES and whole and not disagreements(members):
                shown: Mapping[str, Any] = {name: value for name, value in members.items() if name in _SHOWN}
                return LetterSummary(**{**shown, "dead_since": since})
    try:
        return summary_of(load_dead_letter(message))
    except UnknownVersion as newer:
        return LetterSummary(
            id=message.message_id or "", reason=NEWER, text=str(newer), dead_since=message.timestamp or 0.0,
        )  # fmt: skip


def summary_of(letter: DeadLetter) -> LetterSummary:
    """Summarise a letter that was read as a whole."""
    return LetterSummary(**{name: getattr(letter, name) for name in _SHOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Selects the letters that meet every given condition. Times are in epoch seconds.

    `subject` is a `sub` or `sid`. `issuers` are those that the caller may see, None for all.
    """

    ids: frozenset[str] = frozenset()
    client_id: str | None = None
    iss: str | None = None
    event_id: str | None = None
    reasons: frozenset[DeadReason] = frozenset()
    since: float | None = None
    until: float | None = None
    subject: str | None = None
    source: str | None = None
    issuers: frozenset[str] | None = None

    @property
    def narrows(self) -> bool:
        """False if every letter is meant."""
        single = (self.client_id, self.iss, self.event_id, self.since, self.until, self.subject, self.source)
        return bool(self.ids or self.reasons) or any(value is not None for value in single)

    def come_by(self, moment: float) -> "LetterFilter":
        """See Filter."""
        return replace(self, until=moment if self.until is None else min(moment, self.until))

    def opened(self, letters: DeadLetters, *, whole: bool) -> OpenVisit[LetterSummary]:
        """A visit to the letters that are meant, `whole` or as summaries only. Raises QueueError."""
        return letters.visit(reader_of(read_summary, self.matches, whole=whole))

    def matches(self, message: Message, summary: LetterSummary) -> bool:
        """True if the letter is meant."""
        return self.means(summary) and (self.subject is None or self._concerns_subject(message, self.subject))

    def means(self, summary: LetterSummary) -> bool:
        """True if a letter is meant, whoever its user is."""
        return (
            (not self.ids or summary.id in self.ids)
            and (self.issuers is None or summary.iss in self.issuers)
            and (self.client_id is None or summary.client_id == self.client_id)
            and (self.iss is None or summary.iss == self.iss)
            and (self.event_id is None or summary.event_id == self.event_id)
            and (self.source is None or summary.source == self.source)
            and (not self.reasons or summary.reason in self.reasons)
            and (self.since is None or summary.dead_since >= self.since)
            and (self.until is None or summary.dead_since <= self.until)
        )

    def _concerns_subject(self, message: Message, subject: str) -> bool:
        try:
            return subject in _subjects(load_dead_letter(message))
        except UnknownVersion:
            return False


def read_filter(
    members: Mapping[str, Any], now: float, issuers: frozenset[str] | None = None
) -> LetterFilter | Mistake:
    """The filter that an operator gives on the command line or in a request, or what is wrong with it.

    A moment may be given as an age, counted back from `now`. A member that is None is not given.
    """
    moments: dict[str, float | None] = {}
    for name in ("since", "until"):
        try:
            moments[name] = None if members.get(name) is None else read_when(members[name], now)
        except ValueError as error:
            return Mistake(name, str(error))
    reasons = frozenset(members.get("reason") or ())
    if unknown := sorted(reasons - frozenset(DeadReason)):
        return Mistake("reason", f"there is no reason {unknown[0]}; there are {', '.join(DeadReason)}")
    names = {name: members.get(name) for name in ("client_id", "iss", "event_id", "subject", "source")}
    ids, kinds = frozenset(members.get("id") or ()), frozenset(map(DeadReason, reasons))
    since, until = moments["since"], moments["until"]
    return LetterFilter(ids=ids, reasons=kinds, issuers=issuers, since=since, until=until, **names)


def read_when(text: str, now: float) -> float:
    """Read a moment, or an age counted back from `now`. Raises ValueError."""
    try:
        return read_moment(text)
    except ValueError:
        pass
    try:
        return now - parse_duration(text)
    except ValueError:
        raise ValueError(f"{text} is neither a moment like 2026-01-31T12:00:00Z nor a duration like 24h") from None


def _subjects(letter: DeadLetter) -> Iterator[str | None]:
    """Every `sub` and `sid` that the letter names."""
    if letter.delivery is not None:
        yield from (letter.delivery.sub, letter.delivery.sid)
    if letter.event is not None:
        yield from (letter.event.sub, letter.event.sid)
        for entry in letter.event.clients if letter.event.clients != "*" else ():
            if isinstance(entry, ClientEntry):
                yield from (entry.sub, entry.sid)
    if letter.raw is not None:
        yield from _named(letter.raw.body) if letter.source is None else _texts(letter.raw.body)


def _texts(body: bytes) -> Iterator[str]:
    """Every text in a document of a source: which of them name a user, only its mapping knows."""
    try:
        rest: list[object] = [from_json(body, allow_partial=True)]
    except ValueError:
        return
    while rest:
        match rest.pop():
            case str() as text:
                yield text
            case list() as members:
                rest += members
            case dict() as members:
                rest += members.values()


def _named(text: str | bytes) -> Iterator[str | None]:
    """Every `sub` and `sid` in a message that could not be read as an event, or in the part of it that was kept."""
    try:
        content = from_json(text, allow_partial=True)
    except ValueError:
        return
    for event in (content, content.get("data")) if isinstance(content, dict) else ():
        yield from subjects_of(event)


def subjects_of(event: object) -> Iterator[str]:
    """Every `sub` and `sid` in the JSON of an event or a delivery."""
    if not isinstance(event, dict):
        return
    clients = event.get("clients")
    for holder in (event, *(clients if isinstance(clients, list) else ())):
        if isinstance(holder, dict):
            yield from (value for name in ("sub", "sid") if isinstance(value := holder.get(name), str))
