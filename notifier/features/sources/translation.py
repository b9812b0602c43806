"""Collect the result of a source's message: good events, ignored events, and the errors of the others."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Final
from urllib.parse import unquote

from pydantic_core import to_json

from notifier.features.sources.envelopes import UnwrappedDocument
from notifier.model.documents import cloudevents
from notifier.model.documents.event_document import ParsedEvent
from notifier.model.documents.event_entries import abridge_issues, parse_positions
from notifier.model.documents.sourced import Positions, WrongEvents, format_event_positions
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.message import Message
from notifier.model.moment import format_optional_moment
from notifier.model.printable import excerpt
from notifier.model.record import record
from notifier.model.session_ended import SessionEnded
from notifier.model.validation import kind_of

NO_ISSUER: Final = "-"


@record
class Translation:
    """The result of reading a message: its valid events, the number of ignored events, and the errors of the others.

    `parts`: the positions of parts of the message, if it has too many events to read at once. Then nothing was read.
    `timeless_ids`: derived ids of events without a time. A later event with the same content has the same id.
    """

    events: tuple[SessionEnded, ...] = ()
    ignored: int = 0
    wrong: WrongEvents | None = None
    parts: tuple[str, ...] = ()
    timeless_ids: frozenset[str] = frozenset()


class TranslationBuilder:
    """Collects the events and errors of a message with `count` events."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._events: list[SessionEnded] = []
        self._ignored = 0
        self._mistakes: list[InputIssue] = []
        self._positions: Positions = {}
        self._has_unknown_positions = False  # of the entries with errors
        self._names: set[tuple[str, str]] = set()  # issuer and id of each event with errors

    def add(self, number: int, entries: tuple[range, ...] | None, read: Callable[[], ParsedEvent | None]) -> None:
        """Add the event that `read` returns, or the errors that it raises. None counts as ignored.

        `entries`: the positions of the clients that `read` reads; None for all.
        """
        try:
            parsed = read()
        except MalformedEvent as error:
            data = error.data or {}
            iss = _to_text(data.get("iss"))
            self._names.add(("" if iss == NO_ISSUER else iss, _to_text(data.get("id"))))
            self.add_errors(number, entries, error.mistakes)
            return
        if parsed is None:
            self._ignored += 1
            return
        self._events.append(parsed.event)
        if parsed.wrong is not None:
            self._names.add((parsed.event.iss, parsed.event.id))
            wrong_entries: tuple[range, ...] = ()
            if parsed.wrong.which:
                wrong_entries = _to_whole_positions(parse_positions(parsed.wrong.which), entries)
            else:
                self._has_unknown_positions = True
            self.add_errors(number, wrong_entries, abridge_issues(parsed.wrong.mistakes, parsed.wrong.more))

    def add_errors(self, number: int, entries: tuple[range, ...] | None, mistakes: Sequence[InputIssue]) -> None:
        """Record the errors of one event, or of its `entries`."""
        prefix = "" if self._count == 1 else f"event {number + 1} of {self._count}: "
        self._mistakes += [InputIssue(mistake.path, prefix + mistake.text) for mistake in mistakes]
        self._positions[number] = entries

    def build(self) -> Translation:
        """Return the result. Raises MalformedEvent if each event is malformed."""
        if not self._mistakes:
            return Translation(events=tuple(self._events), ignored=self._ignored)
        issuers = {iss for iss, _ in self._names}
        iss = issuers.pop() if len(issuers) == 1 else ""
        event_id = next(iter(self._names))[1] if len(self._names) == 1 else ""
        mistakes = abridge_issues(self._mistakes)
        if not self._events and not self._ignored:
            raise MalformedEvent(mistakes, {"iss": iss, "id": event_id})
        which = "" if self._has_unknown_positions else format_event_positions(self._positions)
        wrong = WrongEvents(mistakes=mistakes, which=which, iss=iss, event_id=event_id)
        return Translation(events=tuple(self._events), ignored=self._ignored, wrong=wrong)


