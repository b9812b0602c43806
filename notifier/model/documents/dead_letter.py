"""A dead letter: a delivery or event that was given up, or a message that could not be parsed, ready to be replayed.

A dead letter is JSON that is readable in any RabbitMQ tool. The message's headers have `reason`, `iss`, `client_id`
and `event_id`. An unreadable message keeps its form, and the JSON is a header: see `unreadable`. A letter holds at most
4 KiB more than the original: long values are written once, and texts are limited. A message that the broker itself
moved to the dead letters (it has `x-death`) is read as a letter, too, without its `type`: its author is unknown.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, PlainSerializer, TypeAdapter
from typing_extensions import TypedDict  # pydantic requires this TypedDict before Python 3.12

from notifier.model.delivery import Delivery
from notifier.model.documents import unreadable
from notifier.model.documents.documents import (
    NAMES_VERSION,
    EventDocument,
    StoredDelivery,
    dump_event,
    find_disagreements,
    parse,
    to_written,
)
from notifier.model.documents.event_entries import WrongEntries, abridge_issues, parse_positions
from notifier.model.documents.sourced import WrongEvents, parse_event_positions
from notifier.model.documents.unreadable import LETTER_HEADER, RawMessage
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.json_size import fits
from notifier.model.message import Kind, Lane, Message, MessageDraft
from notifier.model.moment import format_moment, parse_moment
from notifier.model.outcome import DeadReason
from notifier.model.printable import escape
from notifier.model.progress import PastOutcome
from notifier.model.session_ended import SessionEnded

MAX_ANSWER_BYTES = 1024  # bytes of responses in a letter
MAX_NAME_BYTES = 128  # bytes of a name; longer names are not repeated beside the delivery or event
_BROKER_REASONS: Mapping[str, str] = {
    "expired": "expired unread, by the AMQP `expiration` of its publisher or a message-ttl of the queue",
    "maxlen": "dropped by a length limit, which a policy set for the queue",
    "rejected": "rejected by a consumer other than notifier",
}


def _parse_instant(value: object) -> object:
    return parse_moment(value) if isinstance(value, str) else value


Instant = Annotated[float, BeforeValidator(_parse_instant), PlainSerializer(format_moment)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A delivery that was given up, or a message that could not be parsed.

    At most one of `delivery`, `event` and `raw` is set: a replay uses it.

    `dead_since` is in epoch seconds. `iss`, `client_id` and `event_id` are empty if unknown or not applicable.
    `entries` limits the letter to these entries of `clients` in `raw`, in the form of `WrongEntries.which`; the others
    were served. None means the whole message. `source` is the name of the source that the message in `raw` came from.
    `events` limits the letter to these events of that message, in the form of `sourced.format_event_positions`.
    `vouched` is that of the message.
    """

    id: str
    reason: DeadReason
    text: str = ""
    dead_since: Instant
    iss: str = ""
    client_id: str = ""
    event_id: str = ""
    publisher: str | None = None
    vouched: bool = False
    attempts: int = 0
    mistakes: tuple[InputIssue, ...] = ()
    delivery: StoredDelivery | None = None
    event: SessionEnded | None = None
    raw: RawMessage | None = None
    entries: str | None = None
    source: str | None = None
    events: str | None = None

    @property
    def outcomes(self) -> tuple[PastOutcome, ...]:
        """Return the last ten outcomes, oldest first."""
        return () if self.delivery is None else self.delivery.progress.history


class _Versioned(TypedDict):
    v: Literal[1, 2]


_VERSIONED = TypeAdapter(_Versioned)
_DEAD_LETTER = TypeAdapter(DeadLetter)


# ── to a dead letter ────────────────────────────────────────────────────────────────────────────────────────────


def dead_letter_delivery(delivery: Delivery, reason: DeadReason, text: str, now: float) -> DeadLetter:
    """Return the dead letter of a delivery that is given up. It has the delivery's id, which identifies copies."""
    progress = delivery.progress.after_death(MAX_ANSWER_BYTES)
    return DeadLetter(
        id=delivery.id, reason=reason, text=unreadable.bound_text(text), dead_since=now, iss=delivery.iss,
        client_id=delivery.client_id, event_id=delivery.event_id, publisher=delivery.publisher,
        attempts=progress.attempts, delivery=replace(delivery, progress=progress),
    )  # fmt: skip


def dead_letter_event(event: SessionEnded, reason: DeadReason, text: str, now: float) -> DeadLetter:
    """Return the dead letter of an event that is given up as a whole."""
    return DeadLetter(
        id=make_dead_letter_id(dump_event(EventDocument(event=replace(event, ended_at=None, reply_to=None)))),
        reason=reason, text=unreadable.bound_text(text), dead_since=now, iss=event.iss, event_id=event.id,
        publisher=event.publisher, event=event,
    )  # fmt: skip


