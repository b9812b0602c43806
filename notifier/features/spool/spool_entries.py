"""Defines the format of the spool's files. Pure.

A file begins with the line `notifier-spool 1`. Each further line is a checksum, a blank, and JSON of a closed schema:

    {"id": …, "sender": …, "at": …, "lane": …, "message": {"type": …, "id": …, "body": …, …}}
    {"done": …, "at": …}                                           the entry with this id is published

`at` is in epoch seconds; that of an entry is the time of its receipt. `body` is in base64: an event that has only the
members of `_reduce`, or a message that a worker parses later. Neither has an address of a client, so a user who can
write the file cannot redirect tokens.

The last line may be incomplete, or zeros: a crash interrupted the write, before the sender got its 200. Any other
invalid line means that the file is damaged.
"""

import base64
import hashlib
from collections.abc import Callable
from typing import Annotated, Literal, NotRequired, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic_core import to_json
from typing_extensions import TypedDict  # pydantic requires this TypedDict before Python 3.12

from notifier.delivery.settlement import OutgoingMessage, to_dead_letter_message
from notifier.messages.replacements import to_event_message
from notifier.model.client import RetryPolicy
from notifier.model.documents import dead_letter, documents
from notifier.model.documents.sourced import to_received, to_sourced
from notifier.model.durations import format_duration
from notifier.model.errors import NotifierError
from notifier.model.message import Kind, Lane, Message, MessageDraft
from notifier.model.outcome import DeadReason
from notifier.model.record import copy_record, record
from notifier.model.session_ended import ClientEntry, SessionEnded

_NAME = b"notifier-spool "
HEADING = _NAME + b"1\n"
MAX_LINE_BYTES = 512 * 1024  # a body has 128 KiB at most, here in base64
READ_BYTES = 2 * MAX_LINE_BYTES
_CHECKSUM_BYTES = 8
_CLOSED = ConfigDict(extra="forbid", allow_inf_nan=False)
_ShortText: TypeAlias = Annotated[str, Field(pattern=r"^[ -~]{0,255}$")]
"""A property as the queue takes it: an entry with another one would be tried without end."""


@with_config(_CLOSED)
class _Message(TypedDict):
    type: Literal[Kind.EVENT, Kind.SOURCED]
    id: _ShortText
    body: str
    content_type: _ShortText
    headers: dict[str, str]


@with_config(_CLOSED)
class _Line(TypedDict):
    id: NotRequired[_ShortText]
    sender: NotRequired[str]
    lane: NotRequired[Lane]
    message: NotRequired[_Message]
    done: NotRequired[str]
    at: float


_LINE = TypeAdapter(_Line)
_ENTRY_MEMBERS = {"id", "sender", "lane", "at", "message"}


@record
class ReceivedSignOut:
    """A message of a relay, an upstream or a source. `id` identifies copies.

    It was received at `at` by the system's clock, and at `received_at` by one that never jumps.
    """

    id: str
    sender: str
    at: float
    received_at: float
    lane: Lane
    message: MessageDraft


@record
class SpoolEntry:
    """A sign-out of a file, received at `at`, which `content` has too."""

    id: str
    lane: Lane
    at: float
    content: SessionEnded | Message
    message_id: str

    def to_draft(self) -> MessageDraft:
        """Return the message to publish."""
        if isinstance(self.content, Message):
            return to_sourced(self.content, self.message_id)
        return to_event_message(self.content, bulk=self.lane is Lane.BULK)


@record
class DoneNote:
    """The entry with this id was published at `at`."""

    id: str
    at: float


@record
class Place:
    """Where an entry is, and what orders and identifies it."""

    id: str
    sender: str
    at: float
    lane: Lane
    file: str
    offset: int
    size: int


def dump_entry(sign_out: ReceivedSignOut) -> bytes | None:
    """Return the line of a sign-out; None if the schema cannot hold its message, such as one with an address."""
    draft = sign_out.message
    message = {
        "type": draft.kind, "id": draft.message_id, "body": base64.b64encode(draft.body).decode(),
        "content_type": draft.content_type, "headers": draft.headers,
    }  # fmt: skip
    document = {"id": sign_out.id, "sender": sign_out.sender, "at": sign_out.at, "lane": sign_out.lane}
    try:
        line = _to_line({**document, "message": message})
    except ValueError:  # of half of a UTF-16 pair
        return None
    return None if load_entry(line) is None else line


def dump_done(entry_id: str, at: float) -> bytes:
    """Return the line which notes that the entry with this id is published."""
    return _to_line({"done": entry_id, "at": at})


