"""The publisher's trace is read from where W3C and CloudEvents put it, and kept with each delivery."""

from collections.abc import Mapping

import pytest

from notifier.delivery.intake import deliveries
from notifier.model.delivery import Delivery
from notifier.model.documents.documents import dump_delivery, load_delivery
from notifier.model.documents.event_document import read_event
from notifier.model.documents.trace_context import parts, traceparent_of
from notifier.model.message import Lane, Message
from notifier.model.registry import Issuer, Registry

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
    """W3C Trace Context §3.2 and CloudEvents' distributed tracing extension, which comes first."""
    assert traceparent_of(headers, extension) == found


def test_its_parts() -> None:
    """Trace id, span id, and True if the publisher records the trace."""
    assert parts(SENT) == (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True)
    assert parts(OTHER)[2] is False


def test_it_stays_with_the_delivery() -> None:
    """From the structured envelope through the plan into the document of a retry, and back."""
    body = (
        b'{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "traceparent": "%s",'
        b' "data": {"iss": "https://i", "sub": "u", "clients": ["shop"]}}'
    ) % SENT.encode()
    message = Message(lane=Lane.EVENTS, body=body, tag=None, content_type="application/cloudevents+json")
    event = read_event(message, max_bytes=10_000, new_id=lambda: "x", now=0.0)
    [delivery] = deliveries(event, Registry(issuers={"https://i": Issuer(iss="https://i")}), 0.0)
    assert isinstance(delivery, Delivery)
    assert load_delivery(dump_delivery(delivery)).trace == SENT