def dead_letter_raw(
    message: Message, mistakes: Sequence[InputIssue], now: float, data: Mapping[str, object] | None = None
) -> DeadLetter:
    """Return the dead letter of a message that is not a valid event, with its issuer and id if they can be found.

    `data`: the event's JSON if the caller has parsed it, which takes milliseconds for a large event.
    """
    if data is None and message.source is not None:
        data = {}  # `iss` and `id` in a source's own document are not those of an event
    iss, event_id = unreadable.find_names(message, data)
    mistakes = unreadable.limit_issues(mistakes)
    return DeadLetter(
        id=_derive_id(message, repr(now).encode()),
        reason=DeadReason.MALFORMED_EVENT,
        text=unreadable.format_issues(mistakes),
        dead_since=now,
        iss=iss,
        event_id=event_id,
        publisher=message.user_id,
        vouched=message.vouched,
        mistakes=mistakes,
        raw=unreadable.to_raw_message(message),
        source=message.source,
    )


def dead_letter_unread(message: Message, reason: DeadReason, text: str, now: float) -> DeadLetter:
    """Return the dead letter of a message that is given up without parsing it, for a reason other than its content."""
    return replace(dead_letter_raw(message, (), now), reason=reason, text=unreadable.bound_text(text))


def dead_letter_entries(message: Message, event: SessionEnded, wrong: WrongEntries, now: float) -> DeadLetter:
    """Return one dead letter for all invalid entries of the event. A redelivered copy has the same id."""
    names = {"iss": event.iss, "id": event.id}
    letter = dead_letter_raw(message, abridge_issues(wrong.mistakes, wrong.more), now, names)
    return replace(letter, id=_derive_id(message, b"entries"), entries=wrong.which)


def dead_letter_events(message: Message, wrong: WrongEvents, now: float) -> DeadLetter:
    """Return one dead letter for all invalid events of a source's message. A redelivered copy has the same id."""
    letter = dead_letter_raw(message, wrong.mistakes, now, {"iss": wrong.iss, "id": wrong.event_id})
    return replace(letter, id=_derive_id(message, b"events", wrong.which.encode()), events=wrong.which)


# ── through the queue ───────────────────────────────────────────────────────────────────────────────────────────


def dump_dead_letter(letter: DeadLetter) -> MessageDraft:
    """Return the message of the dead letter, to be published to the queue `dead`.

    A letter with a raw message keeps its body, and has all else as JSON in one header. Any other letter is JSON.
    """
    headers = {"reason": letter.reason.value, "iss": letter.iss}
    headers |= {"client_id": letter.client_id, "event_id": letter.event_id}
    if letter.source is not None:
        headers["source"] = letter.source
    headers = {name: unreadable.to_header_value(value) for name, value in headers.items()}
    if letter.raw is not None:
        attributes: dict[str, str] = {}
        stored_headers = letter.raw.headers  # headers of a source's message are stored in the JSON …
        if letter.source is None:  # … and CloudEvents attributes as headers of this message
            attributes, stored_headers = {name: str(value) for name, value in stored_headers.items()}, {}
        raw = replace(letter.raw, body=b"", headers=stored_headers)
        notes = replace(letter, iss="", client_id="", event_id="", raw=raw)
        if letter.text == unreadable.format_issues(letter.mistakes):
            notes = replace(notes, text="")  # `load_dead_letter` derives it from the mistakes
        return MessageDraft(
            kind=Kind.UNREADABLE,
            body=letter.raw.body,
            message_id=letter.id,
            headers={**attributes, **headers, LETTER_HEADER: escape(_dump(notes, 1).decode())},
            content_type="application/octet-stream",
        )
    version: Literal[1, 2] = 1
    if letter.event is not None:
        version, event = to_written(letter.event)
        letter = replace(letter, event=event)
    stored = replace(
        letter, iss=_omit_long_name(letter.iss), client_id=_omit_long_name(letter.client_id),
        event_id=_omit_long_name(letter.event_id), publisher=_omit_long_name(letter.publisher or "") or None,
    )  # fmt: skip
    return MessageDraft(kind=Kind.DEAD_LETTER, body=_dump(stored, version), message_id=letter.id, headers=headers)