def explain_not_object(document: object) -> str:
    """Return the error text for a document that is not an object."""
    text = f"the document is {kind_of(document)}, not an object"
    if isinstance(document, list):
        text += '; if each of its members is an event, add "@" to `envelope`'
    return text


def derive_id(
    data: Mapping[str, object], time: float | str | None, message_id: str | None, index: int | None
) -> str | None:
    """Return a digest as the id of an event without one. None if the user's next sign-out would have the same digest.

    `time` and `message_id` are those of the message, `index` is the event's position in its list. They enter the digest
    only if the data alone do not identify the sign-out, since a repeated webhook has another time.
    """
    identifies_sign_out = "ended_at" in data or "sid" in data
    if identifies_sign_out:
        digested: tuple[object, ...] = (data, None)
    elif time is None and message_id is None:
        return None
    else:
        digested = (data, time) if index is None else (data, time, message_id, index)
    return _digest(digested)


class DocumentDigests:
    """Digests of the documents of one message. All of them may share an envelope of 128 KiB, which is digested once."""

    def __init__(self) -> None:
        self._by_id: dict[int, str] = {}  # of objects that the documents hold

    def of(self, document: UnwrappedDocument, *, with_envelope: bool) -> list[str]:
        """Return the digests of the document and, if wanted, of its envelope."""
        parts = [document.data, document.envelope] if with_envelope else [document.data]
        for part in parts:
            if id(part) not in self._by_id:
                self._by_id[id(part)] = _digest(part)
        return [self._by_id[id(part)] for part in parts]


def _digest(value: object) -> str:
    return hashlib.blake2b(to_json(value), digest_size=16).hexdigest()


def match_issuer(names: Sequence[str], issuer: str | None, issuers: Mapping[str, str] | None, path: str) -> str:
    """Return the issuer that a document calls by `names`. Raises MalformedEvent.

    `issuers` may have any of the names, unless the first is an issuer itself. Without `issuers`, the last name must be
    `issuer` or the last part of its path: presets put the human-readable name last.
    """
    if issuers is None:
        iss, name = issuer or "", names[-1]
        last_path_part = unquote(iss.rstrip("/").rpartition("/")[2])
        if name in (iss, last_path_part):
            return iss
        text = f"the document names {excerpt(name)}, which does not fit {iss}; if it is the same, write "
        raise MalformedEvent([InputIssue(path, f'{text}issuers: {{"{excerpt(name)}": "{iss}"}}')])
    if names[0] not in issuers and names[0] in (issuer, *issuers.values()):
        return names[0]
    for name in names:
        if name in issuers:
            return issuers[name]
    raise MalformedEvent([InputIssue(path, f"{excerpt(names[0])} is not among them; add what it means")])


def _to_whole_positions(which: Sequence[range], only: Sequence[range] | None) -> tuple[range, ...]:
    """Convert positions among the entries that were read to positions in the whole list of clients.

    `only`: the positions of the entries that were read; None for all.
    """
    if only is None:
        return tuple(which)
    read_positions = list(chain.from_iterable(only))
    positions = [read_positions[position] for position in chain.from_iterable(which)]
    return tuple(range(position, position + 1) for position in positions)


def _to_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def properties_of(message: Message) -> dict[str, object]:
    """Return the value of `$properties` in expressions."""
    return {
        "message_id": message.message_id,
        "timestamp": format_optional_moment(message.timestamp),
        "user_id": message.user_id,
        "app_id": message.app_id,
        "content_type": message.content_type,
    }


def cloudevent_of(document: UnwrappedDocument) -> cloudevents.Attributes | None:
    """Return the CloudEvents attributes of a document; None without a CloudEvent, or for a member of a list."""
    is_in_list = document.index is not None
    if is_in_list or document.source is None or document.type is None or document.id is None:
        return None
    return cloudevents.Attributes(id=document.id, source=document.source, type=document.type, time=document.time)
