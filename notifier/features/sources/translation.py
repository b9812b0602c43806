"""Collect the result of a source's message: good events, ignored events, and the errors of the others."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pydantic_core import to_json

from notifier.features.sources.envelopes import UnwrappedDocument
from notifier.model.documents import cloudevents
from notifier.model.documents.event_document import ParsedEvent
from notifier.model.documents.event_entries import abridge_issues, parse_positions
from notifier.model.documents.sourced import Positions, WrongEvents, format_event_positions
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.frozen import frozen
from notifier.model.message import Message
from notifier.model.moment import format_optional_moment
from notifier.model.session_ended import SessionEnded
from notifier.model.validation import kind_of

NO_ISSUER: Final = "-"


@frozen
class Translation:
    """The result of a message: its good events, the count of ignored ones, and the errors.

    `parts`: the message has too many events to read at once; nothing was read yet, and these parts must be read.
    `timeless_ids`: derived ids of events without a time. A later event with the same content has the same id.
    """

    events: tuple[SessionEnded, ...] = ()
    ignored: int = 0
    wrong: WrongEvents | None = None
    parts: tuple[str, ...] = ()
    timeless_ids: frozenset[str] = frozenset()


class TranslationBuilder:
    """Collects the events of a message of `count` events."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._events: list[SessionEnded] = []
        self._ignored = 0
        self._mistakes: list[InputIssue] = []
        self._positions: Positions = {}
        self._has_unknown_positions = False  # some positions are unknown
        self._names: set[tuple[str, str]] = set()

    def add(self, number: int, entries: tuple[range, ...] | None, read: Callable[[], ParsedEvent | None]) -> None:
        """Read one event. `entries` are those of its clients that are read, None if all are."""
        try:
            value = read()
        except MalformedEvent as wrong:
            data = wrong.data or {}
            iss = _text(data.get("iss"))
            self._names.add(("" if iss == NO_ISSUER else iss, _text(data.get("id"))))
            self.add_errors(number, entries, wrong.mistakes)
            return
        if value is None:
            self._ignored += 1
            return
        self._events.append(value.event)
        if value.wrong is not None:
            self._names.add((value.event.iss, value.event.id))
            self._has_unknown_positions = self._has_unknown_positions or not value.wrong.which
            which = _to_whole_positions(parse_positions(value.wrong.which), entries) if value.wrong.which else ()
            self.add_errors(number, which, abridge_issues(value.wrong.mistakes, value.wrong.more))

    def add_errors(self, number: int, entries: tuple[range, ...] | None, mistakes: Sequence[InputIssue]) -> None:
        """Record the errors of one event, or of these entries of it."""
        which = "" if self._count == 1 else f"event {number + 1} of {self._count}: "
        self._mistakes += [InputIssue(mistake.path, which + mistake.text) for mistake in mistakes]
        self._positions[number] = entries

    def build(self) -> Translation:
        """Return the result. Raises MalformedEvent if no event is good or ignored."""
        if not self._mistakes:
            return Translation(events=tuple(self._events), ignored=self._ignored)
        iss, event_id = next(iter(self._names)) if len(self._names) == 1 else (_common_issuer(self._names), "")
        mistakes = abridge_issues(self._mistakes)
        if not self._events and not self._ignored:
            raise MalformedEvent(mistakes, {"iss": iss, "id": event_id})
        which = "" if self._has_unknown_positions else format_event_positions(self._positions)
        wrong = WrongEvents(mistakes=mistakes, which=which, iss=iss, event_id=event_id)
        return Translation(events=tuple(self._events), ignored=self._ignored, wrong=wrong)


def explain_not_object(document: object) -> str:
    """Return the error text for a document that is not an object."""
    text = f"the document is {kind_of(document)}, not an object"
    return f'{text}; if each of its members is an event, add "@" to `envelope`' if isinstance(document, list) else text


def derive_id(
    data: Mapping[str, object], time: float | str | None, message_id: str | None, index: int | None
) -> str | None:
    """Return a derived id for an event without one; None if the user's next sign-out would have the same id."""
    if "ended_at" not in data and time is None and "sid" not in data and message_id is None:
        return None
    unique = "ended_at" in data or "sid" in data
    when = None if unique else time  # a repeated webhook has another time
    of_whole = () if unique or index is None else (message_id, index)
    return hashlib.blake2b(to_json((data, when, *of_whole)), digest_size=16).hexdigest()


def _to_whole_positions(which: Sequence[range], only: Sequence[range] | None) -> tuple[range, ...]:
    """Return the positions in the whole list of clients, given positions in the part of it that was read."""
    if only is None:
        return tuple(which)
    numbers = [number for run in only for number in run]
    return tuple(range(numbers[at], numbers[at] + 1) for run in which for at in run)


def _common_issuer(names: set[tuple[str, str]]) -> str:
    """Return the issuer if all have the same, else an empty text."""
    issuers = {iss for iss, _ in names}
    return issuers.pop() if len(issuers) == 1 else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def properties_of(message: Message) -> dict[str, object]:
    return {
        "message_id": message.message_id,
        "timestamp": format_optional_moment(message.timestamp),
        "user_id": message.user_id,
        "app_id": message.app_id,
        "content_type": message.content_type,
    }


def cloudevent_of(document: UnwrappedDocument) -> cloudevents.Attributes | None:
    """Return the CloudEvents attributes of an event that is alone in its envelope."""
    if document.source is None or document.type is None or document.id is None or document.index is not None:
        return None
    return cloudevents.Attributes(id=document.id, source=document.source, type=document.type, time=document.time)
