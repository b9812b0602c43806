"""Writes messages of sources into notifier's own queue: messages that arrived by HTTP, and messages to be read again.

The body is unchanged, byte for byte. All other properties are one JSON document in the header `received`. The message's
`type` proves that notifier wrote it, so the header `source` can be trusted. The header `only` selects the events to
read, so that a replay notifies no client twice.
"""

import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Final, TypeAlias

from pydantic_core import from_json, to_json

from notifier.model.documents.event_entries import parse_positions
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.message import Kind, Message, MessageDraft
from notifier.model.moment import format_moment
from notifier.model.record import copy_record, record

EVENT_SOURCES: Final = ""  # the reader of sources whose name has no slash: those in the setting `sources`


def reader_name_of(source: str | None) -> str:
    """Return the name of the reader for this source: the part before its slash, or `EVENT_SOURCES`."""
    return EVENT_SOURCES if source is None else source.rpartition("/")[0]


@record
class RereadMessage:
    """A message of a source that a replay publishes, to be parsed again. `sub_only`: it has no `sid`."""

    message: Message
    sub_only: bool = False


@record
class WrongEvents:
    """The invalid events of a message, and the events with invalid entries: their first mistakes.

    `which`: their positions, in the form of `format_event_positions`, for a replay. `iss` and `event_id` are empty if
    there are several events.
    """

    mistakes: tuple[InputIssue, ...]
    which: str
    iss: str = ""
    event_id: str = ""


ONLY_HEADER = "only"
_SOURCE = "source"
_RECEIVED = "received"
_PROPERTIES = ("message_id", "timestamp", "user_id", "app_id", "received_at")
MAX_HEADER_CHARACTERS = 1024  # characters of a kept header
MAX_HEADERS_BYTES = 4096  # of all kept headers, as JSON
MAX_POSITIONS_BYTES = 1024  # of written positions
_SECRET = re.compile(
    r"authori[sz]ation|cookie|token|secret|passw|credential|signature|hmac|jwt|client-cert"
    r"|(api|access|functions|private|shared|subscription)[-_]?key",
    re.IGNORECASE,
)

Header: TypeAlias = str | int | float | bool
ReadAgain: TypeAlias = Callable[[Message, str | None, float], RereadMessage | str]
"""Parses a source's message for a replay: its events at these positions (None: all). Or returns why it stays."""
Positions: TypeAlias = dict[int, tuple[range, ...] | None]
"""Events of a message by their number, each with the positions of its entries in `clients`; None: the whole event."""


def to_sourced(message: Message, new_id: str, only: str | None = None) -> MessageDraft:
    """Return notifier's own message with this message of a source or publisher, without headers that may be secret.

    `only`: which events to read, in the form of `format_event_positions`; None for all.
    """
    received = {name: value for name in _PROPERTIES if (value := getattr(message, name)) is not None}
    return MessageDraft(
        kind=Kind.SOURCED,
        body=message.body,
        message_id=new_id,
        headers={
            _SOURCE: message.source or "",
            _RECEIVED: to_json(received | {"headers": kept_headers(message.headers)}).decode(),
            **({} if only is None else {ONLY_HEADER: only}),
        },
        content_type=message.content_type or "",
    )


def to_received(message: Message) -> Message:
    """Return the source's message in notifier's own message, as it was received. Raises MalformedEvent."""
    try:
        received = from_json(str(message.headers[_RECEIVED]))
        source, headers = str(message.headers[_SOURCE]) or None, dict(received["headers"])
    except (KeyError, TypeError, ValueError):
        raise MalformedEvent((InputIssue("", "a message of a source without its header `received`"),)) from None
    properties = {name: received.get(name) for name in _PROPERTIES}
    return copy_record(message, kind=None, source=source, headers=headers, reply_to=None, **properties)


def to_kept(message: Message, secret: Collection[str] = (), first: Collection[str] = ()) -> Message:
    """Return the message without `reply_to` and without headers that must not be stored. See `kept_headers`."""
    if not message.headers and message.reply_to is None:
        return message
    return copy_record(message, headers=kept_headers(message.headers, secret, first), reply_to=None)


def kept_headers(
    headers: Mapping[str, object], secret: Collection[str] = (), first: Collection[str] = ()
) -> dict[str, Header]:
    """Return the headers that may be stored, as JSON values of at most 4 KiB: none whose name suggests a secret.

    `secret`: lower-case names of further headers to omit. `first`: names of headers that are stored before others.
    """
    selected: dict[str, Header] = {}
    bytes_left = MAX_HEADERS_BYTES
    for name in sorted(headers, key=lambda name: name not in first) if first else headers:
        if (value := _json_header(headers[name])) is None or name.lower() in secret or _suggests_secret(name):
            continue
        bytes_left -= 6 + len(name) + (len(value) if isinstance(value, str) else 20)  # at most 20 digits
        if bytes_left < 0:
            break
        selected[name] = value
    return selected


def format_event_positions(events: Positions) -> str:
    """Return the positions as text, such as `0-3;7:1-2,4`; an empty text if it would exceed 1 KiB."""
    parts: list[str] = []
    begin = end = -1
    for number, entries in sorted(events.items()):
        if entries is None and number == end:
            end += 1
            parts[-1] = f"{begin}-{number}"
        elif entries is None:
            begin, end = number, number + 1
            parts.append(str(number))
        else:
            which = ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in entries)
            parts.append(f"{number}:{which}")
    text = ";".join(parts)
    return text if len(text) <= MAX_POSITIONS_BYTES else ""


def parse_event_positions(text: str) -> Positions:
    """Parse the text of `format_event_positions`. Raises ValueError if notifier did not write it."""
    read: Positions = {}
    for part in text.split(";"):
        numbers, colon, entries = part.partition(":")
        for run in parse_positions(numbers):
            read.update(dict.fromkeys(run, parse_positions(entries) if colon else None))
    return read


def _suggests_secret(name: str) -> bool:
    return _SECRET.search(name) is not None


def _json_header(value: object) -> Header | None:
    match value:
        case bytes() | bytearray():
            value = bytes(value).decode(errors="replace")
        case datetime():
            value = format_moment((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    if isinstance(value, str):
        return value if len(value) <= MAX_HEADER_CHARACTERS else None
    return value if isinstance(value, (bool, int, float)) else None
