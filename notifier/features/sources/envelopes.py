"""Take the documents of a source's message out of their envelopes: CloudEvents, a SET, MassTransit, a list.

CloudEvents, also in batches, and Security Event Tokens (SET) are detected. The settings of the source name the other
envelopes, the outermost first. Each member of a list is a document, and each document is an event. A message
that cannot be read raises MalformedEvent.
"""

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from notifier.features.sources.expression_functions import normalize_name, normalize_names
from notifier.features.sources.expressions import EvaluationError, Expression, ExpressionReader
from notifier.model.documents.cloudevents import (
    media_type_of,
    read_binary_attributes,
    read_envelope,
    read_json,
    structured_attributes,
    traceparent_of,
)
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.message import Message
from notifier.model.moment import parse_moment
from notifier.model.printable import excerpt
from notifier.model.record import copy_record, record
from notifier.model.validation import kind_of
from notifier.tokens.security_event_token import parse_claims

LINES = "lines"
MAX_EVENTS = 5_000  # of one message; in 128 KiB, each has 26 bytes
_SET_TYPE = "application/secevent+jwt"  # RFC 8935 §2
_BATCH_TYPE = "application/cloudevents-batch+json"  # CloudEvents JSON format §4
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MASSTRANSIT_TYPE = "application/vnd.masstransit"


@record
class UnwrappedDocument:
    """A JSON document with the members of its envelope.

    `envelope`: the value of `"$envelope"` in expressions. `id`, `time` (epoch seconds): those of the envelope.
    `unread_time`: the text of the time if it cannot be parsed. `source`, `type`: attributes of CloudEvents. `trace`:
    the `traceparent`. `index`: the position in the list of an `EventList`, or among all documents of nested lists; None
    without an `EventList`.
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
    """The errors of a line that is not JSON, or of an event of a batch, beside other documents that can be read."""

    mistakes: tuple[InputIssue, ...]


@dataclass(frozen=True, slots=True)
class EventList:
    """An envelope: an expression that returns a list, each member of which is a document."""

    expression: Expression


Envelope: TypeAlias = Callable[[UnwrappedDocument, Message], UnwrappedDocument] | EventList
"""Takes a document out of its envelope."""


def is_empty(message: Message) -> bool:
    """Return whether the body was sent empty, as the tombstone of a log-compacted topic is."""
    return message.cut_from is None and not message.body.removeprefix(_BYTE_ORDER_MARK).strip()


def read_documents(
    message: Message, max_bytes: int, *, lines: bool = False, ignore_case: bool = False
) -> list[UnwrappedDocument]:
    """Return the document of a message, or the documents of a batch, out of CloudEvents and SETs.

    `lines`: the body may also be JSON lines. `ignore_case`: convert names to lower case, and remove `_`.
    """
    if media_type_of(message.content_type) == _BATCH_TYPE:
        documents = list(_read_batch(read_json(message.body, max_bytes), message, max_bytes))
    else:
        documents = [_read_document(message, max_bytes, lines=lines)]
    if ignore_case:
        return [copy_record(document, data=normalize_names(document.data)) for document in documents]
    return documents


def _read_batch(batch: object, message: Message, max_bytes: int) -> Iterator[UnwrappedDocument]:
    """Yield the document of each CloudEvent. An event with an error becomes an UnreadablePart."""
    if not isinstance(batch, list):
        _refuse(f"is {kind_of(batch)}; a batch of CloudEvents is an array")
    if len(batch) > MAX_EVENTS:
        _refuse(f"holds {len(batch):,} events; {MAX_EVENTS:,} at most")
    for member in batch:
        try:
            if not isinstance(member, dict):
                _refuse(f"is {kind_of(member)}, not a CloudEvent")
            yield _read_structured(member, message, max_bytes)
        except MalformedEvent as wrong:
            yield UnwrappedDocument(data=UnreadablePart(wrong.mistakes))


def _read_structured(event: dict[str, object], message: Message, max_bytes: int) -> UnwrappedDocument:
    """Return the document in a CloudEvent in structured mode: the JSON in `data` or `data_base64`."""
    data, encoded = event.get("data"), event.get("data_base64")
    if data is None and isinstance(encoded, str):
        data = read_json(_decode_base64(encoded), max_bytes)
    trace = traceparent_of(message.headers, event.get("traceparent"))
    return copy_record(_from_cloudevent(data, structured_attributes(event), trace), envelope=event)


def _read_document(message: Message, max_bytes: int, *, lines: bool) -> UnwrappedDocument:
    """Return the document of a message that is not a batch: bare JSON, a SET, or in a CloudEvent of either mode.

    `lines`: bare JSON may be JSON lines. The list of them is one document.
    """
    media_type = media_type_of(message.content_type)
    first_character = message.body[:64].removeprefix(_BYTE_ORDER_MARK).lstrip()[:1]
    if "xml" in media_type or first_character == b"<":
        _refuse(f"is XML ({excerpt(media_type or 'no content type')}); have its publisher use a JSON serializer")
    if media_type.startswith(_MASSTRANSIT_TYPE) and media_type != f"{_MASSTRANSIT_TYPE}+json":
        _refuse(f"is {excerpt(media_type)}; have its publisher use MassTransit's JSON serializer")
    trace = traceparent_of(message.headers) if message.headers else None
    if media_type == _SET_TYPE:
        return UnwrappedDocument(data=parse_claims(message.body, max_bytes), trace=trace)
    data = _read_json_lines(message.body, max_bytes) if lines else read_json(message.body, max_bytes)
    attributes = read_binary_attributes(message.headers) if message.headers else {}
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
    """Return the documents in the documents of a message, by its source's `envelopes`.

    A list replaces its document by its members, with their position as `index`. If lists are nested, `index` is the
    position among all documents. `names`: the values of `$headers` and `$properties`.
    """
    list_levels = int(len(documents) > 1)  # a batch is a list, too
    for envelope in envelopes:
        if isinstance(envelope, EventList):
            list_levels += 1
            documents = [
                member
                for document in documents
                for member in _list_members(document, envelope.expression, names, ignore_case=ignore_case)
            ]
            if len(documents) > MAX_EVENTS:
                _refuse(f"holds {len(documents):,} events; {MAX_EVENTS:,} at most")
        else:
            documents = [envelope(document, message) for document in documents]
    if list_levels <= 1:
        return documents
    return [copy_record(document, index=index) for index, document in enumerate(documents)]


def unwrap_masstransit(document: UnwrappedDocument, message: Message) -> UnwrappedDocument:
    """Return the message in MassTransit's envelope. Without one (raw serializer), add the id in the headers."""
    data = document.data
    members = _normalize_members(data) if isinstance(data, dict) else {}
    is_declared = media_type_of(message.content_type).startswith(_MASSTRANSIT_TYPE)
    is_envelope = "message" in members and ("messageid" in members or "messagetype" in members)
    if not is_declared and not is_envelope:
        return copy_record(document, id=_find_header(message.headers, "messageid") or document.id)
    if members.get("message") is None:
        _refuse("is MassTransit's envelope without `message`")
    message_id = members.get("messageid")
    if not isinstance(message_id, str) or not message_id:
        message_id = document.id
    times = _read_times(document, members.get("senttime"))
    return copy_record(document, data=members["message"], envelope=data, id=message_id, **times)


