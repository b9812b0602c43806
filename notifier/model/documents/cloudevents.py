"""Extracts the event's JSON from a message: bare JSON, or a CloudEvents 1.0 envelope, structured or binary.

Any input results in a JSON object or in `MalformedEvent` with every mistake. A byte order mark is allowed (RFC 8259
§8.1). If a member occurs twice, the last one counts. At most 200 levels of nesting are allowed. The texts of mistakes
are printable and quote at most 100 characters of the input.

A publisher's `traceparent` (W3C Trace Context) is kept by each delivery, so that a later attempt by another worker
still belongs to the sign-out that caused it. Clients never receive it.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn, cast
from urllib.parse import unquote

from pydantic_core import from_json

from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.message import Message
from notifier.model.moment import parse_moment
from notifier.model.printable import excerpt
from notifier.model.validation import kind_of

# Version 00, and the same part of later versions (Trace Context §3.2.4). Ids of zeros only are invalid.
_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?=-|$)")
_NAMES = ("cloudEvents_traceparent", "cloudEvents:traceparent", "ce-traceparent", "traceparent")
TRACEPARENT_LENGTH = 55
MAX_ID_BYTES = 255  # an event's id becomes an AMQP `message_id`, a short string
MAX_TEXT_LENGTH = 1024  # characters; more than any identifier needs (`sub` has at most 255: OpenID Connect Core §2)
MAX_PERCENT_SIGNS = 1000  # in all encoded attributes of a message; each takes up to 0.6 µs
# AMQP binding §3.1.3 (both delimiters), HTTP binding §3.1.3.
_ENCODED = "ce-"  # the prefix over HTTP
_PREFIXES = ("cloudevents_", "cloudevents:", _ENCODED)
_AMQP_1_0_BODIES = (b"\x00\x53", b"\x00\x80")  # of values that the queue's adapter does not read (AMQP 1.0 §1.3.1)
_REQUIRED = ("id", "source", "specversion", "type")  # CloudEvents 1.0 §3.1


def traceparent_of(headers: Mapping[str, object], extension: object = None) -> str | None:
    """Return the publisher's `traceparent`; None if it is missing or not well-formed.

    A CloudEvents attribute has precedence over the header `traceparent`, which any hop may set. `extension`: the
    attribute in a structured envelope.
    """
    if extension is not None and (context := _validate_traceparent(extension)) is not None:
        return context
    for name in _NAMES:
        value = headers.get(name)
        if value is not None and (context := _validate_traceparent(value)) is not None:
            return context
    return None


def _validate_traceparent(value: object) -> str | None:
    text = value.decode(errors="replace") if isinstance(value, bytes | bytearray) else value
    if not isinstance(text, str) or _FORM.match(text) is None:
        return None
    return text[:TRACEPARENT_LENGTH]


def parse_traceparent(traceparent: str) -> tuple[int, int, bool]:
    """Return (trace id, span id, is sampled) of a valid `traceparent`."""
    _, trace, span, flags = traceparent[:TRACEPARENT_LENGTH].split("-")
    return int(trace, 16), int(span, 16), bool(int(flags, 16) & 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """The CloudEvents attributes that notifier uses. `time` is in epoch seconds.

    `unread_time`: the original time if it cannot be parsed. Only measurement depends on it.
    """

    id: str
    source: str
    type: str
    time: float | None
    unread_time: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedMessage:
    """The event's JSON as `data`, and its envelope: None for bare JSON, or if the envelope has mistakes.

    `path`: the prefix for the paths of mistakes in `data`. `mistakes`: found in the envelope. `trace`: the
    `traceparent`. `unread_time`: an invalid `time` of the envelope.
    """

    data: dict[str, object]
    envelope: Attributes | None = None
    path: str = ""
    mistakes: tuple[InputIssue, ...] = ()
    trace: str | None = None
    unread_time: str | None = None


def open_message(message: Message, max_bytes: int) -> OpenedMessage:
    """Return the event's JSON and envelope. Raises MalformedEvent if the message is too large or unreadable."""
    if message.cut_from is not None:
        _refuse_size(message.cut_from.size, max_bytes)
    media_type = media_type_of(message.content_type)
    if media_type.startswith("application/cloudevents"):
        if media_type != "application/cloudevents+json":
            _raise_malformed(
                "content_type",
                f"{excerpt(media_type)} is not supported; send one event as application/cloudevents+json",
            )
        return _open_structured(_read_object(message.body, max_bytes), message.headers)
    data = _read_object(message.body, max_bytes)
    trace = traceparent_of(message.headers) if message.headers else None
    if attributes := read_binary_attributes(message.headers) if message.headers else {}:
        mistakes: list[InputIssue] = []
        _check_data_type(message.content_type, "content_type", mistakes)
        envelope = read_envelope(attributes, mistakes)
        unread = None if envelope is None else envelope.unread_time
        return OpenedMessage(data=data, envelope=envelope, mistakes=tuple(mistakes), trace=trace, unread_time=unread)
    if "specversion" in data:
        return _open_structured(data, message.headers)
    return OpenedMessage(data=data, trace=trace)


