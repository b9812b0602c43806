"""Deliveries in queues during a rolling update: what an earlier release wrote is read and written without a change.

`stored_deliveries.jsonl` has the bodies of `DELIVERIES` and then of `DEAD`, as written by the release in which a
delivery had the members of its progress itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from notifier.model.client import Algorithm
from notifier.model.delivery import ClientOverrides
from notifier.model.documents.dead_letter import dead_letter_delivery, dump_dead_letter, load_dead_letter
from notifier.model.documents.documents import dump_delivery, load_delivery
from notifier.model.message import Kind, Lane, Message
from notifier.model.outcome import DeadReason
from notifier.model.progress import PastOutcome, RecordedWaits
from notifier.model.reply import ReplyTo
from tests.support.deliveries import make_delivery

NOW = 1_800_000_000.0
TASK: dict[str, Any] = {
    "id": "d1", "event_id": "e1", "id_given": True, "iss": "https://id.example", "client_id": "shop", "sub": "alice",
    "sid": None,
}  # fmt: skip
EVENT: dict[str, Any] = {
    "id": "d2", "event_id": "e/2", "id_given": True, "iss": "https://id.example", "client_id": "app", "sub": "José",
    "sid": "s2", "entry_sub": True, "email": "jose@example.com",
    "inline": ClientOverrides(
        backchannel_logout_uri="https://app.example/out", backchannel_logout_session_required=True,
        id_token_signed_response_alg=Algorithm.ES256,
    ),
    "ended_at": NOW - 99.5, "not_after": NOW + 9999.25, "reason": "admin", "source": "login", "publisher": "idp",
    "claimed_publisher": "other", "trace": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "reply_to": ReplyTo(to="replies", correlation_id="c1", of=3),
}  # fmt: skip
PAST = (
    PastOutcome(at=NOW - 60.5, reason="timeout", text="no response within 10 s"),
    PastOutcome(at=NOW - 30.125, reason="server_error", status=503, text='{"error":"später"}\n\x7f'),
)
FULL: dict[str, Any] = EVENT | {
    "attempts": 2, "rejections": 1, "ambiguous": True, "first_taken_at": NOW - 70, "first_attempt_at": NOW - 60.5,
    "uncounted_seconds": 2.5, "waits": RecordedWaits(seconds=61.75, since=NOW, longest=8.0, undated=True),
    "waited_for": ("signing", "circuit"), "deferrals": 3, "deferred_for": "circuit", "probe_due": NOW + 16,
    "slot_at": NOW + 0.1, "backoffs": 1, "charged_at": NOW - 30.125, "delayed_by_client": True,
    "unknown_since": NOW - 50, "history": PAST,
}  # fmt: skip
PARKED: dict[str, Any] = TASK | {
    "first_taken_at": NOW - 3, "waits": RecordedWaits(since=NOW, longest=1024.0), "waited_for": ("circuit",),
    "deferrals": 1, "deferred_for": "circuit", "parked": True,
}  # fmt: skip
IGNORED: dict[str, Any] = TASK | {
    "ignored": ClientOverrides(backchannel_logout_uri="https://evil.example/", vouched=True)
}

DELIVERIES: Mapping[str, tuple[Mapping[str, Any], float | None]] = {
    "minimal": (TASK, None),
    "full": (FULL, NOW + 16),
    "parked": (PARKED, NOW + 64),
    "ignored overrides": (IGNORED, NOW + 0.5),
}
DEAD: Mapping[str, Mapping[str, Any]] = {"minimal": TASK, "full": FULL, "parked": PARKED}
STORED = (Path(__file__).parent / "stored_deliveries.jsonl").read_bytes().splitlines()
STORED_DELIVERIES = dict(zip(DELIVERIES, STORED, strict=False))
STORED_DEAD = dict(zip(DEAD, STORED[len(DELIVERIES) :], strict=True))


def dump_dead(members: Mapping[str, Any]) -> bytes:
    """Return the body of the dead letter of this delivery."""
    return dump_dead_letter(dead_letter_delivery(make_delivery(**members), DeadReason.EXPIRED, "too old", NOW)).body


@pytest.mark.parametrize("name", DELIVERIES)
def test_a_delivery_is_written_as_before(name: str) -> None:
    """A worker of the earlier release reads it."""
    members, due = DELIVERIES[name]
    assert dump_delivery(make_delivery(**members), due=due) == STORED_DELIVERIES[name]


@pytest.mark.parametrize("name", DELIVERIES)
def test_a_delivery_of_the_earlier_release_is_read_and_written_unchanged(name: str) -> None:
    """With all that it records. `delayed_until` is not stored, but follows from `schedule.due`."""
    members, due = DELIVERIES[name]
    delivery = load_delivery(STORED_DELIVERIES[name])
    delayed_until = due if delivery.progress.delayed_by_client else None
    assert delivery == make_delivery(**members, delayed_until=delayed_until)
    assert dump_delivery(delivery, due=due) == STORED_DELIVERIES[name]


@pytest.mark.parametrize("name", DEAD)
def test_a_dead_letter_is_written_as_before_but_not_parked(name: str) -> None:
    """It is in the queue `dead`, not in a bucket."""
    assert dump_dead(DEAD[name]) == STORED_DEAD[name].replace(b',"parked":true', b"")


@pytest.mark.parametrize("name", DEAD)
def test_a_dead_letter_of_the_earlier_release_is_read(name: str) -> None:
    """With all that its delivery records."""
    letter = load_dead_letter(Message(lane=Lane.EVENTS, body=STORED_DEAD[name], tag=None, kind=Kind.DEAD_LETTER))
    assert letter.delivery == make_delivery(**DEAD[name])
    assert (letter.reason, letter.text, letter.dead_since) == (DeadReason.EXPIRED, "too old", NOW)
