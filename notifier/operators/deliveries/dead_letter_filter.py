"""Selects dead letters by an operator's filter. API requests and command options have the same members."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, with_config
from pydantic_core import from_json
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.documents.cloudevents import MAX_TEXT_LENGTH
from notifier.model.documents.dead_letter import load_dead_letter
from notifier.model.durations import parse_duration
from notifier.model.errors import InputIssue, UnknownVersion
from notifier.model.message import Message
from notifier.model.moment import earliest, parse_moment
from notifier.model.outcome import DeadReason
from notifier.operators.deliveries.dead_letter_summary import DeadLetterSummary, read_summary
from notifier.operators.deliveries.repair_pass import Filter
from notifier.queues.passes import OnWait, OpenPass, ignore_holder, make_pass_reader
from notifier.queues.queue_port import DeadLetters

REASON_DESCRIPTION = "Only with this reason (notifier explain lists the reasons); may be repeated."


@with_config(ConfigDict(extra="forbid"))
class FilterMembers(TypedDict, total=False):
    """The members that select dead letters or pending deliveries, in requests and as options. All must match."""

    id: Annotated[list[str], Field(max_length=1000, description="Only with these IDs.")]
    client_id: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_LENGTH, description="Only of this client.")]
    iss: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_LENGTH, description="Only of this issuer.")]
    event_id: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_LENGTH, description="Only of this event.")]
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
    source: Annotated[
        str, Field(min_length=1, max_length=MAX_TEXT_LENGTH, description="Only from messages of this source.")
    ]
    given_up_since: Annotated[str, Field(description="Only if given up at or after this time, in the same form.")]
    given_up_until: Annotated[str, Field(description="Only if given up at or before this time, in the same form.")]


class RepairMembers(DeadLetterFilterMembers, total=False):
    """The members of a repair of dead letters."""

    all: Annotated[bool, Field(description="Select every dead letter.")]
    dry_run: Annotated[bool, Field(description="Count the dead letters; change nothing.")]
    limit: Annotated[int, Field(ge=1, description="At most this many, oldest first.")]


class ReplayMembers(RepairMembers, total=False):
    """The members of a replay."""

    end_newer_sessions: Annotated[
        bool,
        Field(
            description="Also replay old dead letters whose token has no sid: it also ends newer sessions of the user."
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter(Filter[DeadLetters, DeadLetterSummary]):
    """Selects dead letters."""

    source: str | None = None
    given_up_since: float | None = None
    given_up_until: float | None = None

    @property
    def has_conditions(self) -> bool:
        """Return False if the filter selects every dead letter of `issuers`."""
        return self != DeadLetterFilter(issuers=self.issuers)

    def restrict_to_arrived_by(self, moment: float | None) -> "DeadLetterFilter":
        """Return the same filter without dead letters that were given up after the moment."""
        return replace(self, given_up_until=earliest(moment, self.given_up_until))

    def open_pass(
        self, messages: DeadLetters, on_wait: OnWait = ignore_holder, *, whole: bool
    ) -> OpenPass[DeadLetterSummary]:
        """Open a pass over the selected dead letters, with bodies if `whole`. Raises QueueError."""
        return messages.open_pass(make_pass_reader(read_summary, self.matches, whole=whole), on_wait=on_wait)

    def matches(self, message: Message, summary: DeadLetterSummary) -> bool:
        """Return True if the filter selects the dead letter."""
        return self.matches_summary(summary) and (self.subject is None or _has_subject(message, self.subject))

    def matches_summary(self, summary: DeadLetterSummary) -> bool:
        """Return True if the dead letter meets all conditions except `subject`."""
        return (
            self._meets_shared_conditions(summary)
            and (self.source is None or summary.source == self.source)
            and (self.given_up_since is None or summary.dead_since >= self.given_up_since)
            and (self.given_up_until is None or summary.dead_since <= self.given_up_until)
        )


def read_filter(
    members: Mapping[str, Any], now: float, issuers: frozenset[str] | None = None
) -> DeadLetterFilter | InputIssue:
    """Read an operator's filter from options or a request. Return an InputIssue for an invalid member.

    A time may also be an age, counted back from `now`. A member that is None counts as absent. `issuers` are those
    that the operator may see; None for all.
    """
    conditions = read_conditions(members, now, DeadLetterFilterMembers, [*DeadReason])
    return conditions if isinstance(conditions, InputIssue) else DeadLetterFilter(issuers=issuers, **conditions)


def read_conditions(
    members: Mapping[str, Any], now: float, member_types: type[FilterMembers], known_reasons: Sequence[str]
) -> dict[str, Any] | InputIssue:
    """Convert the members that `member_types` declares into the arguments of a filter.

    Return an InputIssue for an invalid member. A member that is None counts as absent. An age is counted back from
    `now`. `known_reasons` are the valid values of the member `reason`.
    """
    conditions = {name: members[name] for name in get_type_hints(member_types) if members.get(name) is not None}
    for name in conditions.keys() & {"since", "until", "given_up_since", "given_up_until"}:
        try:
            conditions[name] = parse_moment_or_age(conditions[name], now)
        except ValueError as error:
            return InputIssue(name, str(error))
    ids, reasons = frozenset(conditions.pop("id", ())), frozenset(conditions.pop("reason", ()))
    if unknown := sorted(reasons - frozenset(known_reasons)):
        return InputIssue("reason", f"unknown reason {unknown[0]}; the reasons are {', '.join(known_reasons)}")
    return {"ids": ids, "reasons": reasons, **conditions}


def parse_moment_or_age(text: str, now: float) -> float:
    """Return the epoch seconds of a time (RFC 3339), or of an age such as `24h` before `now`. Raises ValueError."""
    with suppress(ValueError):
        return parse_moment(text)
    try:
        return now - parse_duration(text)
    except ValueError:
        raise ValueError(f"{text} is neither a time like 2026-01-31T12:00:00Z nor a duration like 24h") from None


def names_subject(body: bytes, subject: str) -> bool:
    """Return True if notifier's own message has a delivery or event with the `sub` or `sid`."""
    try:
        document = from_json(body)
    except ValueError:
        return False
    holders = (document.get("delivery"), document.get("event")) if isinstance(document, dict) else ()
    return any(subject in subjects_of(holder) for holder in holders)


