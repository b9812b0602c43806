"""What is told to audit systems: what became of a delivery, or that a client began or ceased to fail.

Written as CloudEvents 1.0 in the structured mode: one JSON text that says all, whatever it travels by. They bear codes
and the `jti` of the token that was sent, never a token, a rendered error, a `sub` or a `sid`. Moments are seconds since
the epoch here, RFC 3339 in the text. `notifier schema outcome` describes it; members that a reader does not know are to
be ignored, and what would break a reader comes with another `type`.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, NamedTuple, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.domain.cloudevents import echo
from notifier.domain.errors import MalformedEvent, Mistake
from notifier.domain.moment import read_moment, render_moment
from notifier.domain.outcome import DeadReason, Reason

CONTENT_TYPE = "application/cloudevents+json"
DELIVERY_TYPE: Final = "notifier.delivery.v1"
CLIENT_TYPE: Final = "notifier.client.v1"
NO_URI = "no_uri"  # why a client is skipped
REASONS = tuple(dict.fromkeys([*map(str, Reason), *map(str, DeadReason), NO_URI]))


class Fate(StrEnum):
    """What became of a delivery. `retrying` is not the last word: another attempt is due."""

    DELIVERED = "delivered"
    RETRYING = "retrying"
    DEAD = "dead"
    SKIPPED = "skipped"


class State(StrEnum):
    """What became of a client's circuit: it opened, or it closed."""

    FAILING = "failing"
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The last attempt: its number, the `jti` of its token (None where none was minted), how it was answered."""

    attempt: int
    jti: str | None
    status: int | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryTold:
    """What became of a delivery. `id` is the same wherever it is told again. `propagation` in seconds since `ended_at`.

    `delivery_id` is empty where a whole event was given up; `sent` None where no attempt led to it.
    """

    id: str
    at: float
    fate: Fate
    reason: str
    iss: str
    client_id: str
    event_id: str
    delivery_id: str = ""
    publisher: str | None = None
    ended_at: float | None = None
    propagation: float | None = None
    next_due: float | None = None
    sent: Sent | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTold:
    """A client began or ceased to fail."""

    id: str
    at: float
    state: State
    iss: str
    client_id: str


Told = DeliveryTold | ClientTold


class Seen(NamedTuple):
    """What a report needs of an outcome that was kept. `fate` may be a state of a client's, too."""

    at: float
    fate: str
    reason: str
    iss: str
    client_id: str
    propagation: float | None


def routing_key(told: Told) -> str:
    """`<fate>.<reason>`, or `client.failing` and `client.recovered`."""
    return f"client.{told.state}" if isinstance(told, ClientTold) else f"{told.fate}.{told.reason}"


def headers(told: Told) -> dict[str, str]:
    """What a consumer may bind or filter by: a routing key cannot hold client ids, since they hold dots."""
    event_id = told.event_id if isinstance(told, DeliveryTold) else ""
    named = {"iss": told.iss, "client_id": told.client_id, "event_id": event_id}
    return {name: value.encode(errors="replace").decode() for name, value in named.items()}


# ── as written ──────────────────────────────────────────────────────────────────────────────────────────────────

_Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
_Text = Annotated[str, Field(max_length=4096)]
_Seconds = Annotated[float, Field(ge=0)]
_OPEN = ConfigDict(extra="allow", allow_inf_nan=False)


@with_config(_OPEN)
class _Delivery(TypedDict):
    fate: Annotated[Fate, Field(description="retrying is not the last word: another attempt is due.")]
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


@with_config(_OPEN)
class _Client(TypedDict):
    state: Annotated[State, Field(description="failing: the circuit opened. recovered: it closed.")]
    iss: _Text
    client_id: _Text


@with_config(_OPEN)
class _Envelope(TypedDict):
    specversion: Literal["1.0"]
    id: Annotated[_Text, Field(min_length=1, description="The same for a copy of the same outcome.")]
    source: Annotated[str, Field(min_length=1, description="/notifier/<queue.prefix>")]
    time: _Moment
    datacontenttype: NotRequired[Literal["application/json"]]


@with_config(_OPEN)
class _DeliveryEvent(_Envelope):
    type: Literal["notifier.delivery.v1"]
    data: _Delivery


