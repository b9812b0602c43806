"""What audit systems read: CloudEvents by a published schema."""

import json

import pytest
from jsonschema import Draft202012Validator

from notifier.features.feed.feed_event import REASONS, dump_feed_event, feed_message, feed_schema
from notifier.model.notice import (
    ClientChange,
    ClientNotice,
    DeliveryResult,
    FeedNotice,
    LastAttempt,
    Notice,
    SkipReason,
)
from notifier.model.outcome import DeadReason, Reason

SOURCE = "/notifier/notifier"
WHOLE = Notice(
    id="0b1c", at=1_800_000_000.25, fate=DeliveryResult.RETRYING, reason="timeout", iss="https://id.example.com",
    client_id="shop.example", event_id="e1", delivery_id="d1", publisher="idp", ended_at=1_799_999_999.5,
    propagation=None, next_due=1_800_000_002.0,
    last_attempt=LastAttempt(number=3, jti="0b1c", status=None, seconds=5.000125),
)  # fmt: skip


CLIENT = ClientNotice(id="a", at=0.0, state=ClientChange.FAILING, iss="https://id.example.com", client_id="shop")
BARE = Notice(
    id="b",
    at=1.5,
    fate=DeliveryResult.SKIPPED,
    reason=SkipReason.NO_URI,
    iss="\u2028",
    client_id="",
    event_id="e",
    propagation=0.25,
)


@pytest.mark.parametrize("notice", [WHOLE, BARE, CLIENT])
def test_a_notice_matches_the_schema(notice: FeedNotice) -> None:
    """Of a delivery with all there is and with the least, and of a client."""
    Draft202012Validator(feed_schema()).validate(json.loads(dump_feed_event(notice, SOURCE)))


def test_it_is_a_cloudevent() -> None:
    """Of the structured mode: CloudEvents 1.0 §3.1's required attributes stand beside `data`."""
    event = json.loads(dump_feed_event(WHOLE, SOURCE))
    data = event.pop("data")
    assert event == {
        "specversion": "1.0",
        "id": "0b1c",
        "source": SOURCE,
        "type": "notifier.delivery.v1",
        "time": "2027-01-15T08:00:00.250000Z",
        "datacontenttype": "application/json",
    }
    assert data == {
        "fate": "retrying",
        "reason": "timeout",
        "iss": "https://id.example.com",
        "client_id": "shop.example",
        "event_id": "e1",
        "delivery_id": "d1",
        "publisher": "idp",
        "ended_at": "2027-01-15T07:59:59.500000Z",
        "next_due": "2027-01-15T08:00:02.000000Z",
        "attempt": 3,
        "attempt_seconds": 5.000125,
        "jti": "0b1c",
    }


def test_routing_keys_and_headers() -> None:
    """Codes are in the key, names in headers: client ids hold dots."""
    whole, client = (feed_message(each, SOURCE) for each in (WHOLE, CLIENT))
    assert (whole.routing_key, client.routing_key) == ("retrying.timeout", "client.failing")
    assert whole.headers == {"iss": "https://id.example.com", "client_id": "shop.example", "event_id": "e1"}
    assert all(len(f"{fate}.{reason}") <= 255 for fate in DeliveryResult for reason in REASONS)


def test_the_schema_names_every_reason() -> None:
    """Of attempts and of dead letters, and why a client is skipped."""
    enum = set(feed_schema()["$defs"]["Delivery"]["properties"]["reason"]["enum"])
    assert enum == {*Reason, *DeadReason, *SkipReason}
    Draft202012Validator.check_schema(feed_schema())