def load_entry(line: bytes, latest: float = float("inf")) -> SpoolEntry | None:
    """Return the entry of a line; None if it is not the valid line of an entry. `latest`: it was received by then."""
    document = _parse_line(line.removesuffix(b"\n"))
    if document is None or "done" in document:
        return None
    entry_id, lane, message, at = document["id"], document["lane"], document["message"], min(document["at"], latest)
    content: SessionEnded | Message
    try:
        body = base64.b64decode(message["body"], validate=True)
        if message["type"] is Kind.EVENT:
            event = documents.load_event(body).event
            content = _reduce(event)
            if content != event or event.id != entry_id:
                return None
        else:
            kind, headers = message["content_type"], message["headers"]
            content = to_received(Message(lane=lane, body=body, tag=None, content_type=kind, headers=headers))
    except (NotifierError, ValueError):
        return None
    content = copy_record(content, received_at=at)
    return SpoolEntry(id=entry_id, lane=lane, at=at, content=content, message_id=message["id"])


def _reduce(event: SessionEnded) -> SessionEnded:
    """Return an event with the members that an event of the spool may have."""
    clients = event.clients
    pairs = [ClientEntry(client_id=each.client_id, sub=each.sub) for each in clients if isinstance(each, ClientEntry)]
    return SessionEnded(
        id=event.id, id_given=True, iss=event.iss, sub=event.sub, sid=event.sid,
        clients="*" if clients == "*" else tuple(pairs), ended_at=event.ended_at, publisher=event.publisher,
    )  # fmt: skip


def to_outgoing(entry: SpoolEntry, policy: RetryPolicy, now: float) -> OutgoingMessage:
    """Return the message of an entry; its dead letter if it is too old."""
    limit, why = policy.max_age, "max_age"
    has_no_sid = isinstance(entry.content, SessionEnded) and entry.content.sid is None
    if has_no_sid and policy.sub_only_max_age < limit:  # of a message that is read later, the deliveries expire
        limit, why = policy.sub_only_max_age, "sub_only_max_age"
    if now - entry.at <= limit:
        return OutgoingMessage(queue=entry.lane, message=entry.to_draft())
    text = (
        f"kept in the spool for {now - entry.at:.0f} s, since the queue was unreachable: older than"
        f" {why} ({format_duration(limit)})"
    )
    return to_dead_letter(entry, DeadReason.EXPIRED, text, now)


def to_dead_letter(entry: SpoolEntry, reason: DeadReason, text: str, now: float) -> OutgoingMessage:
    """Return the dead letter of an entry."""
    if isinstance(entry.content, Message):
        letter = dead_letter.dead_letter_unread(entry.content, reason, text, now)
    else:
        letter = dead_letter.dead_letter_event(entry.content, reason, text, now)
    return to_dead_letter_message(letter, None)


def scan(file: str, read: Callable[[int], bytes], offset: int) -> tuple[tuple[Place | DoneNote, ...], int, bool]:
    """Return the lines of a file from this offset on, where the last whole one ends, and whether any is damaged.

    `read` returns READ_BYTES at an offset, or what there is.
    """
    items, is_damaged = list[Place | DoneNote](), False
    while data := read(offset):
        begin = 0
        while (end := data.find(b"\n", begin) + 1) > 0:
            document = _parse_line(data[begin : end - 1])
            if document is None:
                is_damaged = True
            elif "done" in document:
                items.append(DoneNote(id=document["done"], at=document["at"]))
            else:
                place = Place(
                    id=document["id"], sender=document["sender"], at=document["at"], lane=document["lane"], file=file,
                    offset=offset + begin, size=end - begin,
                )  # fmt: skip
                items.append(place)
            begin = end
        is_damaged |= len(data) - begin > MAX_LINE_BYTES and bool(data[begin:].strip(b"\0"))
        if not begin:
            break
        offset += begin
    return tuple(items), offset, is_damaged


def judge_heading(data: bytes) -> str | None:
    """Return what is wrong with the beginning of a file: `newer`, `damaged`; None if nothing is, or if it is torn."""
    if HEADING.startswith(data[: len(HEADING)]) or not data.strip(b"\0"):
        return None
    version = data.partition(b"\n")[0].removeprefix(_NAME)
    return "newer" if data.startswith(_NAME) and version.isdigit() and int(version) > 1 else "damaged"


def _to_line(document: dict[str, object]) -> bytes:
    text = to_json(document)
    return _checksum(text) + b" " + text + b"\n"


def _parse_line(line: bytes) -> _Line | None:
    """Return the document of a line without its end; None if it is invalid."""
    checksum, _, text = line.partition(b" ")
    if checksum != _checksum(text):
        return None
    try:
        document = _LINE.validate_json(text)
    except ValidationError:
        return None
    return document if document.keys() in (_ENTRY_MEMBERS, {"done", "at"}) else None


def _checksum(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=_CHECKSUM_BYTES).hexdigest().encode()
