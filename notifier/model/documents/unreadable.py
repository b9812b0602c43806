"""Limits and selects the parts of an unreadable message for its dead letter, whose body is the original body.

In JSON the body would grow: quotes double, a zero byte takes six, base64 adds a third. So the reason and the first
mistakes are one JSON document in the header `letter`, which adds less than 4 KiB, and CloudEvents attributes stay
headers. This form is recognised by the message's `type`, not by the body, which publishers control.
"""

import base64
import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from notifier.model.documents.cloudevents import binary_attributes
from notifier.model.documents.sourced import Header, kept_headers
from notifier.model.errors import InputIssue
from notifier.model.json_size import cut, cut_inside
from notifier.model.message import CutBody, Message
from notifier.model.printable import excerpt, printable

LETTER_HEADER = "letter"
MAX_BODY_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 255  # of each other header
MAX_TEXT_BYTES = 512  # bytes of `text`
MAX_ISSUES_BYTES = 1200  # of all listed mistakes
MAX_ATTRIBUTES_BYTES = 4096  # of the CloudEvents attributes of the original
MAX_ATTRIBUTE_CHARACTERS = 1024  # characters of one attribute
PARSED_ATTRIBUTES = (
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "datacontenttype",
)  # without these it would be another event
_ATTRIBUTE = "cloudEvents:"
_SHORTENED_BYTES = (400, 200, 120)  # bytes of each text; a shorter text is not understandable
_OTHERS = InputIssue("", "and others")
_MAX_ISSUES = MAX_ISSUES_BYTES // len('{"path":"","text":""},') + 1  # more mistakes never fit, however short they are


@dataclass(frozen=True, slots=True, kw_only=True)
class RawMessage:
    """A message that could not be parsed. `body`: at most the first 1 MiB, or the part that the queue kept.

    `size` and `sha256` are those of the whole body. `truncated`: a part that the parser needs is missing. `headers`:
    the CloudEvents attributes, or for a source's message all headers that a mapping may use.
    """

    body: bytes = b""
    size: int
    sha256: str
    truncated: bool = False
    content_type: str | None = None
    message_id: str | None = None
    timestamp: float | None = None
    headers: Mapping[str, Header] = field(default_factory=dict)
    app_id: str | None = None


def to_raw_message(message: Message) -> RawMessage:
    """Return the parts of the message that a dead letter keeps."""
    body = message.body
    whole = message.cut_from or CutBody(size=len(body), sha256=hashlib.sha256(body).hexdigest())
    kept_body = body if len(body) <= MAX_BODY_BYTES else body[:MAX_BODY_BYTES]
    headers: Mapping[str, Header]
    if message.source is None:
        headers, is_complete = _select_attributes(message)
    else:
        headers, is_complete = kept_headers(message.headers), True
    return RawMessage(
        body=kept_body,
        size=whole.size,
        sha256=whole.sha256,
        truncated=len(kept_body) < whole.size or not is_complete,
        content_type=None if message.content_type is None else excerpt(message.content_type),
        message_id=message.message_id,
        timestamp=message.timestamp,
        headers=headers,
        app_id=None if message.source is None or message.app_id is None else excerpt(message.app_id),
    )


def attributes_of(letter: Message) -> Mapping[str, str]:
    """Return the CloudEvents attributes in the letter's headers."""
    headers = letter.headers.items()
    return {name: value for name, value in headers if name.startswith(_ATTRIBUTE) and isinstance(value, str)}


def limit_issues(mistakes: Sequence[InputIssue]) -> tuple[InputIssue, ...]:
    """Return as many mistakes as fit into a dead letter (1,200 bytes), with shortened texts if there are many.

    A shortened text keeps its beginning and its end, which has the remedy.
    """
    shortened = tuple(InputIssue(excerpt(mistake.path), printable(mistake.text)) for mistake in mistakes[:_MAX_ISSUES])
    for most in _SHORTENED_BYTES:
        shortened = tuple(InputIssue(cut(mistake.path, most), cut_inside(mistake.text, most)) for mistake in shortened)
        if _size(shortened) <= MAX_ISSUES_BYTES:
            return shortened
    while _size((*shortened, _OTHERS)) > MAX_ISSUES_BYTES:
        shortened = shortened[:-1]
    return (*shortened, _OTHERS)


def find_names(message: Message, data: Mapping[str, object] | None = None) -> tuple[str, str]:
    """Return (`iss`, event id) of a message, each empty if not found. `data`: the message's JSON, if already parsed."""
    content: object = data
    if data is None and len(message.body) <= MAX_BODY_BYTES:
        with contextlib.suppress(ValueError):
            content = from_json(message.body, allow_partial=message.cut_from is not None)
    content = content if isinstance(content, dict) else {}
    event = content.get("data") if "specversion" in content else content
    event = event if isinstance(event, dict) else {}
    ids = (event.get("id"), content.get("id"), binary_attributes(message.headers).get("id"), message.message_id)
    return _to_name(event.get("iss")), next(filter(None, map(_to_name, ids)), "")


def to_header_value(value: str) -> str:
    """Return the value as a printable header of at most 255 bytes, which any tool can show."""
    return excerpt(value, MAX_HEADER_BYTES).encode()[:MAX_HEADER_BYTES].decode(errors="ignore")


def bound_text(text: str) -> str:
    """Return the text as one line of limited length, as dead letters have it."""
    return cut(excerpt(text, MAX_TEXT_BYTES), MAX_TEXT_BYTES)


def format_issues(mistakes: Sequence[InputIssue]) -> str:
    """Return the text of a dead letter about these mistakes."""
    return bound_text("; ".join(map(str, mistakes)))


def body_document(raw: RawMessage) -> dict[str, Any]:
    """Return the members `encoding` and `body` for JSON output: as text if the body is UTF-8, otherwise as base64."""
    try:
        return {"encoding": "utf-8", "body": raw.body.decode()}
    except UnicodeDecodeError:
        return {"encoding": "base64", "body": base64.b64encode(raw.body).decode()}


def _select_attributes(message: Message) -> tuple[Mapping[str, str], bool]:
    """Return as headers the CloudEvents attributes that fit, and True if they include all that the parser needs."""
    attributes = binary_attributes(message.headers)
    headers: dict[str, str] = {}
    for name in (
        *(name for name in PARSED_ATTRIBUTES if name in attributes),
        *(name for name in attributes if name not in PARSED_ATTRIBUTES),
    ):
        more = headers | {f"{_ATTRIBUTE}{name}": excerpt(attributes[name], MAX_ATTRIBUTE_CHARACTERS)}
        if len(to_json(more)) > MAX_ATTRIBUTES_BYTES:
            return (headers, True) if name not in PARSED_ATTRIBUTES else ({}, False)
        headers = more
    return headers, True


def _to_name(value: object) -> str:
    return to_header_value(value) if isinstance(value, str) else ""


def _size(mistakes: Sequence[InputIssue]) -> int:
    return len(to_json(mistakes))
