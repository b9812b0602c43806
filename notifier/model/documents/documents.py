"""Writes deliveries and events into notifier's own messages, and reads them, so that any worker can continue them.

A document is JSON with a version, `"v": 1`. Unknown members of the same version are ignored. A later version raises
`UnknownVersion`, so that the message is left to a worker that supports it. Times are in epoch seconds; values that no
worker could process, such as an infinite time, are rejected.

`schedule.due` informs people when a pending message is due. The queue that contains the message determines its wait.

An event with more than 200 plain names has version 2, which contains a client as published, `"shop"`. Version 1 has
objects only, `{"client_id":"shop"}`, which can make an event of short names five times as large.
"""

from typing import Annotated, Any, Literal, NotRequired, TypeVar

from pydantic import (
    BeforeValidator,
    ConfigDict,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    WrapSerializer,
    with_config,
)
from pydantic_core import from_json
from typing_extensions import TypedDict  # pydantic requires this TypedDict before Python 3.12

from notifier.model.delivery import Delivery
from notifier.model.documents.cloudevents import MAX_ID_BYTES
from notifier.model.errors import InputIssue, MalformedEvent, UnknownVersion
from notifier.model.message import Kind, MessageDraft
from notifier.model.printable import excerpt
from notifier.model.progress import Progress, StoredCount
from notifier.model.record import copy_record, record
from notifier.model.session_ended import ClientEntry, SessionEnded
from notifier.model.validation import to_issues

STORED_PATH, NESTED_PATH = "delivery.", "delivery.progress."  # of a member of the progress, in JSON and for pydantic
_SERIALIZER = TypeAdapter(Progress).serializer


def _nest_progress(members: object) -> object:
    """Return the members in the form of the classes. Each class ignores members that it lacks, so both get all."""
    return {**members, "progress": members} if isinstance(members, dict) else members


