"""The publisher's trace context is read as W3C and CloudEvents define it, and kept with each delivery."""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from notifier.messages.message_planner import make_deliveries
from notifier.model.delivery import Delivery
from notifier.model.documents.cloudevents import binary_attributes, parse_traceparent, traceparent_of
from notifier.model.documents.documents import dump_delivery, load_delivery
from notifier.model.documents.event_document import read_event
from notifier.model.message import Lane, Message
from notifier.model.registry import Issuer, Registry
from notifier.model.session_ended import SessionEnded
from tests.model.documents.test_event_document import mistakes, read

SENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-00"


@pytest.mark.parametrize(
    ("headers", "extension", "found"),
    [
        ({"traceparent": SENT}, None, SENT),
        ({"traceparent": SENT.encode()}, None, SENT),
        ({"cloudEvents_traceparent": SENT, "traceparent": OTHER}, None, SENT),
        ({"cloudEvents:traceparent": SENT}, None, SENT),
        ({"ce-traceparent": SENT, "traceparent": OTHER}, None, SENT),
        ({"traceparent": OTHER}, SENT, SENT),
        ({"traceparent": SENT}, "nonsense", SENT),
        ({}, None, None),
        ({"traceparent": 17}, {"a": 1}, None),
        ({"traceparent": SENT.upper()}, None, None),
        ({"traceparent": "ff" + SENT[2:]}, None, None),
        ({"traceparent": "01" + SENT[2:] + "-more"}, None, "01" + SENT[2:]),
        ({"traceparent": SENT + "00"}, None, None),
        ({"traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01"}, None, None),
        ({"traceparent": f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01"}, None, None),
    ],
)
def test_a_well_formed_traceparent_is_found(
    headers: Mapping[str, object], extension: object, found: str | None
) -> None:
    """W3C Trace Context §3.2 and CloudEvents' distributed tracing extension, which takes precedence."""
    assert traceparent_of(headers, extension) == found


def test_parts_of_a_traceparent() -> None:
    """Trace id, span id, and True if the publisher records the trace."""
    assert parse_traceparent(SENT) == (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True)
    assert parse_traceparent(OTHER)[2] is False


def test_trace_context_stays_with_the_delivery() -> None:
    """From the structured envelope through the plan into the document of a retry, and back."""
    body = (
        b'{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "traceparent": "%s",'
        b' "data": {"iss": "https://i", "sub": "u", "clients": ["shop"]}}'
    ) % SENT.encode()
    message = Message(lane=Lane.EVENTS, body=body, tag=None, content_type="application/cloudevents+json")
    event = read_event(message, max_bytes=10_000, new_id=lambda: "x", now=0.0)
    [delivery] = make_deliveries(event, Registry(issuers={"https://i": Issuer(iss="https://i")}), 0.0)
    assert isinstance(delivery, Delivery)
    assert load_delivery(dump_delivery(delivery)).trace == SENT


# ── CloudEvents 1.0, structured and binary, over AMQP and HTTP headers ───────────────────────────────────────────────


STRUCTURED = "application/cloudevents+json"
EVENT: dict[str, object] = {"iss": "https://id.example.com", "sub": "ann", "clients": ["shop"]}
ATTRIBUTES: dict[str, object] = {
    "specversion": "1.0",
    "id": "ce-1",
    "source": "/realms/a",
    "type": "com.example.session.ended",
    "time": "2026-01-31T12:00:00Z",
}


def prefixed(prefix: str, attributes: Mapping[str, object]) -> dict[str, object]:
    return {f"{prefix}{name}": value for name, value in attributes.items()}


def assert_is_the_event(event: SessionEnded) -> None:
    assert (event.id, event.id_given) == ("ce-1", True)
    assert event.source == "/realms/a"
    assert event.type == "com.example.session.ended"
    assert event.ended_at == 1769860800.0
    assert event.sub == "ann"


@pytest.mark.parametrize(
    "content_type", [STRUCTURED, "Application/CloudEvents+JSON; charset=utf-8", "application/json", None]
)
def test_an_envelope_is_known_by_its_content_type_or_its_specversion(content_type: str | None) -> None:
    """Structured mode. Many AMQP clients set no content type."""
    assert_is_the_event(read(ATTRIBUTES | {"data": EVENT}, content_type=content_type))


def test_data_may_be_base64() -> None:
    """CloudEvents JSON format §3.1."""
    data = base64.b64encode(json.dumps(EVENT).encode()).decode()
    assert_is_the_event(read(ATTRIBUTES | {"data_base64": data}))


@pytest.mark.parametrize("prefix", ["cloudEvents_", "cloudEvents:", "ce-", "CE-", "cloudevents:"])
@pytest.mark.parametrize("content_type", ["application/json", "application/vnd.example+json; charset=utf-8", None])
def test_attributes_may_be_headers(prefix: str, content_type: str | None) -> None:
    """Binary mode: each prefix of the bindings, in any case."""
    assert_is_the_event(read(EVENT, headers=prefixed(prefix, ATTRIBUTES), content_type=content_type))


def test_header_values_may_be_of_any_amqp_type() -> None:
    """AMQP libraries write strings as bytes, numbers as integers and times as timestamps."""
    attributes = {
        "specversion": b"1.0",
        "id": 17,
        "source": bytearray(b"/realms/a"),
        "type": "t",
        "time": datetime(2026, 1, 31, 12, tzinfo=UTC),
        "unknown": [1],
        "known": True,
    }
    event = read(EVENT, headers=prefixed("cloudEvents:", attributes))
    assert (event.id, event.source, event.ended_at) == ("17", "/realms/a", 1769860800.0)
    naive = datetime(2026, 1, 31, 12)  # noqa: DTZ001  pamqp returns naive times in UTC
    assert read(EVENT, headers=prefixed("cloudEvents:", attributes | {"time": naive})).ended_at == 1769860800.0


def test_http_header_values_are_percent_encoded() -> None:
    """HTTP binding §3.1.3.2. AMQP values are not encoded."""
    attributes = ATTRIBUTES | {"source": "/a%20b"}
    assert read(EVENT, headers=prefixed("ce-", attributes)).source == "/a b"
    assert read(EVENT, headers=prefixed("cloudEvents_", attributes)).source == "/a%20b"


@pytest.mark.parametrize("prefix", ["ce-", "CE-"])
def test_encoded_attributes_are_bounded(prefix: str) -> None:
    """60 headers of 500 percent signs blocked the event loop for 6 ms. The limit is for all attributes together."""
    attributes = ATTRIBUTES | {"subject": "%20" * 400, "other": "%" * 600}
    assert read(EVENT, headers=prefixed(prefix, attributes)).id == ATTRIBUTES["id"]
    too_many = prefixed(prefix, attributes | {"another": "%"})
    assert mistakes(EVENT, headers=too_many) == ["headers: ce-… have 1,001 percent signs; at most 1,000 are allowed"]
    assert binary_attributes(too_many) == {**ATTRIBUTES, "subject": " " * 400, "other": "%" * 600}
    assert read(EVENT, headers=prefixed("cloudEvents_", ATTRIBUTES | {"other": "%" * 1001})).id == ATTRIBUTES["id"]


def test_other_headers_are_ignored() -> None:
    """Bare JSON stays bare beside tracing headers."""
    event = read(EVENT, headers={"traceparent": "00-1-2-03", "cerise": "red"}, content_type="text/plain")
    assert (event.id, event.source, event.type) == ("new", None, None)


def test_the_body_overrides_its_envelope() -> None:
    """`id` and `ended_at` of the body take precedence."""
    event = read(ATTRIBUTES | {"data": EVENT | {"id": "own", "ended_at": "2026-01-31T11:00:00Z"}})
    assert (event.id, event.ended_at) == ("own", 1769857200.0)


@pytest.mark.parametrize("name", ["id", "source", "type", "specversion"])
def test_required_cloudevents_attributes(name: str) -> None:
    """CloudEvents 1.0 §3.1, in both modes."""
    attributes = {key: value for key, value in ATTRIBUTES.items() if key != name}
    expected = [f"{name}: is required by CloudEvents"]
    assert mistakes(attributes | {"data": EVENT}, content_type=STRUCTURED) == expected
    assert mistakes(EVENT, headers=prefixed("ce-", attributes)) == expected
    assert mistakes(EVENT, headers=prefixed("ce-", attributes | {name: ""})) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"specversion": "0.3"}, ['specversion: must be "1.0", not "0.3"']),
        ({"id": 7}, ["id: must be a string, not a number"]),
        ({"id": "é" * 200}, ["id: must have at most 255 bytes in UTF-8"]),
        ({"source": "a\nb"}, ["source: must be printable and have at most 1024 characters"]),
        ({"datacontenttype": "text/xml"}, ["datacontenttype: must be application/json, not text/xml"]),
        ({"data": "text"}, ["data: must be the event, a JSON object, not a string"]),
        ({"data": None}, ["data: must be the event, a JSON object, not null"]),
        ({"data_base64": "e30="}, ["data_base64: only one of data and data_base64 may be given"]),
        ({"data": None, "data_base64": 7}, ["data_base64: must be a string, not a number"]),
        ({"data": None, "data_base64": "é"}, ["data_base64: is not base64 (RFC 4648 §4)"]),
        ({"data": None, "data_base64": "W10="}, ["data_base64: must be a JSON object, not an array"]),
    ],
)
def test_each_envelope_error_is_reported(change: dict[str, object], expected: list[str]) -> None:
    """Structured mode."""
    assert mistakes(ATTRIBUTES | {"data": EVENT} | change) == expected