@with_config(_OPEN)
class _ClientEvent(_Envelope):
    type: Literal["notifier.client.v1"]
    data: _Client


_EVENT: TypeAdapter[_DeliveryEvent | _ClientEvent] = TypeAdapter(
    Annotated[_DeliveryEvent | _ClientEvent, Field(discriminator="type")]
)


def outcome_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of an outcome event."""
    schema = _public(_EVENT.json_schema())
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "An outcome event of notifier"}
    return {**head, **schema}


def _public(schema: Any) -> Any:
    """Without the names of our own types, and titles that only repeat them."""
    match schema:
        case dict():
            kept = {name: _public(value) for name, value in schema.items() if name != "title"}
            if "$defs" in kept:
                kept["$defs"] = {name.lstrip("_"): value for name, value in kept["$defs"].items()}
            return kept
        case list():
            return [_public(value) for value in schema]
        case str():
            return schema.replace("#/$defs/_", "#/$defs/")
        case _:
            return schema


def dump_told(told: Told, source: str) -> bytes:
    """As a CloudEvent. `source` names this notifier: `/notifier/<queue.prefix>`."""
    content = {
        "specversion": "1.0",
        "id": told.id,
        "source": source,
        "type": CLIENT_TYPE if isinstance(told, ClientTold) else DELIVERY_TYPE,
        "time": render_moment(told.at),
        "datacontenttype": "application/json",
        "data": _client_data(told) if isinstance(told, ClientTold) else _delivery_data(told),
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _client_data(told: ClientTold) -> dict[str, str]:
    return {"state": told.state, "iss": told.iss, "client_id": told.client_id}


def _delivery_data(told: DeliveryTold) -> _Delivery:
    data: _Delivery = {
        "fate": told.fate,
        "reason": told.reason,
        "iss": told.iss,
        "client_id": told.client_id,
        "event_id": told.event_id,
    }
    if told.delivery_id:
        data["delivery_id"] = told.delivery_id
    if told.publisher is not None:
        data["publisher"] = told.publisher
    if told.ended_at is not None:
        data["ended_at"] = render_moment(told.ended_at)
    if told.propagation is not None:
        data["propagation_seconds"] = round(told.propagation, 6)
    if told.next_due is not None:
        data["next_due"] = render_moment(told.next_due)
    if (sent := told.sent) is not None:
        data["attempt"] = sent.attempt
        data["attempt_seconds"] = round(sent.seconds, 6)
        if sent.jti is not None:
            data["jti"] = sent.jti
        if sent.status is not None:
            data["status"] = sent.status
    return data


# ── as read ─────────────────────────────────────────────────────────────────────────────────────────────────────


def load_told(body: bytes) -> Told:
    """An outcome event as anybody may have written it. Raises MalformedEvent."""
    try:
        event = _EVENT.validate_json(body)
        at = read_moment(event["time"])
        if event["type"] == CLIENT_TYPE:
            client = event["data"]
            return ClientTold(
                id=event["id"], at=at, state=client["state"], iss=client["iss"], client_id=client["client_id"]
            )
        return _delivery_told(event["id"], at, event["data"])
    except ValidationError as error:
        raise MalformedEvent(
            [
                Mistake(echo(".".join(map(str, detail["loc"]))), echo(detail["msg"]))
                for detail in error.errors(include_url=False, include_input=False, include_context=False)[:10]
            ]
        ) from None
    except ValueError as error:
        raise MalformedEvent([Mistake("", echo(str(error)))]) from None


def _delivery_told(id_: str, at: float, data: _Delivery) -> DeliveryTold:
    sent = None
    if "attempt" in data:
        sent = Sent(
            attempt=data["attempt"],
            jti=data.get("jti"),
            status=data.get("status"),
            seconds=data.get("attempt_seconds", 0.0),
        )
    return DeliveryTold(
        id=id_,
        at=at,
        fate=data["fate"],
        reason=data["reason"],
        iss=data["iss"],
        client_id=data["client_id"],
        event_id=data["event_id"],
        delivery_id=data.get("delivery_id", ""),
        publisher=data.get("publisher"),
        ended_at=read_moment(data["ended_at"]) if "ended_at" in data else None,
        propagation=data.get("propagation_seconds"),
        next_due=read_moment(data["next_due"]) if "next_due" in data else None,
        sent=sent,
    )