def read_json(body: bytes, max_bytes: int) -> object:
    """Parse a JSON text of at most `max_bytes` bytes. Raises MalformedEvent with the reason."""
    if len(body) > max_bytes:
        _refuse_size(len(body), max_bytes)
    body = body.removeprefix(b"\xef\xbb\xbf")
    if not body.strip():
        _raise_malformed("", "the message is empty; it must be a JSON object")
    try:
        return cast("object", from_json(body, cache_strings="keys"))
    except ValueError as error:
        _raise_malformed("", _explain_no_json(body, str(error)))


def _refuse_size(size: int, max_bytes: int) -> NoReturn:
    _raise_malformed("", f"the event has {size} bytes; at most {max_bytes} are allowed")


def _read_object(body: bytes, max_bytes: int) -> dict[str, object]:
    value = read_json(body, max_bytes)
    if not isinstance(value, dict):
        _raise_malformed("", f"must be a JSON object, not {kind_of(value)}")
    return value


def _explain_no_json(body: bytes, error: str) -> str:
    if body.startswith(_AMQP_1_0_BODIES):
        return "an AMQP 1.0 value; send the JSON as a data section, or as a value that is a string or binary"
    try:
        body.decode()
    except UnicodeDecodeError as broken:
        return f"not UTF-8: byte {broken.start} is 0x{body[broken.start]:02x}"
    if "recursion limit" in error:
        return "nested too deeply; 200 levels at most"
    return f"not JSON: {excerpt(error)}"


def _open_structured(envelope: dict[str, object], headers: Mapping[str, object]) -> OpenedMessage:
    """Return the content of a CloudEvent in structured mode. Raises MalformedEvent if its data is not an object."""
    mistakes: list[InputIssue] = []
    for name in (*_REQUIRED, "datacontenttype"):
        value = envelope.get(name)
        if value is not None and not isinstance(value, str):
            mistakes.append(InputIssue(name, f"must be a string, not {kind_of(value)}"))
    attributes = structured_attributes(envelope)
    _check_data_type(attributes.get("datacontenttype"), "datacontenttype", mistakes)
    read = read_envelope(attributes, mistakes)
    try:
        data = _structured_data(envelope)
    except MalformedEvent as error:
        raise MalformedEvent([*mistakes, *error.mistakes]) from None
    trace = traceparent_of(headers, envelope.get("traceparent"))
    unread = None if read is None else read.unread_time
    return OpenedMessage(
        data=data, envelope=read, path="data.", mistakes=tuple(mistakes), trace=trace, unread_time=unread
    )


def structured_attributes(event: Mapping[str, object]) -> dict[str, str]:
    """Return the text attributes of a CloudEvent in structured mode. A `time` of another type is converted to text."""
    attributes = {name: value for name, value in event.items() if isinstance(value, str)}
    if (time := event.get("time")) is not None:
        attributes["time"] = str(time)
    return attributes