def _has_subject(message: Message, subject: str) -> bool:
    """Return True if the dead letter has the `sub` or `sid`. A dead letter of a newer release cannot be searched."""
    try:
        dead_letter = load_dead_letter(message)
    except UnknownVersion:
        return False
    if dead_letter.raw is None:
        return names_subject(message.body, subject)
    read_subjects = _subjects_in_event if dead_letter.source is None else _texts_in
    return subject in read_subjects(dead_letter.raw.body)


def _texts_in(body: bytes) -> Iterator[str]:
    """Yield every JSON text in a source's message, since any may be a `sub` or `sid`: that depends on its mapping."""
    try:
        unread: list[object] = [from_json(body, allow_partial=True)]
    except ValueError:
        return
    while unread:
        match unread.pop():
            case str() as text:
                yield text
            case list() as values:
                unread += values
            case dict() as members:
                unread += members.values()


def _subjects_in_event(body: bytes) -> Iterator[str]:
    """Yield every `sub`, `sid` and `email` in a refused event. The body may be cut, since only its start is stored."""
    try:
        content = from_json(body, allow_partial=True)
    except ValueError:
        return
    if isinstance(content, dict):
        yield from subjects_of(content)
        yield from subjects_of(content.get("data"))  # where a CloudEvent has the event


def subjects_of(event: object) -> Iterator[str]:
    """Yield every `sub`, `sid` and `email` in the JSON of an event, of its clients, or of a delivery."""
    if not isinstance(event, dict):
        return
    clients = event.get("clients")
    for holder in (event, *(clients if isinstance(clients, list) else ())):
        if isinstance(holder, dict):
            values = (holder.get("sub"), holder.get("sid"), holder.get("email"))
            yield from (value for value in values if isinstance(value, str))