def load_dead_letter(message: Message) -> DeadLetter:
    """Return the dead letter in a message of the queue `dead`. Raises UnknownVersion if a later release wrote it.

    A message that notifier did not write, or that is damaged, is returned inside a new dead letter.
    """
    if message.kind is not Kind.DEAD_LETTER and message.kind is not Kind.UNREADABLE:
        return _load_moved_by_broker(message)
    try:
        return _load_unreadable(message) if message.kind is Kind.UNREADABLE else _load_readable(message)
    except MalformedEvent as error:
        letter = dead_letter_raw(message, error.mistakes, message.timestamp or 0.0)
        return replace(letter, id=message.message_id or make_dead_letter_id(message.body))


def _load_readable(message: Message) -> DeadLetter:
    parse(_VERSIONED, message.body, latest=NAMES_VERSION)
    letter = parse(_DEAD_LETTER, message.body)
    if mistakes := find_disagreements(letter, letter.delivery, letter.event):
        raise MalformedEvent(mistakes)
    content = letter.delivery or letter.event
    if content is None:
        return letter
    # The letter omits names that are too long to be written twice.
    names = (content.event_id, content.client_id) if isinstance(content, Delivery) else (content.id, "")
    event_id, client_id = letter.event_id or names[0], letter.client_id or names[1]
    iss, publisher = letter.iss or content.iss, letter.publisher or content.publisher
    return replace(letter, iss=iss, client_id=client_id, event_id=event_id, publisher=publisher)


def _load_unreadable(message: Message) -> DeadLetter:
    notes = message.headers.get(LETTER_HEADER)
    if not isinstance(notes, str):
        raise MalformedEvent([InputIssue(LETTER_HEADER, "this header is missing, and with it why the message is here")])
    parse(_VERSIONED, notes)
    letter = parse(_DEAD_LETTER, notes)
    if letter.raw is None:
        raise MalformedEvent([InputIssue(LETTER_HEADER, "this header does not describe the body")])
    if letter.entries or letter.events:
        try:
            _ = parse_positions(letter.entries) if letter.entries else parse_event_positions(letter.events or "")
        except ValueError:
            issue = InputIssue(LETTER_HEADER, "this header has no valid positions of wrong entries")
            raise MalformedEvent([issue]) from None
    iss, client_id, event_id = (str(message.headers.get(name, "")) for name in ("iss", "client_id", "event_id"))
    headers = unreadable.attributes_of(message) if letter.source is None else letter.raw.headers
    raw = replace(letter.raw, body=message.body, headers=headers)
    text = letter.text or unreadable.format_issues(letter.mistakes)
    return replace(letter, text=text, iss=iss, client_id=client_id, event_id=event_id, raw=raw)


def _omit_long_name(name: str) -> str:
    return name if fits(name, MAX_NAME_BYTES) else ""


def _dump(letter: DeadLetter, version: int) -> bytes:
    return b'{"v":%d,%b' % (version, _DEAD_LETTER.dump_json(letter, exclude_defaults=True)[1:])


def to_message(letter: DeadLetter, lane: Lane) -> Message | None:
    """Return the unreadable message in this dead letter; None if the letter has none, or only a part of it."""
    raw = letter.raw
    if raw is None or raw.truncated:
        return None
    return Message(
        lane=lane, body=raw.body, tag=None, content_type=raw.content_type, headers=raw.headers,
        message_id=raw.message_id, timestamp=raw.timestamp, user_id=letter.publisher, app_id=raw.app_id,
        source=letter.source, vouched=letter.vouched,
    )  # fmt: skip


def _load_moved_by_broker(message: Message) -> DeadLetter:
    """Return a dead letter for a message that the broker dead-lettered, with the time and reason of its `x-death`."""
    deaths = message.headers.get("x-death")
    newest = deaths[0] if isinstance(deaths, list) and deaths else None
    died_at, reason = (newest.get("time"), newest.get("reason")) if isinstance(newest, Mapping) else (None, None)
    dead_since = message.timestamp or 0.0
    if isinstance(died_at, datetime):
        dead_since = (died_at if died_at.tzinfo else died_at.replace(tzinfo=UTC)).timestamp()
    text = _BROKER_REASONS.get(str(reason), "returned to the queue too often: an internal error, or a poison message")
    # The id must be the same at each reading, so it does not depend on headers that change, such as the delivery count.
    stable_id = _derive_id(message, repr(deaths).encode())
    return replace(dead_letter_unread(message, DeadReason.DELIVERY_LIMIT, text, dead_since), id=stable_id)


def _derive_id(message: Message, *parts: bytes) -> str:
    """Return an id that depends only on the message's body, its id and these parts."""
    return make_dead_letter_id(message.body, (message.message_id or "").encode(errors="replace"), *parts)


def make_dead_letter_id(*parts: bytes) -> str:
    """Return an id as a digest of the parts, which is the same at all workers."""
    return hashlib.blake2b(b"".join(b"%d:%b" % (len(part), part) for part in parts), digest_size=16).hexdigest()