def _flatten_progress(delivery: Delivery, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
    """Return the members of the delivery and then those of its progress."""
    progress: dict[str, Any] = _SERIALIZER.to_python(delivery.progress, mode="json", exclude_defaults=True)
    return {**dump(delivery), **progress}


StoredDelivery = Annotated[Delivery, BeforeValidator(_nest_progress), WrapSerializer(_flatten_progress)]


VERSION: Literal[1] = 1
NAMES_VERSION: Literal[2] = 2
MAX_VERSION_1_NAMES = 200  # they take 3,000 bytes more than in the original event

T = TypeVar("T")


@record
class EventDocument:
    """An event that notifier writes: a part of a larger event, or a postponed event.

    `bulk`: it arrived in the lane `bulk`, to which its parts are published. `part`: a part, to which no followers are
    added. A postponed event has `unknown_since` (epoch seconds) and `deferrals`.
    """

    event: SessionEnded
    bulk: bool = False
    part: bool = False
    unknown_since: float | None = None
    deferrals: int = 0


_FINITE = ConfigDict(allow_inf_nan=False)


@with_config(_FINITE)
class _Schedule(TypedDict):
    due: float


@with_config(_FINITE)
class _DeliveryV1(TypedDict):
    v: Literal[1]
    delivery: StoredDelivery
    schedule: NotRequired[_Schedule]


@with_config(_FINITE)
class _EventV1(TypedDict):
    v: Literal[1, 2]
    event: SessionEnded
    bulk: NotRequired[bool]
    part: NotRequired[bool]
    unknown_since: NotRequired[float]
    deferrals: NotRequired[StoredCount]
    schedule: NotRequired[_Schedule]


class _Pending(TypedDict):
    schedule: NotRequired[_Schedule]


_DELIVERY = TypeAdapter(_DeliveryV1)
_EVENT = TypeAdapter(_EventV1)
_PENDING = TypeAdapter(_Pending)


def dump_delivery(delivery: Delivery, *, due: float | None = None) -> bytes:
    """Return the body of a message with this delivery. `due`: when a pending delivery is due, in epoch seconds."""
    content: _DeliveryV1 = {"v": VERSION, "delivery": delivery}
    if due is not None:
        content["schedule"] = {"due": due}
    return _DELIVERY.dump_json(content, exclude_defaults=True)


def load_delivery(body: bytes) -> Delivery:
    """Return the delivery in this body. Raises MalformedEvent, or UnknownVersion if a later release wrote it."""
    content = parse(_DELIVERY, body)
    delivery, schedule = content["delivery"], content.get("schedule")
    _check_id(delivery.id, "delivery.id")
    due = schedule["due"] if schedule is not None and delivery.progress.delayed_by_client else None
    if due == delivery.progress.delayed_until:
        return delivery
    return copy_record(delivery, progress=delivery.progress.with_delayed_until(due))


def load_due(body: bytes) -> float | None:
    """Return when the pending message with this body is due, in epoch seconds; None if unknown. Never raises."""
    try:
        return _PENDING.validate_json(body)["schedule"]["due"]
    except (ValidationError, KeyError):
        return None


def add_due(outgoing: MessageDraft, due: float) -> MessageDraft:
    """Return the message of a delivery or event with the time when it is due; any other message unchanged."""
    if outgoing.kind is not Kind.DELIVERY and outgoing.kind is not Kind.EVENT:
        return outgoing
    return copy_record(outgoing, body=b'%b,"schedule":{"due":%.3f}}' % (outgoing.body[:-1], due))


def dump_event(document: EventDocument, *, due: float | None = None) -> bytes:
    """Return the body of a message with this event. `due`: when a postponed event is due, in epoch seconds."""
    version, event = to_written(document.event)
    content: _EventV1 = {"v": version, "event": event, "deferrals": document.deferrals}
    if document.bulk:
        content["bulk"] = True
    if document.part:
        content["part"] = True
    if document.unknown_since is not None:
        content["unknown_since"] = document.unknown_since
    if due is not None:
        content["schedule"] = {"due": due}
    return _EVENT.dump_json(content, exclude_defaults=True)


def load_event(body: bytes) -> EventDocument:
    """Return the event in this body. Raises MalformedEvent, or UnknownVersion if a later release wrote it."""
    content = parse(_EVENT, body, latest=NAMES_VERSION)
    _check_id(content["event"].id, "event.id")
    return EventDocument(
        event=content["event"],
        bulk=content.get("bulk", False),
        part=content.get("part", False),
        unknown_since=content.get("unknown_since"),
        deferrals=content.get("deferrals", 0),
    )


def to_written(event: SessionEnded) -> tuple[Literal[1, 2], SessionEnded]:
    """Return the version of a document with this event, and the event in the form of that version.

    It has no misspelt members: they are reported where the event is first read.
    """
    if event.misspelt:
        event = copy_record(event, misspelt=())
    clients = event.clients
    if clients == "*":
        return VERSION, event
    name_count = sum(isinstance(entry, str) for entry in clients) if len(clients) > MAX_VERSION_1_NAMES else 0
    if name_count > MAX_VERSION_1_NAMES:
        return NAMES_VERSION, event
    objects = tuple(ClientEntry(client_id=entry) if isinstance(entry, str) else entry for entry in clients)
    return VERSION, copy_record(event, clients=objects)


def _check_id(text: str, path: str) -> None:
    """Raise MalformedEvent if the id is too long for the AMQP property `message_id`."""
    if len(text.encode()) > MAX_ID_BYTES:
        raise MalformedEvent([InputIssue(path, f"must have at most {MAX_ID_BYTES} bytes in UTF-8")])


def parse(adapter: TypeAdapter[T], body: bytes | str, *, latest: int = VERSION) -> T:
    """Parse a document of a type with versions up to `latest`. Raises MalformedEvent or UnknownVersion."""
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        if (version := _find_later_version(body, latest)) is not None:
            text = f"version {excerpt(str(version), 20)} of a document; this release knows {latest}"
            raise UnknownVersion(text) from None
        # A path is that in the document, where no progress is nested.
        issues = [(each.path.replace(NESTED_PATH, STORED_PATH), each.text) for each in to_issues(error, most=10)]
        raise MalformedEvent([InputIssue(path, text) for path, text in issues]) from None


def _find_later_version(body: bytes | str, latest: int) -> int | None:
    try:
        content = from_json(body)
    except ValueError:
        return None
    version = content.get("v") if isinstance(content, dict) else None
    return version if isinstance(version, int) and version > latest else None
