"""Serialize the events of the feed: results of deliveries, and clients that fail or recover.

Each is a CloudEvent 1.0 in structured mode (JSON). It contains reason codes and the `jti` of the sent token, but no
token, error text, `sub` or `sid`. `notifier schema outcome` prints the schema. Readers must ignore unknown members. An
incompatible change gets another `type`.
"""

import json
from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypeAliasType, TypedDict  # pydantic wants this TypedDict before Python 3.12

from notifier.model.moment import format_moment, format_optional_moment
from notifier.model.notice import ClientChange, ClientNotice, DeliveryResult, FeedNotice, SkipReason
from notifier.model.outcome import DeadReason, Reason
from notifier.queues.queue_port import FeedMessage

DELIVERY_TYPE: Final = "notifier.delivery.v1"
CLIENT_TYPE: Final = "notifier.client.v1"
REASONS = tuple(dict.fromkeys([*map(str, Reason), *map(str, DeadReason), *SkipReason]))


def feed_message(notice: FeedNotice, source: str) -> FeedMessage:
    """Return a notice as a message for an exchange. The routing key is `<fate>.<reason>`, or `client.<state>`.

    Client IDs are in headers, by which bindings can select. In a routing key, their dots would separate words.
    `source` is `/notifier/<queue.prefix>`.
    """
    if isinstance(notice, ClientNotice):
        event_id, routing_key = "", f"client.{notice.state}"
    else:
        event_id, routing_key = notice.event_id, f"{notice.fate}.{notice.reason}"
    headers = {"iss": notice.iss, "client_id": notice.client_id, "event_id": event_id}
    return FeedMessage(
        id=notice.id,
        routing_key=routing_key,
        headers={name: value.encode(errors="replace").decode() for name, value in headers.items()},
        content_type="application/cloudevents+json",
        body=dump_feed_event(notice, source),
    )


# ── the schema ──────────────────────────────────────────────────────────────────────────────────────────────────

_Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
_Text = Annotated[str, Field(max_length=4096)]
_Seconds = Annotated[float, Field(ge=0)]
_OPEN_CONFIG = ConfigDict(extra="allow", allow_inf_nan=False)
# These two names are in the schema, from which readers generate code.
_Fate = TypeAliasType(
    "_Fate",
    Annotated[
        Literal[DeliveryResult.DELIVERED, DeliveryResult.RETRYING, DeliveryResult.DEAD, DeliveryResult.SKIPPED],
        Field(description="The result of a delivery. `retrying` is not final: another attempt is due."),
    ],
)
_State = TypeAliasType(
    "_State",
    Annotated[
        Literal[ClientChange.FAILING, ClientChange.RECOVERED],
        Field(description="What happened to the client: it went down, or it is well again."),
    ],
)


@with_config(_OPEN_CONFIG)
class _Delivery(TypedDict):
    fate: Annotated[_Fate, Field(description="retrying is not final: another attempt is due.")]
    reason: Annotated[_Text, Field(description="Why, as in the metrics.", json_schema_extra={"enum": [*REASONS]})]
    iss: Annotated[_Text, Field(description="Empty where a message could not be read.")]
    client_id: Annotated[_Text, Field(description="Empty where a whole event was given up.")]
    event_id: _Text
    delivery_id: NotRequired[Annotated[_Text, Field(description="The same through all attempts.")]]
    publisher: NotRequired[Annotated[_Text, Field(description="Who published the event, as the queue or API knows.")]]
    ended_at: NotRequired[Annotated[_Moment, Field(description="When the session ended.")]]
    propagation_seconds: NotRequired[Annotated[_Seconds, Field(description="From ended_at until it was delivered.")]]
    next_due: NotRequired[Annotated[_Moment, Field(description="When the next attempt is due, if retrying.")]]
    attempt: NotRequired[Annotated[int, Field(ge=1, description="The number of the attempt that led to this.")]]
    jti: NotRequired[Annotated[_Text, Field(description="Of the token that this attempt sent.")]]
    status: NotRequired[Annotated[int, Field(description="Of the client's answer.")]]
    attempt_seconds: NotRequired[Annotated[_Seconds, Field(description="How long the attempt took.")]]


@with_config(_OPEN_CONFIG)
class _Client(TypedDict):
    state: Annotated[_State, Field(description="failing: the client went down. recovered: it is well again.")]
    iss: _Text
    client_id: _Text


@with_config(_OPEN_CONFIG)
class _Envelope(TypedDict):
    specversion: Literal["1.0"]
    id: Annotated[_Text, Field(min_length=1, description="The same for a copy of the same outcome.")]
    source: Annotated[str, Field(min_length=1, description="/notifier/<queue.prefix>")]
    time: _Moment
    datacontenttype: NotRequired[Literal["application/json"]]


@with_config(_OPEN_CONFIG)
class _DeliveryEvent(_Envelope):
    type: Literal["notifier.delivery.v1"]
    data: _Delivery


@with_config(_OPEN_CONFIG)
class _ClientEvent(_Envelope):
    type: Literal["notifier.client.v1"]
    data: _Client


_EVENT: TypeAdapter[_DeliveryEvent | _ClientEvent] = TypeAdapter(
    Annotated[_DeliveryEvent | _ClientEvent, Field(discriminator="type")]
)


def feed_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of an event of the feed."""
    schema = _to_public(_EVENT.json_schema())
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "An outcome event of notifier"}
    return {**head, **schema}


def _to_public(schema: Any) -> Any:
    """Return a schema without the underscores of its private names, and without the titles, which repeat names."""
    match schema:
        case dict():
            members = {name: _to_public(value) for name, value in schema.items() if name != "title"}
            if "$defs" in members:
                members["$defs"] = {name.lstrip("_"): value for name, value in members["$defs"].items()}
            return members
        case list():
            return [_to_public(value) for value in schema]
        case str():
            return schema.replace("#/$defs/_", "#/$defs/")
        case _:
            return schema


def dump_feed_event(notice: FeedNotice, source: str) -> bytes:
    """Return a notice as a CloudEvent. `source` is `/notifier/<queue.prefix>`."""
    content = {
        "specversion": "1.0",
        "id": notice.id,
        "source": source,
        "type": CLIENT_TYPE if isinstance(notice, ClientNotice) else DELIVERY_TYPE,
        "time": format_moment(notice.at),
        "datacontenttype": "application/json",
        "data": _to_data(notice),
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _to_data(notice: FeedNotice) -> dict[str, object]:
    """Return the member `data` of the event."""
    if isinstance(notice, ClientNotice):
        return {"state": notice.state, "iss": notice.iss, "client_id": notice.client_id}
    data: dict[str, object] = {
        "fate": notice.fate,
        "reason": notice.reason,
        "iss": notice.iss,
        "client_id": notice.client_id,
        "event_id": notice.event_id,
    }
    optional: dict[str, object] = {
        "delivery_id": notice.delivery_id or None,
        "publisher": notice.publisher,
        "ended_at": format_optional_moment(notice.ended_at),
        "propagation_seconds": None if notice.propagation is None else round(notice.propagation, 6),
        "next_due": format_optional_moment(notice.next_due),
    }
    if (last := notice.last_attempt) is not None:
        optional |= {"attempt": last.number, "attempt_seconds": round(last.seconds, 6)}
        optional |= {"jti": last.jti, "status": last.status}
    return data | {name: value for name, value in optional.items() if value is not None}
