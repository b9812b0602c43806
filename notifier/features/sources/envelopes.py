"""Unwrap the envelopes of a source's message: CloudEvents, a SET, MassTransit, a list.

CloudEvents, also in batches, and Security Event Tokens are detected automatically. The source names the others, from
the outermost inwards. A list contains several documents, each a separate event. Errors are raised as MalformedEvent.
"""

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from notifier.features.sources.expression_functions import normalize_name, normalize_names
from notifier.features.sources.expressions import EvaluationError, Expression, ExpressionReader
from notifier.model.documents.cloudevents import (
    binary_attributes,
    media_type_of,
    read_envelope,
    read_json,
    structured_attributes,
    traceparent_of,
)
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.frozen import frozen, replace
from notifier.model.message import Message
from notifier.model.moment import parse_moment
from notifier.model.printable import excerpt
from notifier.model.validation import kind_of
from notifier.tokens.security_event_token import parse_claims

LINES = "lines"
MAX_EVENTS = 5_000  # of one message; in 128 KiB, that leaves 26 bytes for each
_SET_TYPE = "application/secevent+jwt"  # RFC 8935 §2
_BATCH_TYPE = "application/cloudevents-batch+json"  # CloudEvents JSON format §4
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MASSTRANSIT_TYPE = "application/vnd.masstransit"


@frozen
class UnwrappedDocument:
    """A JSON document with the data of its envelope.

    `envelope` is the value of `"$envelope"`. `id` and `time` (epoch seconds) are the envelope's; `unread_time` is the
    text of its time if that is unreadable. `source` is the CloudEvents attribute. `index` is the document's position
    in the list of an `EventList`, or among all documents if lists are nested; None without such a list.
    """

    data: object
    envelope: object = None
    id: str | None = None
    time: float | None = None
    source: str | None = None
    type: str | None = None
    trace: str | None = None
    index: int | None = None
    unread_time: str | None = None


@dataclass(frozen=True, slots=True)
class UnreadablePart:
    """An unreadable line, or an unreadable event of a batch, among readable ones."""

    mistakes: tuple[InputIssue, ...]


@dataclass(frozen=True, slots=True)
class EventList:
    """An expression that gives a list. Each member is a separate document."""

    expression: Expression


Envelope: TypeAlias = Callable[[UnwrappedDocument, Message], UnwrappedDocument] | EventList
"""Takes a document out of its envelope."""


def is_empty(message: Message) -> bool:
    """Return whether the body is empty, as a tombstone's is."""
    return message.cut_from is None and not message.body.removeprefix(_BYTE_ORDER_MARK).strip()


def read_documents(
    message: Message, max_bytes: int, *, lines: bool = False, ignore_case: bool = False
) -> list[UnwrappedDocument]:
    """Return the JSON in the message, without CloudEvents or the signature of a SET: one document, or those of a batch.

    `lines`: accept JSON lines too. `ignore_case`: convert all member names to lower case and remove `_`.
    """
    if media_type_of(message.content_type) == _BATCH_TYPE:
        documents = list(_read_batch(read_json(message.body, max_bytes), message, max_bytes))
    else:
        documents = [_read_document(message, max_bytes, lines=lines)]
    return [replace(each, data=normalize_names(each.data)) for each in documents] if ignore_case else documents


def _read_batch(listed: object, message: Message, max_bytes: int) -> Iterator[UnwrappedDocument]:
    if not isinstance(listed, list):
        _refuse(f"is {kind_of(listed)}; a batch of CloudEvents is an array")
    if len(listed) > MAX_EVENTS:
        _refuse(f"holds {len(listed):,} events; {MAX_EVENTS:,} at most")
    for member in listed:
        try:
            if not isinstance(member, dict):
                _refuse(f"is {kind_of(member)}, not a CloudEvent")
            yield _read_structured(member, message, max_bytes)
        except MalformedEvent as wrong:
            yield UnwrappedDocument(data=UnreadablePart(wrong.mistakes))


def _read_structured(event: dict[str, object], message: Message, max_bytes: int) -> UnwrappedDocument:
    """Open a CloudEvent in the structured mode."""
    inner = event.get("data")
    if inner is None and isinstance(encoded := event.get("data_base64"), str):
        inner = read_json(_decode_base64(encoded), max_bytes)
    texts = structured_attributes(event)
    trace = traceparent_of(message.headers, event.get("traceparent"))
    return replace(_from_cloudevent(inner, texts, trace), envelope=event)


def _read_document(message: Message, max_bytes: int, *, lines: bool) -> UnwrappedDocument:
    media_type = media_type_of(message.content_type)
    if "xml" in media_type or message.body[:64].removeprefix(_BYTE_ORDER_MARK).lstrip()[:1] == b"<":
        _refuse(f"is XML ({excerpt(media_type or 'no content type')}); have its publisher use a JSON serializer")
    if media_type.startswith(_MASSTRANSIT_TYPE) and media_type != f"{_MASSTRANSIT_TYPE}+json":
        _refuse(f"is {excerpt(media_type)}; have its publisher use MassTransit's JSON serializer")
    trace = traceparent_of(message.headers) if message.headers else None
    if media_type == _SET_TYPE:
        return UnwrappedDocument(data=parse_claims(message.body, max_bytes, signed=True), trace=trace)
    data = _read_json_lines(message.body, max_bytes) if lines else read_json(message.body, max_bytes)
    attributes = binary_attributes(message.headers) if message.headers else {}
    if attributes and "specversion" in attributes:
        return _from_cloudevent(data, attributes, trace)
    if isinstance(data, dict) and "specversion" in data:
        return _read_structured(data, message, max_bytes)
    return UnwrappedDocument(data=data, trace=trace)


