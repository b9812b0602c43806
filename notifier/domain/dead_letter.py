"""A dead letter: what was given up or could not be read, with everything needed to understand it and to replay it.

It is JSON that a person can read in any RabbitMQ tool: moments are RFC 3339, the delivery's outcomes stand in a list
of their own, and the message's headers say `reason`, `iss`, `client_id` and `event_id`. A message that the broker moved
among the dead letters by itself (it bears `x-death`) is read as one too, with reason `delivery_limit` and a text that
says what the broker did: never as what it says it is, since nobody knows who wrote it.
"""

import base64
import codecs
import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BeforeValidator, PlainSerializer, TypeAdapter
from pydantic_core import from_json, to_json
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.domain.cloudevents import binary_attributes, echo
from notifier.domain.delivery import Delivery, Past
from notifier.domain.documents import VERSION, EventDocument, dump_event, parse
from notifier.domain.errors import MalformedEvent, Mistake
from notifier.domain.letter_names import check_names
from notifier.domain.message import Kind, Lane, Message, Outgoing, Whole
from notifier.domain.moment import read_moment, render_moment
from notifier.domain.outcome import DeadReason
from notifier.domain.session_ended import SessionEnded, WrongEntry

RAW_BYTES = 1024 * 1024
TEXT = 1024  # characters of `text`
_MOVED: Mapping[str, str] = MappingProxyType(
    {
        "expired": "expired unread, by the AMQP `expiration` of its publisher or a message-ttl of the queue",
        "maxlen": "pushed out by a length limit, which a policy gave the queue",
        "rejected": "rejected by a consumer, which was none of ours",
    }
)
HEADER_BYTES = 255


def _instant(value: object) -> object:
    return read_moment(value) if isinstance(value, str) else value


