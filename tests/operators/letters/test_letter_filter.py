"""Rows and filters: what a list tells of any message among the dead, and which letters an operator means."""

import json
from typing import get_type_hints

import pytest
from hypothesis import given

from notifier.model.delivery import Delivery
from notifier.model.documents.dead_letter import bury_delivery, bury_event, bury_raw, dump_dead_letter, load_dead_letter
from notifier.model.documents.documents import dump_delivery
from notifier.model.errors import Mistake
from notifier.model.frozen import replace
from notifier.model.message import Kind, Lane, Message
from notifier.model.outcome import DeadReason
from notifier.model.session_ended import ClientEntry, SessionEnded
from notifier.operators.letters.letter_filter import LetterFilter, LetterMembers, read_filter
from notifier.operators.letters.letter_summary import NEWER, read_summary, summary_of
from notifier.operators.letters.waiting_filter import WaitingFilter, WaitingMembers, read_waiting
from tests.model.documents.test_documents import DELIVERIES

DELIVERY = Delivery(id="d-1", event_id="e-1", id_given=True, iss="i", client_id="shop", sub="alice", sid="s-1")
EVENT = SessionEnded(
    id="e-2", id_given=True, iss="j", sub=None, sid=None, clients=(ClientEntry(client_id="mail", sub="pairwise-1"),)
)


def message_of(body: bytes, kind: Kind | None = Kind.DEAD_LETTER) -> Message:
    return Message(lane=Lane.RETRIES, body=body, tag=None, kind=kind, message_id="m-1", timestamp=50.0)


def buried(delivery: Delivery = DELIVERY, reason: DeadReason = DeadReason.REFUSED, now: float = 1000.0) -> Message:
    return message_of(dump_dead_letter(bury_delivery(delivery, reason, "410 Gone", now)).body)


@given(DELIVERIES)
def test_the_short_way_reads_what_the_long_way_does(delivery: Delivery) -> None:
    """Of every letter of ours."""
    message = buried(delivery)
    assert read_summary(message) == summary_of(load_dead_letter(message))


def test_whatever_is_among_the_dead_has_a_row() -> None:
    """What a later release wrote, what is no JSON, and what the broker moved."""
    later = json.loads(buried().body) | {"v": 3}
    assert read_summary(message_of(json.dumps(later).encode())).reason == NEWER
    assert read_summary(message_of(b"\xff")).reason == "malformed_event"
    assert read_summary(message_of(b"{}", kind=None)).reason == "delivery_limit"


def test_a_letter_that_is_at_odds_with_what_it_holds_is_listed_as_malformed() -> None:
    """A filter by issuer or client must not reach a delivery of another."""
    row = read_summary(message_of(json.dumps(json.loads(buried().body) | {"client_id": "mail"}).encode()))
    assert (row.reason, row.client_id) == ("malformed_event", "")


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        (LetterFilter(), True),
        (LetterFilter(ids=frozenset({"d-1", "d-2"})), True),
        (LetterFilter(ids=frozenset({"d-2"})), False),
        (LetterFilter(client_id="shop", iss="i", event_id="e-1"), True),
        (LetterFilter(client_id="mail"), False),
        (LetterFilter(iss="j"), False),
        (LetterFilter(event_id="e-2"), False),
        (LetterFilter(reasons=frozenset({DeadReason.REFUSED, DeadReason.EXPIRED})), True),
        (LetterFilter(reasons=frozenset({DeadReason.EXPIRED})), False),
        (LetterFilter(since=1000.0, until=1000.0), True),
        (LetterFilter(since=1000.5), False),
        (LetterFilter(until=999.5), False),
        (LetterFilter(given_up_until=1000.0), True),
        (LetterFilter(given_up_until=999.5), False),
        (LetterFilter(subject="alice"), True),
        (LetterFilter(subject="s-1"), True),
        (LetterFilter(subject="alic"), False),
        (LetterFilter(issuers=frozenset({"i"})), True),
        (LetterFilter(issuers=frozenset()), False),
    ],
)
def test_everything_given_must_hold(wanted: LetterFilter, meant: bool) -> None:
    """Exactly, never by a part: a repair must not reach further than it was told to."""
    message = buried()
    assert wanted.matches(message, read_summary(message)) is meant


@pytest.mark.parametrize(
    ("ended_at", "first_taken_at", "moment"), [(500.0, 600.0, 500.0), (None, 600.0, 600.0), (None, None, 1000.0)]
)
def test_since_and_until_compare_with_the_end_of_the_session(
    ended_at: float | None, first_taken_at: float | None, moment: float
) -> None:
    """Else with the arrival of the event, of a dead letter as of a pending delivery."""
    delivery = replace(DELIVERY, ended_at=ended_at, first_taken_at=first_taken_at)
    letter = read_summary(buried(delivery))
    assert LetterFilter(since=moment, until=moment).means(letter)
    assert not LetterFilter(since=moment + 1).means(letter)
    assert not LetterFilter(until=moment - 1).means(letter)
    waiting = read_waiting(message_of(dump_delivery(delivery), kind=Kind.DELIVERY))
    known = ended_at is not None or first_taken_at is not None
    assert WaitingFilter(since=moment, until=moment).means(waiting) is known
    assert not WaitingFilter(since=moment + 1).means(waiting)
    assert not WaitingFilter(until=moment - 1).means(waiting)


def test_dead_letters_and_pending_deliveries_have_the_same_filters() -> None:
    """Only a dead letter has a source and a time at which it was given up."""
    letters, waiting = get_type_hints(LetterMembers).keys(), get_type_hints(WaitingMembers).keys()
    assert letters - waiting == {"source", "given_up_until"}
    assert not waiting - letters


@pytest.mark.parametrize("subject", ["pairwise-1", "bob", "s-9", "carol"])
def test_a_subject_is_found_wherever_it_stands(subject: str) -> None:
    """In an event's entries, and in what is no event at all, cut or not."""
    event = dump_dead_letter(bury_event(EVENT, DeadReason.UNKNOWN_ISSUER, "", 1.0)).body
    body = b'{"data": {"sub": "bob", "sid": "s-9", "clients": [{"sub": "carol"}, {"sub'
    raw = dump_dead_letter(bury_raw(message_of(body, kind=None), [], 1.0)).body
    rows = [(message, read_summary(message)) for message in (message_of(event), message_of(raw))]
    assert sum(LetterFilter(subject=subject).matches(message, row) for message, row in rows) == 1


def test_only_what_was_chosen_narrows() -> None:
    """What a token may see is no choice."""
    assert not LetterFilter(issuers=frozenset({"i"})).narrows
    assert LetterFilter(subject="").narrows
    assert LetterFilter(reasons=frozenset({DeadReason.EXPIRED})).narrows


def test_moments_and_reasons_are_read_as_people_write_them() -> None:
    """A moment or an age, a reason by its name. A mistake says what there is."""
    found = read_filter({"since": "1970-01-01T00:01:00Z", "until": "2m", "reason": ["expired"], "iss": None}, 1000.0)
    assert found == LetterFilter(since=60.0, until=880.0, reasons=frozenset({DeadReason.EXPIRED}))
    for members, path, text in (
        ({"since": "yesterday"}, "since", "24h"),
        ({"reason": ["bogus"]}, "reason", "there are redirect, "),
    ):
        mistake = read_filter(members, 0.0)
        assert isinstance(mistake, Mistake)
        assert mistake.path == path
        assert text in mistake.text
