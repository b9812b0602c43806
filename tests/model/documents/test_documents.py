"""Test documents of notifier: they are read back unchanged, and other bodies are refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model.client import Algorithm
from notifier.model.delivery import ClientOverrides, Delivery
from notifier.model.documents.dead_letter import dump_dead_letter, load_dead_letter
from notifier.model.documents.documents import (
    MAX_VERSION_1_NAMES,
    EventDocument,
    dump_delivery,
    dump_event,
    load_delivery,
    load_event,
)
from notifier.model.errors import MalformedEvent
from notifier.model.message import Kind, Lane, Message, MessageDraft
from notifier.model.outcome import Cause, DeadReason
from notifier.model.progress import PastOutcome
from notifier.model.session_ended import ClientEntry, SessionEnded
from tests.recorded.story import kept
from tests.support.deliveries import make_delivery, replace

DELIVERY = Delivery(id="d", event_id="e", id_given=True, iss="i", client_id="c", sub="s", sid=None)
EVENT = SessionEnded(id="e", id_given=False, iss="i", sub="s", sid=None, clients=(ClientEntry(client_id="c"),))

_TEXT = st.text(max_size=6)
_NAME = st.none() | _TEXT
_TIME = st.none() | st.floats(0, 4e9)
_ALG = st.none() | st.sampled_from(Algorithm)
_FLAG = st.none() | st.booleans()
_INLINE = st.builds(
    ClientOverrides,
    backchannel_logout_uri=_NAME,
    backchannel_logout_session_required=_FLAG,
    id_token_signed_response_alg=_ALG,
)
_PAST = st.builds(PastOutcome, at=st.floats(0, 4e9), reason=_TEXT, status=st.none() | st.integers(200, 599), text=_TEXT)
DELIVERIES = st.builds(
    make_delivery, id=_TEXT, event_id=_TEXT, id_given=st.booleans(), iss=_TEXT, client_id=_TEXT, sub=_NAME, sid=_NAME,
    entry_sub=st.booleans(), inline=st.none() | _INLINE, ended_at=_TIME, not_after=_TIME, reason=_NAME, source=_NAME,
    publisher=_NAME, claimed_publisher=_NAME, attempts=st.integers(0, 99), rejections=st.integers(0, 99),
    ambiguous=st.booleans(), first_taken_at=_TIME, first_attempt_at=_TIME, uncounted_seconds=st.floats(0, 1e9),
    waited_for=st.lists(st.sampled_from(Cause), unique=True).map(tuple), deferrals=st.integers(0, 99),
    deferred_for=st.none() | st.sampled_from(Cause), unknown_since=_TIME,
    history=st.lists(_PAST, max_size=10).map(tuple),
)  # fmt: skip
_ENTRY = st.builds(
    ClientEntry, client_id=_TEXT, backchannel_logout_uri=_NAME, backchannel_logout_session_required=_FLAG,
    id_token_signed_response_alg=_ALG, sub=_NAME, sid=_NAME,
)  # fmt: skip
EVENTS = st.builds(
    SessionEnded, id=_TEXT, id_given=st.booleans(), iss=_TEXT, sub=_NAME, sid=_NAME,
    clients=st.just("*") | st.lists(_ENTRY, max_size=4).map(tuple), ended_at=_TIME, not_after=_TIME,
    reason=_NAME, source=_NAME, type=_NAME, publisher=_NAME, claimed_publisher=_NAME,
)  # fmt: skip


@given(DELIVERIES, _TIME)
def test_delivery_is_read_back_unchanged(delivery: Delivery, due: float | None) -> None:
    """Any worker can continue."""
    assert load_delivery(dump_delivery(delivery, due=due)) == delivery


@pytest.mark.parametrize(("names", "version"), [(MAX_VERSION_1_NAMES, 1), (MAX_VERSION_1_NAMES + 1, 2)])
def test_event_of_many_names_does_not_grow(names: int, version: int) -> None:
    """Names are plain from this release on; version 1 does not support it: an older worker leaves it to others."""
    clients = tuple(f"c{index}" for index in range(names))
    event = SessionEnded(id="e", id_given=True, iss="i", sub="s", sid=None, clients=clients)
    body = dump_event(EventDocument(event=event))
    assert json.loads(body)["v"] == version
    assert len(body) <= len(json.dumps(clients)) + 15 * MAX_VERSION_1_NAMES + 200
    found = load_event(body).event.clients
    assert found == (clients if version == 2 else tuple(ClientEntry(client_id=name) for name in clients))


def test_cause_of_a_later_release_is_kept() -> None:
    """During an update its workers defer deliveries too. The cause is kept for them and for the story."""
    waits = replace(DELIVERY, waited_for=("origin", "tides"), deferred_for="tides", deferrals=2)
    assert load_delivery(dump_delivery(waits)) == waits


@given(st.builds(EventDocument, event=EVENTS, unknown_since=_TIME, deferrals=st.integers(0, 99)), _TIME)
def test_event_is_read_back_unchanged(document: EventDocument, due: float | None) -> None:
    """Any worker can plan the rest."""
    assert load_event(dump_event(document, due=due)) == document


@pytest.mark.parametrize("load", [load_delivery, load_event])
@given(body=st.binary(max_size=50) | st.sampled_from([b"", b"{}", b'{"v": 1}', b'{"v": 0}', b'{"v": "2"}', b"[2]"]))
def test_a_broken_document_is_malformed(load: Any, body: bytes) -> None:
    """No other exception is raised."""
    with pytest.raises(MalformedEvent) as caught:
        load(body)
    assert caught.value.mistakes


@pytest.mark.parametrize("due", ["NaN", "1e999"])
def test_invalid_due_time_is_refused(due: str) -> None:
    """A document with such a time is not trusted."""
    body = dump_delivery(DELIVERY).decode().removesuffix("}")
    with pytest.raises(MalformedEvent, match="schedule"):
        load_delivery(f'{body},"schedule":{{"due": {due}}}}}'.encode())


def test_delivery_is_not_read_as_an_event() -> None:
    """The two kinds are distinguished even without their label."""
    with pytest.raises(MalformedEvent):
        load_event(dump_delivery(DELIVERY))
    with pytest.raises(MalformedEvent):
        load_delivery(dump_event(EventDocument(event=EVENT)))


# ── Dead letters of other releases: they are kept for long, and any release can show and replay them ─────────────────


def message_from(sent: MessageDraft) -> Message:
    return Message(lane=Lane.RETRIES, body=sent.body, tag=None, kind=Kind(sent.kind), headers=sent.headers)


LETTERS = {name: message for name, message in kept("written").items() if message.queue == "dead"}


REFUSED = LETTERS["dead-letter-refused"]


@pytest.mark.parametrize(
    ("name", "reason"), [("refused", DeadReason.REFUSED), ("malformed", DeadReason.MALFORMED_EVENT)]
)
def test_a_recorded_dead_letter_is_read(name: str, reason: DeadReason) -> None:
    """Writing it again with this release yields the same document."""
    recorded = LETTERS[f"dead-letter-{name}"]
    letter = load_dead_letter(recorded.message())
    assert letter.reason is reason
    again = dump_dead_letter(letter)
    assert load_dead_letter(message_from(again)) == letter
    assert json.loads(again.body) == recorded.body
    assert {name: again.headers[name] for name in recorded.headers} == recorded.headers


def test_a_mistake_in_the_progress_has_the_path_of_the_document() -> None:
    """In which the members of the progress are beside those of the delivery."""
    body = dump_delivery(replace(DELIVERY, attempts=1)).replace(b'"attempts":1', b'"attempts":-1')
    with pytest.raises(MalformedEvent, match=r"^delivery\.attempts: must be greater than or equal to 0$"):
        load_delivery(body)
