"""Writes deliveries and events into notifier's own messages, and reads them, so that any worker can continue them.

A document is JSON with a version, `"v": 1`. Members that a later release adds to the same version are ignored; a later
version is `UnknownVersion`, and is left to a worker that supports it. Moments are seconds since the epoch. A value that
no worker could process, such as a moment that is not a number, is refused here.

`schedule.due` shows people when a waiting message is due; the queue that holds it decides how it waits.

An event of more than 200 names is version 2, which writes a name as published, `"shop"`. Version 1 has only objects,
`{"client_id":"shop"}`, with 15 bytes more for each, which made an event of short names five times as large. A worker
that supports only version 1 leaves such an event to one with both.
"""

from typing import Literal, NotRequired, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic_core import from_json
from typing_extensions import TypedDict  # pydantic requires this TypedDict before Python 3.12

from notifier.model.delivery import Delivery, StoredCount
from notifier.model.documents.cloudevents import MAX_ID_BYTES
from notifier.model.errors import InputIssue, MalformedEvent, UnknownVersion
from notifier.model.frozen import frozen, replace
from notifier.model.printable import excerpt
from notifier.model.session_ended import ClientEntry, SessionEnded
from notifier.model.validation import to_issues

VERSION: Literal[1] = 1
NAMES_VERSION: Literal[2] = 2
NAMES = 200  # the limit of version 1: 3,000 bytes more than the original

T = TypeVar("T")


@frozen
class EventDocument:
    """An event that notifier published again: a part of a larger one, or an event of an unknown issuer.

    `bulk`: it arrived in the lane of mass logouts, and its parts go there again.
    """

    event: SessionEnded
    bulk: bool = False
    unknown_since: float | None = None
    deferrals: int = 0


_FINITE = ConfigDict(allow_inf_nan=False)


@with_config(_FINITE)
class _Schedule(TypedDict):
    due: float


@with_config(_FINITE)
class _DeliveryV1(TypedDict):
    v: Literal[1]
    delivery: Delivery
    schedule: NotRequired[_Schedule]


@with_config(_FINITE)
class _EventV1(TypedDict):
    v: Literal[1, 2]
    event: SessionEnded
    bulk: NotRequired[bool]
    unknown_since: NotRequired[float]
    deferrals: NotRequired[StoredCount]
    schedule: NotRequired[_Schedule]


_DELIVERY = TypeAdapter(_DeliveryV1)
_EVENT = TypeAdapter(_EventV1)


def dump_delivery(delivery: Delivery, *, due: float | None = None) -> bytes:
    """Return the body of a message that holds this delivery; `due` if it waits."""
    content: _DeliveryV1 = {"v": VERSION, "delivery": delivery}
    if due is not None:
        content["schedule"] = {"due": due}
    return _DELIVERY.dump_json(content, exclude_defaults=True)


def load_delivery(body: bytes) -> Delivery:
    """Return the delivery in this body. Raises MalformedEvent, or UnknownVersion for a later release's."""
    content = parse(_DELIVERY, body)
    delivery, schedule = content["delivery"], content.get("schedule")
    _check_id(delivery.id, "delivery.id")
    asked_until = schedule["due"] if schedule is not None and delivery.asked else None
    return replace(delivery, asked_until=asked_until) if asked_until != delivery.asked_until else delivery


def dump_event(document: EventDocument, *, due: float | None = None) -> bytes:
    """Return the body of a message that holds this event. `due`: when a deferred event is attempted."""
    version, event = to_written(document.event)
    content: _EventV1 = {"v": version, "event": event, "deferrals": document.deferrals}
    if document.bulk:
        content["bulk"] = True
    if document.unknown_since is not None:
        content["unknown_since"] = document.unknown_since
    if due is not None:
        content["schedule"] = {"due": due}
    return _EVENT.dump_json(content, exclude_defaults=True)


def load_event(body: bytes) -> EventDocument:
    """Return the event in this body. Raises MalformedEvent, or UnknownVersion for a later release's."""
    content = parse(_EVENT, body, latest=NAMES_VERSION)
    _check_id(content["event"].id, "event.id")
    return EventDocument(
        event=content["event"],
        bulk=content.get("bulk", False),
        unknown_since=content.get("unknown_since"),
        deferrals=content.get("deferrals", 0),
    )


def to_written(event: SessionEnded) -> tuple[Literal[1, 2], SessionEnded]:
    """Return the version of a document with this event, and the event as it is written there."""
    clients = event.clients
    if clients == "*":
        return VERSION, event
    if len(clients) > NAMES and sum(isinstance(entry, str) for entry in clients) > NAMES:
        return NAMES_VERSION, event
    objects = tuple(ClientEntry(client_id=entry) if isinstance(entry, str) else entry for entry in clients)
    return VERSION, replace(event, clients=objects)


def _check_id(text: str, path: str) -> None:
    """Refuse an id that is too long to become a `message_id`."""
    if len(text.encode()) > MAX_ID_BYTES:
        raise MalformedEvent([InputIssue(path, f"must have at most {MAX_ID_BYTES} bytes in UTF-8")])


def parse(adapter: TypeAdapter[T], body: bytes | str, *, latest: int = VERSION) -> T:
    """Parse a document of a type with versions up to `latest`. Raises MalformedEvent or UnknownVersion."""
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        later = _later_version(body, latest)
        if later is not None:
            raise UnknownVersion(
                f"version {excerpt(str(later), 20)} of a document; this release knows {latest}"
            ) from None
        raise MalformedEvent(to_issues(error, most=10)) from None


def _later_version(body: bytes | str, latest: int) -> int | None:
    try:
        content = from_json(body)
    except ValueError:
        return None
    version = content.get("v") if isinstance(content, dict) else None
    return version if isinstance(version, int) and version > latest else None