@pytest.mark.parametrize("time", ["yesterday", "2026-01-31T12:00:00", 1769860800])
def test_a_time_that_cannot_be_read_is_dropped(time: object) -> None:
    """In both modes, also if the event has a time."""
    event = read(ATTRIBUTES | {"data": EVENT, "time": time})
    assert (event.ended_at, event.unread) == (None, ("time",))
    event = read(EVENT, headers=prefixed("ce-", ATTRIBUTES | {"time": str(time)}))
    assert (event.ended_at, event.unread) == (None, ("time",))
    event = read(ATTRIBUTES | {"data": EVENT | {"ended_at": "2026-01-31T12:00:00Z"}, "time": time})
    assert (event.ended_at, event.unread) == (1769860800.0, ("time",))


@pytest.mark.parametrize("content_type", ["application/cloudevents-batch+json", "application/cloudevents+avro"])
def test_batches_and_other_formats_are_refused(content_type: str) -> None:
    """One event per message, in JSON."""
    (found,) = mistakes([EVENT], content_type=content_type)
    assert found == f"content_type: {content_type} is not supported; send one event as application/cloudevents+json"


def test_binary_data_must_be_json() -> None:
    """In binary mode the content type of the message is that of the event."""
    expected = ["content_type: must be application/json, not text/xml"]
    assert mistakes(EVENT, headers=prefixed("ce-", ATTRIBUTES), content_type="text/xml") == expected