ENVELOPES: Mapping[str, Callable[[UnwrappedDocument, Message], UnwrappedDocument]] = {
    "masstransit": unwrap_masstransit,
    "cloudevents": lambda document, _message: document,  # done by `read_documents`
}


def _normalize_members(data: dict[str, object]) -> dict[str, object]:
    """Return the members with normalized names. With `ignore_case`, the names are normalized already."""
    is_normalized = "messageid" in data
    return data if is_normalized else {normalize_name(name): value for name, value in data.items()}


def _list_members(
    document: UnwrappedDocument, expression: Expression, names: Mapping[str, object], *, ignore_case: bool
) -> Iterator[UnwrappedDocument]:
    """Yield a document for each member of the list that the expression returns. Yield an UnreadablePart as it is."""
    if isinstance(document.data, UnreadablePart):
        yield document
        return
    try:
        names = {**names, "$envelope": document.envelope}
        members = ExpressionReader(document.data, names, ignore_case=ignore_case).evaluate(expression)
    except EvaluationError as error:
        _refuse(str(error))
    if not isinstance(members, list):
        _refuse(f"`{excerpt(expression.text, 60)}` must give a list, not {kind_of(members)}")
    for index, member in enumerate(members):
        yield UnwrappedDocument(
            data=member, envelope=document.data, time=document.time, unread_time=document.unread_time,
            type=document.type, trace=document.trace, index=index,
        )  # fmt: skip


def _from_cloudevent(data: object, attributes: Mapping[str, str], trace: str | None) -> UnwrappedDocument:
    """Return a document with the attributes of its CloudEvent, which are validated."""
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
    """Return the documents in a body of JSON lines as a list. A line that is not JSON becomes an UnreadablePart.

    The body may also be one JSON document with line breaks. If the document is a list, its members are returned.
    """
    try:
        document = read_json(body, max_bytes)
    except MalformedEvent:
        lines = [line for line in body.split(b"\n") if line.strip()]
        if len(body) > max_bytes or len(lines) < 2:
            raise
        documents = [_read_line(line, max_bytes) for line in lines]
        if not any(isinstance(item, dict) for item in documents):
            raise  # it is one malformed document with line breaks
        return documents
    return document if isinstance(document, list) else [document]


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
    """Return the text of a header, whose `name` is in lower case; None if it is missing, empty or no text."""
    value = next((value for header, value in headers.items() if header.lower() == name), None)
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return value if isinstance(value, str) and value else None


def _read_times(document: UnwrappedDocument, sent_time: object) -> Mapping[str, Any]:
    """Return the members `time` and `unread_time` by the envelope's time. Without a time they stay as they are."""
    if sent_time is None:
        return {"time": document.time, "unread_time": document.unread_time}
    try:
        return {"time": parse_moment(str(sent_time)), "unread_time": None}
    except ValueError:
        return {"time": None, "unread_time": str(sent_time)}


def _refuse(text: str) -> NoReturn:
    raise MalformedEvent([InputIssue("", text)])