Instant = Annotated[float, BeforeValidator(_instant), PlainSerializer(render_moment)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """A message that could not be read: its body as text where it is UTF-8, else base64; at most its first 1 MiB,
    or what the queue kept of one too large for an event.

    `size` and `sha256` are the whole body's. `headers` are the CloudEvents attributes, without which it means nothing.
    """

    encoding: Literal["utf-8", "base64"]
    body: str
    size: int
    sha256: str
    truncated: bool = False
    content_type: str | None = None
    message_id: str | None = None
    timestamp: float | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """See the module. Of `delivery`, `event` and `raw` at most one is there: what would be replayed.

    `dead_since` in epoch seconds. `iss`, `client_id` and `event_id` are empty where none is known or none is concerned.
    """

    id: str
    reason: DeadReason
    text: str
    dead_since: Instant
    iss: str = ""
    client_id: str = ""
    event_id: str = ""
    publisher: str | None = None
    attempts: int = 0
    mistakes: tuple[Mistake, ...] = ()
    delivery: Delivery | None = None
    event: SessionEnded | None = None
    raw: Raw | None = None

    @property
    def outcomes(self) -> tuple[Past, ...]:
        """What the attempts met, oldest first; the last ten."""
        return () if self.delivery is None else self.delivery.history


class _Versioned(TypedDict):
    v: Literal[1]


_VERSIONED = TypeAdapter(_Versioned)
_LETTER = TypeAdapter(DeadLetter)


# ── to a dead letter ────────────────────────────────────────────────────────────────────────────────────────────


def bury_delivery(delivery: Delivery, reason: DeadReason, text: str, now: float) -> DeadLetter:
    """A delivery that is given up. It keeps its id, so that a copy made by a crash is known as one."""
    return DeadLetter(
        id=delivery.id,
        reason=reason,
        text=echo(text, TEXT),
        dead_since=now,
        iss=delivery.iss,
        client_id=delivery.client_id,
        event_id=delivery.event_id,
        publisher=delivery.publisher,
        attempts=delivery.attempts,
        delivery=delivery,
    )


def bury_event(event: SessionEnded, reason: DeadReason, text: str, now: float) -> DeadLetter:
    """An event that is given up as a whole."""
    return DeadLetter(
        id=_digest(dump_event(EventDocument(event=replace(event, ended_at=None, reply_to=None)))),
        reason=reason,
        text=echo(text, TEXT),
        dead_since=now,
        iss=event.iss,
        event_id=event.id,
        publisher=event.publisher,
        event=event,
    )


def bury_entry(event: SessionEnded, entry: WrongEntry, now: float) -> DeadLetter:
    """One wrong entry of an event, alone: its dead letter holds the event with no other client."""
    text = "; ".join(map(str, entry.mistakes))
    letter = bury_event(replace(event, clients=(entry,)), DeadReason.MALFORMED_EVENT, text, now)
    return replace(letter, client_id=entry.client_id or "", mistakes=entry.mistakes)


def bury_raw(message: Message, mistakes: Sequence[Mistake], now: float) -> DeadLetter:
    """A message that is no event. Whatever it tells of its issuer and id is noted, to be found by."""
    iss, event_id = _names(message)
    return DeadLetter(
        id=_digest(message.body, (message.message_id or "").encode(errors="replace"), repr(now).encode()),
        reason=DeadReason.MALFORMED_EVENT,
        text=echo("; ".join(map(str, mistakes)), TEXT),
        dead_since=now,
        iss=iss,
        event_id=event_id,
        publisher=message.user_id,
        mistakes=tuple(mistakes),
        raw=_raw(message),
    )


def bury_unread(message: Message, reason: DeadReason, text: str, now: float) -> DeadLetter:
    """A message that is given up as it came, for what has nothing to do with what is in it."""
    return replace(bury_raw(message, (), now), reason=reason, text=echo(text, TEXT))


# ── through the queue ───────────────────────────────────────────────────────────────────────────────────────────


def dump_dead_letter(letter: DeadLetter) -> Outgoing:
    """The message to be published to `dead`."""
    content = _LETTER.dump_python(letter, mode="json", exclude_defaults=True)
    outcomes = [
        {"at": render_moment(past.at), "reason": past.reason, "status": past.status, "text": past.text}
        for past in letter.outcomes
    ]
    headers = {"reason": letter.reason.value, "iss": letter.iss}
    headers |= {"client_id": letter.client_id, "event_id": letter.event_id}
    return Outgoing(
        kind=Kind.DEAD_LETTER,
        body=to_json({"v": VERSION, **content, "outcomes": outcomes}, indent=2),
        message_id=letter.id,
        headers={name: _header(value) for name, value in headers.items()},
    )


def load_dead_letter(message: Message) -> DeadLetter:
    """The dead letter that a message of `dead` is, whoever put it there.

    Raises UnknownVersion for one of a later release; whatever else cannot be read is shown as it is.
    """
    if message.kind is not Kind.DEAD_LETTER:
        return _moved_by_broker(message)
    try:
        parse(_VERSIONED, message.body)
        check_names(message.body)
        return parse(_LETTER, message.body)
    except MalformedEvent as error:
        since = message.timestamp or 0.0
        return replace(bury_raw(message, error.mistakes, since), id=message.message_id or _digest(message.body))


def message_of(letter: DeadLetter, lane: Lane) -> Message | None:
    """The message that could not be read, to be read again; None where it was something else or is not whole."""
    raw = letter.raw
    if raw is None or raw.truncated:
        return None
    return Message(
        lane=lane,
        body=raw.body.encode() if raw.encoding == "utf-8" else base64.b64decode(raw.body),
        tag=None,
        content_type=raw.content_type,
        headers=raw.headers,
        message_id=raw.message_id,
        timestamp=raw.timestamp,
        user_id=letter.publisher,
    )


def _moved_by_broker(message: Message) -> DeadLetter:
    death = message.headers.get("x-death")
    first = _last_death(death)
    since = _death_time(first) or message.timestamp or 0.0
    reason = DeadReason.DELIVERY_LIMIT
    text = _MOVED.get(str(first.get("reason")), "given back to the broker too often: a fault of ours, or poison")
    letter = bury_raw(message, (), since)
    # Looking must show the same id each time, and headers such as the delivery count change with each look.
    identity = _digest(message.body, (message.message_id or "").encode(errors="replace"), repr(death).encode())
    return replace(letter, id=identity, reason=reason, text=echo(text, TEXT))


def _last_death(death: object) -> Mapping[str, object]:
    """What the broker wrote when it moved the message; it puts the newest first."""
    first = death[0] if isinstance(death, list) and death else None
    return first if isinstance(first, Mapping) else {}


def _death_time(death: Mapping[str, object]) -> float | None:
    time = death.get("time")
    if not isinstance(time, datetime):
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _raw(message: Message) -> Raw:
    body = message.body
    whole = message.cut_from or Whole(size=len(body), sha256=hashlib.sha256(body).hexdigest())
    kept = body[:RAW_BYTES]
    truncated = len(kept) < whole.size
    try:
        # Where the body is cut, a character that the cut goes through is left out.
        text: str | None = codecs.getincrementaldecoder("utf-8")().decode(kept, final=not truncated)
    except UnicodeDecodeError:
        text = None
    return Raw(
        encoding="base64" if text is None else "utf-8",
        body=base64.b64encode(kept).decode() if text is None else text,
        size=whole.size,
        sha256=whole.sha256,
        truncated=truncated,
        content_type=None if message.content_type is None else echo(message.content_type),
        message_id=message.message_id,
        timestamp=message.timestamp,
        headers={
            f"cloudEvents:{name}": echo(value, TEXT) for name, value in binary_attributes(message.headers).items()
        },
    )


def _names(message: Message) -> tuple[str, str]:
    """`iss` and event id as far as they can be made out."""
    content: object = None
    if len(message.body) <= RAW_BYTES:
        with contextlib.suppress(ValueError):
            content = from_json(message.body, allow_partial=message.cut_from is not None)
    content = content if isinstance(content, dict) else {}
    event = content.get("data") if "specversion" in content else content
    event = event if isinstance(event, dict) else {}
    ids = (event.get("id"), content.get("id"), binary_attributes(message.headers).get("id"), message.message_id)
    return _name(event.get("iss")), next(filter(None, map(_name, ids)), "")


def _name(value: object) -> str:
    return echo(value, TEXT) if isinstance(value, str) else ""


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()


def _header(value: str) -> str:
    return echo(value, HEADER_BYTES).encode()[:HEADER_BYTES].decode(errors="ignore")
