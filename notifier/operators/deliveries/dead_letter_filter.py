"""Selects dead letters by an operator's filter, and declares the filter's members for requests and options."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, with_config
from pydantic_core import from_json
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.documents.dead_letter import DeadLetter, load_dead_letter
from notifier.model.durations import parse_duration
from notifier.model.errors import InputIssue, UnknownVersion
from notifier.model.message import Message
from notifier.model.moment import parse_moment
from notifier.model.outcome import DeadReason
from notifier.model.session_ended import ClientEntry
from notifier.operators.deliveries.dead_letter_summary import DeadLetterSummary, read_summary
from notifier.operators.deliveries.repair_pass import Filter
from notifier.queues.passes import OpenVisit, make_visit_reader
from notifier.queues.queue_port import DeadLetters

REASON_DESCRIPTION = "Only with this reason (notifier explain lists the reasons); may be repeated."


@with_config(ConfigDict(extra="forbid"))
class FilterMembers(TypedDict, total=False):
    """The members that select dead letters or pending deliveries, in requests and as options. All must match."""

    id: Annotated[list[str], Field(max_length=1000, description="Only with these IDs.")]
    client_id: Annotated[str, Field(min_length=1, description="Only of this client.")]
    iss: Annotated[str, Field(min_length=1, description="Only of this issuer.")]
    event_id: Annotated[str, Field(min_length=1, description="Only of this event.")]
    subject: Annotated[str, Field(min_length=1, description="Only of this sub or sid.")]
    since: Annotated[
        str,
        Field(
            description="Only if the session ended at or after this time (if unknown: if the event arrived then):"
            " 2026-01-31T12:00:00Z, or 24h (ago)."
        ),
    ]
    until: Annotated[str, Field(description="Only if the session ended at or before this time, in the same form.")]


class DeadLetterFilterMembers(FilterMembers, total=False):
    """The members that select dead letters."""

    reason: Annotated[list[DeadReason], Field(description=REASON_DESCRIPTION)]
    source: Annotated[str, Field(min_length=1, description="Only from messages of this source.")]
    given_up_until: Annotated[str, Field(description="Only if given up at or before this time, in the same form.")]


class RepairMembers(DeadLetterFilterMembers, total=False):
    """The members of a repair of dead letters."""

    all: Annotated[bool, Field(description="Select every dead letter.")]
    dry_run: Annotated[bool, Field(description="Count the letters; change nothing.")]
    limit: Annotated[int, Field(ge=1, description="At most this many, oldest first.")]


class ReplayMembers(RepairMembers, total=False):
    """The members of a replay."""

    end_newer_sessions: Annotated[
        bool, Field(description="Also replay old letters whose token has no sid: they end newer sessions of the user.")
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter(Filter[DeadLetters, DeadLetterSummary]):
    """Selects dead letters."""

    source: str | None = None
    given_up_until: float | None = None

    @property
    def has_conditions(self) -> bool:
        """See Filter."""
        return self != DeadLetterFilter(issuers=self.issuers)

    def restrict_to_arrived_by(self, moment: float) -> "DeadLetterFilter":
        """See Filter."""
        return replace(self, given_up_until=moment if self.given_up_until is None else min(moment, self.given_up_until))

    def open_visit(self, messages: DeadLetters, *, whole: bool) -> OpenVisit[DeadLetterSummary]:
        """See Filter."""
        return messages.visit(make_visit_reader(read_summary, self.matches, whole=whole))

    def matches(self, message: Message, summary: DeadLetterSummary) -> bool:
        """Return True if the filter selects the letter."""
        return self.matches_summary(summary) and (self.subject is None or self._concerns_subject(message, self.subject))

    def matches_summary(self, summary: DeadLetterSummary) -> bool:
        """See Filter."""
        return (
            self._meets_shared_conditions(summary)
            and (self.source is None or summary.source == self.source)
            and (self.given_up_until is None or summary.dead_since <= self.given_up_until)
        )

    def _concerns_subject(self, message: Message, subject: str) -> bool:
        try:
            return subject in _subjects(load_dead_letter(message))
        except UnknownVersion:
            return False


def read_filter(
    members: Mapping[str, Any], now: float, issuers: frozenset[str] | None = None
) -> DeadLetterFilter | InputIssue:
    """Read an operator's filter from options or a request; return an InputIssue if it is invalid.

    A time may also be an age, counted back from `now`. A member that is None counts as absent.
    """
    conditions = read_conditions(members, now, DeadLetterFilterMembers, [*DeadReason])
    return conditions if isinstance(conditions, InputIssue) else DeadLetterFilter(issuers=issuers, **conditions)


def read_conditions(
    members: Mapping[str, Any], now: float, kind: type[FilterMembers], reasons: Sequence[str]
) -> dict[str, Any] | InputIssue:
    """Read the members that `kind` declares into the arguments of a filter; return an InputIssue for an invalid member.

    See `read_filter`.
    """
    given = {name: members[name] for name in get_type_hints(kind) if members.get(name) is not None}
    for name in given.keys() & {"since", "until", "given_up_until"}:
        try:
            given[name] = parse_moment_or_age(given[name], now)
        except ValueError as error:
            return InputIssue(name, str(error))
    ids, wanted = frozenset(given.pop("id", ())), frozenset(given.pop("reason", ()))
    if unknown := sorted(wanted - frozenset(reasons)):
        return InputIssue("reason", f"unknown reason {unknown[0]}; the reasons are {', '.join(reasons)}")
    return {"ids": ids, "reasons": wanted, **given}


def parse_moment_or_age(text: str, now: float) -> float:
    """Read a moment, or an age counted back from `now`. Raises ValueError."""
    try:
        return parse_moment(text)
    except ValueError:
        pass
    try:
        return now - parse_duration(text)
    except ValueError:
        raise ValueError(f"{text} is neither a time like 2026-01-31T12:00:00Z nor a duration like 24h") from None


def _subjects(dead_letter: DeadLetter) -> Iterator[str | None]:
    """Yield every `sub` and `sid` in the letter."""
    if dead_letter.delivery is not None:
        yield from (dead_letter.delivery.sub, dead_letter.delivery.sid)
    if dead_letter.event is not None:
        yield from (dead_letter.event.sub, dead_letter.event.sid)
        for entry in dead_letter.event.clients if dead_letter.event.clients != "*" else ():
            if isinstance(entry, ClientEntry):
                yield from (entry.sub, entry.sid)
    if dead_letter.raw is not None:
        yield from (
            _subjects_in_event(dead_letter.raw.body) if dead_letter.source is None else _texts_in(dead_letter.raw.body)
        )


def _texts_in(body: bytes) -> Iterator[str]:
    """Yield every text in a source's document: only the source's mapping knows which of them name a user."""
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


def _subjects_in_event(text: str | bytes) -> Iterator[str | None]:
    """Yield every `sub` and `sid` in an unreadable message, or in the part of it that was kept."""
    try:
        content = from_json(text, allow_partial=True)
    except ValueError:
        return
    for event in (content, content.get("data")) if isinstance(content, dict) else ():
        yield from subjects_of(event)


def subjects_of(event: object) -> Iterator[str]:
    """Yield every `sub` and `sid` in the JSON of an event or a delivery."""
    if not isinstance(event, dict):
        return
    clients = event.get("clients")
    for holder in (event, *(clients if isinstance(clients, list) else ())):
        if isinstance(holder, dict):
            yield from (value for name in ("sub", "sid") if isinstance(value := holder.get(name), str))