def unwrap_documents(
    documents: list[UnwrappedDocument],
    envelopes: Sequence[Envelope],
    message: Message,
    names: Mapping[str, object],
    *,
    ignore_case: bool = False,
) -> Sequence[UnwrappedDocument]:
    """Remove these envelopes from each document. Raises MalformedEvent.

    Members get their position in the list as `index` or, if lists are nested, their position among all.
    """
    list_levels = int(len(documents) > 1)
    for envelope in envelopes:
        if isinstance(envelope, EventList):
            list_levels += 1
            documents = [
                member
                for outer in documents
                for member in _list_members(outer, envelope.expression, names, ignore_case=ignore_case)
            ]
            if len(documents) > MAX_EVENTS:
                _refuse(f"holds {len(documents):,} events; {MAX_EVENTS:,} at most")
        else:
            documents = [envelope(inner, message) for inner in documents]
    return [replace(inner, index=index) for index, inner in enumerate(documents)] if list_levels > 1 else documents


def unwrap_masstransit(document: UnwrappedDocument, message: Message) -> UnwrappedDocument:
    """Take the message out of MassTransit's envelope. A body without one (raw serializer) is returned unchanged."""
    data = document.data
    names = _normalize_data(data) if isinstance(data, dict) else {}
    declared = media_type_of(message.content_type).startswith(_MASSTRANSIT_TYPE)
    if not declared and not ("message" in names and ("messageid" in names or "messagetype" in names)):
        return replace(document, id=_find_header(message.headers, "messageid") or document.id)
    inner = names.get("message")
    if inner is None:
        _refuse("is MassTransit's envelope without `message`")
    sent, message_id = names.get("senttime"), names.get("messageid")
    return replace(
        document,
        data=inner,
        envelope=data,
        id=message_id if isinstance(message_id, str) and message_id else document.id,
        **_read_times(document, sent),
    )


ENVELOPES: Mapping[str, Callable[[UnwrappedDocument, Message], UnwrappedDocument]] = {
    "masstransit": unwrap_masstransit,
    "cloudevents": lambda document, _message: document,  # already unwrapped
}


def _normalize_data(data: dict[str, object]) -> dict[str, object]:
    return data if "messageid" in data else {normalize_name(name): value for name, value in data.items()}


def _list_members(
    document: UnwrappedDocument, expression: Expression, names: Mapping[str, object], *, ignore_case: bool
) -> Iterator[UnwrappedDocument]:
    if isinstance(document.data, UnreadablePart):
        yield document
        return
    try:
        names = {**names, "$envelope": document.envelope}
        listed = ExpressionReader(document.data, names, ignore_case=ignore_case).evaluate(expression)
    except EvaluationError as failed:
        _refuse(str(failed))
    if not isinstance(listed, list):
        _refuse(f"`{excerpt(expression.text, 60)}` must give a list, not {kind_of(listed)}")
    for index, member in enumerate(listed):
        yield UnwrappedDocument(
            data=member, envelope=document.data, time=document.time, unread_time=document.unread_time,
            type=document.type, trace=document.trace, index=index,
        )  # fmt: skip


def _from_cloudevent(data: object, attributes: Mapping[str, str], trace: str | None) -> UnwrappedDocument:
    mistakes: list[InputIssue] = []
    envelope = read_envelope(attributes, mistakes)
    if envelope is None:
        raise MalformedEvent(mistakes)
    return UnwrappedDocument(
        data=data,
        envelope=dict(attributes),
        id=envelope.id,
        time=envelope.time,
        unread_time=envelope.unread_time,
        source=envelope.source,
        type=envelope.type,
        trace=trace,
    )


def _read_json_lines(body: bytes, max_bytes: int) -> object:
    """Return JSON lines as a list. A single document becomes a list of one, unless it is a list."""
    try:
        whole = read_json(body, max_bytes)
    except MalformedEvent:
        lines = [line for line in body.split(b"\n") if line.strip()]
        if len(body) > max_bytes or len(lines) < 2:
            raise
        read = [_read_line(line, max_bytes) for line in lines]
        if not any(isinstance(item, dict) for item in read):
            raise
        return read
    return whole if isinstance(whole, list) else [whole]


def _read_line(line: bytes, max_bytes: int) -> object:
    try:
        return read_json(line, max_bytes)
    except MalformedEvent as wrong:
        return UnreadablePart((InputIssue("", f"the line is {wrong.mistakes[0].text}"),))


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        _refuse("data_base64 is not base64 (RFC 4648 §4)")


def _find_header(headers: Mapping[str, object], name: str) -> str | None:
    """Return the header of this name (case-insensitive) if it is a non-empty text."""
    value = next((value for header, value in headers.items() if header.lower() == name), None)
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return text if isinstance(text, str) and text else None


def _read_times(document: UnwrappedDocument, sent: object) -> Mapping[str, Any]:
    """Return `time` and `unread_time` of a document, from the time of its envelope (None if it has none)."""
    if sent is None:
        return {"time": document.time, "unread_time": document.unread_time}
    try:
        return {"time": parse_moment(str(sent)), "unread_time": None}
    except ValueError:
        return {"time": None, "unread_time": str(sent)}


def _refuse(text: str) -> NoReturn:
    raise MalformedEvent([InputIssue("", text)])