def _structured_data(envelope: dict[str, object]) -> dict[str, object]:
    data, encoded = envelope.get("data"), envelope.get("data_base64")
    if encoded is None:
        if not isinstance(data, dict):
            _raise_malformed("data", f"must be the event, a JSON object, not {kind_of(data)}")
        return data
    if data is not None:
        _raise_malformed("data_base64", "only one of data and data_base64 may be given")
    if not isinstance(encoded, str):
        _raise_malformed("data_base64", f"must be a string, not {kind_of(encoded)}")
    try:
        body = base64.b64decode(encoded, validate=True)
        return _read_object(body, max_bytes=len(body))
    except (binascii.Error, ValueError):
        _raise_malformed("data_base64", "is not base64 (RFC 4648 §4)")
    except MalformedEvent as error:
        raise MalformedEvent([InputIssue("data_base64", mistake.text) for mistake in error.mistakes]) from None


def read_envelope(attributes: Mapping[str, str], mistakes: list[InputIssue]) -> Attributes | None:
    """Return the envelope with these attributes. Append its mistakes to `mistakes`; None if there are any."""
    reported = {mistake.path for mistake in mistakes}
    for name in _REQUIRED:
        if name in reported:
            continue
        value = attributes.get(name, "")
        if not value:
            mistakes.append(InputIssue(name, "is required by CloudEvents"))
        elif len(value) > MAX_TEXT_LENGTH or not value.isprintable():
            mistakes.append(InputIssue(name, f"must be printable and have at most {MAX_TEXT_LENGTH} characters"))
        elif name == "id" and len(value.encode()) > MAX_ID_BYTES:
            mistakes.append(InputIssue(name, f"must have at most {MAX_ID_BYTES} bytes in UTF-8"))
        elif name == "specversion" and value != "1.0":
            mistakes.append(InputIssue(name, f'must be "1.0", not "{excerpt(value)}"'))
    if mistakes:
        return None
    time, time_text = None, attributes.get("time")
    with suppress(ValueError):
        time = None if time_text is None else parse_moment(time_text)
    return Attributes(
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        time=time,
        unread_time=time_text if time is None else None,
    )


def read_binary_attributes(headers: Mapping[str, object]) -> dict[str, str]:
    """Return the CloudEvents attributes among the headers. Raises MalformedEvent above MAX_PERCENT_SIGNS."""
    texts = (_header_text(value) for header, value in headers.items() if header.lower().startswith(_ENCODED))
    if (count := sum(text.count("%") for text in texts)) > MAX_PERCENT_SIGNS:
        _raise_malformed("headers", f"ce-… have {count:,} percent signs; at most {MAX_PERCENT_SIGNS:,} are allowed")
    return binary_attributes(headers)


def binary_attributes(headers: Mapping[str, object]) -> dict[str, str]:
    """Return the CloudEvents attributes among the headers, by their lower-case names without the prefix.

    HTTP binding §3.1.3.2: values are percent-encoded over HTTP only. Those beyond MAX_PERCENT_SIGNS are left out.
    """
    attributes: dict[str, str] = {}
    left = MAX_PERCENT_SIGNS
    for header, value in headers.items():
        name = header.lower()
        if (prefix := next(filter(name.startswith, _PREFIXES), None)) is not None:
            text = _header_text(value)
            if prefix == _ENCODED:
                left -= text.count("%")
                if left < 0:
                    continue
                text = unquote(text, errors="replace")
            attributes[name[len(prefix) :]] = text
    return attributes


def is_attribute(header: str) -> bool:
    """Return True for the header of an attribute of a binary CloudEvent."""
    return header.lower().startswith(_PREFIXES)


def _header_text(value: object) -> str:
    """Return the value of an AMQP or HTTP header as text; an empty text if its type cannot be an attribute."""
    match value:
        case str():
            return value
        case bytes() | bytearray():
            return bytes(value).decode(errors="replace")
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case datetime():
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
        case _:
            return ""


def media_type_of(content_type: str | None) -> str:
    return content_type.partition(";")[0].strip().lower() if content_type else ""


def _check_data_type(content_type: str | None, path: str, mistakes: list[InputIssue]) -> None:
    media_type = media_type_of(content_type)
    if media_type and not media_type.endswith(("/json", "+json")):
        mistakes.append(InputIssue(path, f"must be application/json, not {excerpt(media_type)}"))


def _raise_malformed(path: str, text: str) -> NoReturn:
    raise MalformedEvent([InputIssue(path, text)])
