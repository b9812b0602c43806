"""Which messages a filter selects, and what a replay accepts again."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_type_hints

import pytest

from notifier.model.client import Client, FrontChannelClient, FrontChannelWay, RetryPolicy, SubjectMode, TokenProfile
from notifier.model.delivery import Delivery
from notifier.model.documents.dead_letter import (
    dead_letter_delivery,
    dead_letter_entries,
    dead_letter_event,
    dead_letter_raw,
    dump_dead_letter,
    load_dead_letter,
)
from notifier.model.documents.documents import dump_delivery, load_delivery, load_event
from notifier.model.documents.event_entries import WrongEntries
from notifier.model.errors import InputIssue
from notifier.model.message import CutBody, Kind, Lane, Message
from notifier.model.outcome import Cause, DeadReason
from notifier.model.progress import NO_WAITS, PastOutcome, RecordedWaits
from notifier.model.registry import Registry
from notifier.model.session_ended import ClientEntry, SessionEnded
from notifier.operators.deliveries.dead_letter_filter import (
    DeadLetterFilter,
    DeadLetterFilterMembers,
    read_conditions,
    read_filter,
)
from notifier.operators.deliveries.dead_letter_summary import NEWER_RELEASE, read_summary
from notifier.operators.deliveries.readmission import KeepReason, KeptDeadLetter, Readmission, ReplayRules, readmit
from notifier.operators.deliveries.repair import format_conditions
from notifier.operators.deliveries.waiting_filter import (
    WaitingFilter,
    WaitingMembers,
    read_waiting,
    read_waiting_filter,
)
from tests.support.deliveries import make_delivery, replace

# ── Rows and filters: the members of a row, and which dead letters a filter selects ──────────────────────────────────


DELIVERY = Delivery(id="d-1", event_id="e-1", id_given=True, iss="i", client_id="shop", sub="alice", sid="s-1")
EVENT = SessionEnded(
    id="e-2", id_given=True, iss="j", sub=None, sid=None, clients=(ClientEntry(client_id="mail", sub="pairwise-1"),)
)


def message_of(body: bytes, kind: Kind | None = Kind.DEAD_LETTER) -> Message:
    return Message(lane=Lane.RETRIES, body=body, tag=None, kind=kind, message_id="m-1", timestamp=50.0)


def dead_letter_message(
    delivery: Delivery = DELIVERY, reason: DeadReason = DeadReason.REFUSED, now: float = 1000.0
) -> Message:
    return message_of(dump_dead_letter(dead_letter_delivery(delivery, reason, "410 Gone", now)).body)


def test_every_message_in_the_dead_letter_queue_has_a_row() -> None:
    """Messages of a later release, bodies that are not JSON, and messages that the broker moved.

    A filter by client must not select a dead letter that contradicts its delivery.
    """
    document = json.loads(dead_letter_message().body)
    assert read_summary(message_of(json.dumps(document | {"v": 3}).encode())).reason == NEWER_RELEASE
    odd = read_summary(message_of(json.dumps(document | {"client_id": "mail"}).encode()))
    assert (odd.reason, odd.client_id) == ("malformed_event", "")
    assert read_summary(message_of(b"\xff")).reason == "malformed_event"
    assert read_summary(message_of(b"{}", kind=None)).reason == "delivery_limit"


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        (DeadLetterFilter(), True),
        (DeadLetterFilter(ids=frozenset({"d-1", "d-2"})), True),
        (DeadLetterFilter(ids=frozenset({"d-2"})), False),
        (DeadLetterFilter(client_id="shop", iss="i", event_id="e-1"), True),
        (DeadLetterFilter(client_id="mail"), False),
        (DeadLetterFilter(iss="j"), False),
        (DeadLetterFilter(event_id="e-2"), False),
        (DeadLetterFilter(reasons=frozenset({DeadReason.REFUSED, DeadReason.EXPIRED})), True),
        (DeadLetterFilter(reasons=frozenset({DeadReason.EXPIRED})), False),
        (DeadLetterFilter(since=1000.0, until=1000.0), True),
        (DeadLetterFilter(since=1000.5), False),
        (DeadLetterFilter(until=999.5), False),
        (DeadLetterFilter(given_up_until=1000.0), True),
        (DeadLetterFilter(given_up_until=999.5), False),
        (DeadLetterFilter(subject="alice"), True),
        (DeadLetterFilter(subject="s-1"), True),
        (DeadLetterFilter(subject="alic"), False),
        (DeadLetterFilter(issuers=frozenset({"i"})), True),
        (DeadLetterFilter(issuers=frozenset()), False),
    ],
)
def test_all_conditions_must_hold(wanted: DeadLetterFilter, meant: bool) -> None:
    """Values are compared whole: a repair must not select more than its filter states."""
    message = dead_letter_message()
    assert wanted.matches(message, read_summary(message)) is meant


@pytest.mark.parametrize(
    ("ended_at", "first_taken_at", "moment"), [(500.0, 600.0, 500.0), (None, 600.0, 600.0), (None, None, 1000.0)]
)
def test_since_and_until_compare_with_the_end_of_the_session(
    ended_at: float | None, first_taken_at: float | None, moment: float
) -> None:
    """Otherwise with the arrival of the event, for dead letters and pending deliveries."""
    delivery = replace(DELIVERY, ended_at=ended_at, first_taken_at=first_taken_at)
    letter = read_summary(dead_letter_message(delivery))
    assert DeadLetterFilter(since=moment, until=moment).matches_summary(letter)
    assert not DeadLetterFilter(since=moment + 1).matches_summary(letter)
    assert not DeadLetterFilter(until=moment - 1).matches_summary(letter)
    waiting = read_waiting(message_of(dump_delivery(delivery), kind=Kind.DELIVERY))
    known = ended_at is not None or first_taken_at is not None
    assert WaitingFilter(since=moment, until=moment).matches_summary(waiting) is known
    assert not WaitingFilter(since=moment + 1).matches_summary(waiting)
    assert not WaitingFilter(until=moment - 1).matches_summary(waiting)


def test_dead_letters_and_pending_deliveries_differ_only_in_these_filters() -> None:
    """Only a dead letter has a source and the time of its failure."""
    dead_letters, waiting = get_type_hints(DeadLetterFilterMembers).keys(), get_type_hints(WaitingMembers).keys()
    assert dead_letters - waiting == {"source", "given_up_since", "given_up_until"}
    assert not waiting - dead_letters


@pytest.mark.parametrize(
    ("kind", "read", "member"),
    [
        (kind, read, member)
        for kind, read in ((DeadLetterFilterMembers, read_filter), (WaitingMembers, read_waiting_filter))
        for member in get_type_hints(kind)
    ],
)
def test_each_member_alone_is_a_condition(
    kind: type, read: Callable[[dict[str, object], float], DeadLetterFilter | WaitingFilter | InputIssue], member: str
) -> None:
    """A filter without conditions selects every message of this `kind`."""
    reason = DeadReason.EXPIRED.value if kind is DeadLetterFilterMembers else Cause.PAUSED.value
    values = {
        "id": ["d-1"],
        "reason": [reason],
        **dict.fromkeys(("since", "until", "given_up_since", "given_up_until"), "24h"),
    }
    conditions = read({member: values.get(member, "x")}, 0.0)
    assert not isinstance(conditions, InputIssue), conditions.text
    assert conditions.has_conditions


class DeferredMembers(WaitingMembers, total=False):
    """A further condition of pending deliveries."""

    min_attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredFilter(WaitingFilter):
    """A filter with that condition."""

    min_attempts: int = 0


def test_a_condition_of_pending_deliveries_alone_is_read() -> None:
    """A condition that is accepted but ignored would cancel every delivery."""
    conditions = read_conditions({"min_attempts": 3, "all": True}, 0.0, DeferredMembers, ())
    assert conditions == {"ids": frozenset(), "reasons": frozenset(), "min_attempts": 3}


def test_the_audit_line_formats_only_moments_as_moments() -> None:
    """A count stays a number."""
    conditions = format_conditions(DeferredFilter(since=60.0, min_attempts=3))
    assert conditions == {"since": "1970-01-01T00:01:00.000000Z", "min_attempts": 3}


@pytest.mark.parametrize(
    ("text", "logged"),
    [
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999969Z"),
        ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999969Z"),
        ("999999999999d", "0001-01-01T00:00:00.000000Z"),
    ],
)
def test_a_far_limit_is_logged_as_far(text: str, logged: str) -> None:
    """An audit line with 1970 for the year 9999 would name a repair of nothing."""
    found = read_filter({"until": text}, 1e9)
    assert isinstance(found, DeadLetterFilter)
    assert format_conditions(found) == {"until": logged}


@pytest.mark.parametrize("subject", ["pairwise-1", "bob", "s-9", "carol"])
def test_subject_is_found_in_any_body(subject: str) -> None:
    """In entries of an event, and in complete or truncated bodies that are not events."""
    event = dump_dead_letter(dead_letter_event(EVENT, DeadReason.UNKNOWN_ISSUER, "", 1.0)).body
    body = b'{"data": {"sub": "bob", "sid": "s-9", "clients": [{"sub": "carol"}, {"sub'
    raw = dump_dead_letter(dead_letter_raw(message_of(body, kind=None), [], 1.0)).body
    rows = [(message, read_summary(message)) for message in (message_of(event), message_of(raw))]
    assert sum(DeadLetterFilter(subject=subject).matches(message, row) for message, row in rows) == 1


def test_only_the_given_conditions_restrict() -> None:
    """The issuers of a token are not a condition."""
    assert not DeadLetterFilter(issuers=frozenset({"i"})).has_conditions
    assert DeadLetterFilter(subject="").has_conditions
    assert DeadLetterFilter(reasons=frozenset({DeadReason.EXPIRED})).has_conditions


def test_times_and_reasons_are_parsed() -> None:
    """A time or an age, a reason by its name. An error lists the valid values."""
    found = read_filter({"since": "1970-01-01T00:01:00Z", "until": "2m", "reason": ["expired"], "iss": None}, 1000.0)
    assert found == DeadLetterFilter(since=60.0, until=880.0, reasons=frozenset({DeadReason.EXPIRED}))
    for members, path, text in (
        ({"since": "yesterday"}, "since", "24h"),
        ({"reason": ["bogus"]}, "reason", "the reasons are redirect, "),
    ):
        mistake = read_filter(members, 0.0)
        assert isinstance(mistake, InputIssue)
        assert mistake.path == path
        assert text in mistake.text


# ── Replay of a dead letter: which members are reset, which stay, and which dead letters are kept ────────────────────


ISS = "https://id.example.com"
NOW = 100_000.0
RULES = ReplayRules(registry=None, new_id=lambda: "made-up", max_event=1000)
REPLAYED = make_delivery(
    id="d-1", event_id="e-1", id_given=False, iss=ISS, client_id="shop", sub="alice", sid="s-1", attempts=7,
    rejections=3, ambiguous=True, first_taken_at=NOW - 91_000, first_attempt_at=NOW - 90_000, uncounted_seconds=5.0,
    waits=RecordedWaits(seconds=60.0), waited_for=(Cause.SLOT,), deferrals=2, deferred_for=Cause.SLOT, probe_due=NOW,
    slot_at=NOW, backoffs=5, charged_at=NOW - 60,
    history=(PastOutcome(at=NOW - 60, reason="timeout"),),
)  # fmt: skip
REPLAYED_EVENT = SessionEnded(
    id="e-1", id_given=False, iss=ISS, sub="alice", sid=None, clients=(ClientEntry(client_id="shop"),), publisher="idp"
)


def of_delivery(delivery: Delivery, rules: ReplayRules = RULES) -> Readmission | KeptDeadLetter:
    return readmit(dead_letter_delivery(delivery, DeadReason.EXPIRED, "", NOW), rules, NOW)


def of_event(event: SessionEnded) -> Readmission | KeptDeadLetter:
    return readmit(dead_letter_event(event, DeadReason.UNKNOWN_ISSUER, "", NOW), RULES, NOW)


def of_raw(body: bytes, **more: object) -> Readmission | KeptDeadLetter:
    message = Message(lane=Lane.EVENTS, body=body, tag=None, user_id="idp", **more)  # type: ignore[arg-type]
    return readmit(dead_letter_raw(message, [InputIssue("", "wrong")], NOW), RULES, NOW)


def stays(found: Readmission | KeptDeadLetter) -> KeepReason | None:
    return found.reason if isinstance(found, KeptDeadLetter) else None


def test_replay_resets_ages() -> None:
    """Attempts, waits and 400 responses too. The outcomes are kept, and that the client may have acted already (R3)."""
    found = of_delivery(REPLAYED)
    assert isinstance(found, Readmission)
    assert (found.queue, found.outgoing.message_id, dict(found.outgoing.headers)) == (Lane.RETRIES, "d-1", {})
    anew = load_delivery(found.outgoing.body)
    assert anew == replace(
        REPLAYED, id_given=True, attempts=0, rejections=0, first_taken_at=None, first_attempt_at=None,
        uncounted_seconds=0.0, waits=NO_WAITS, waited_for=(), deferrals=0, deferred_for=None, probe_due=None,
        slot_at=None, backoffs=0,
        charged_at=None,
    )  # fmt: skip


def test_not_after_stays() -> None:
    """A delivery whose `not_after` has passed is kept, even when selected."""
    rules = replace(RULES, end_newer_sessions=True)
    assert stays(of_delivery(replace(REPLAYED, not_after=NOW - 1), rules)) is KeepReason.NOT_AFTER
    found = of_delivery(replace(REPLAYED, not_after=NOW + 1))
    assert isinstance(found, Readmission)
    assert load_delivery(found.outgoing.body).not_after == NOW + 1
    assert stays(of_event(replace(REPLAYED_EVENT, not_after=NOW - 1))) is KeepReason.NOT_AFTER


@pytest.mark.parametrize(
    ("first", "earliest", "expected"),
    [
        (NOW - 500, None, None),
        (NOW - 700, None, KeepReason.STALE),
        (None, None, None),
        (NOW - 500, NOW - 700, KeepReason.STALE),
    ],
)
def test_replay_that_may_end_newer_sessions_is_kept(
    first: float | None, earliest: float | None, expected: KeepReason | None
) -> None:
    """A token without `sid` ends every session of its user (B13). Repeated replays do not make it younger.

    A delivery that no worker has received is replayed, however old, since a first attempt is never too late.
    """
    history = () if earliest is None else (PastOutcome(at=earliest, reason="dns"),)
    old = replace(REPLAYED, sid=None, first_taken_at=first, uncounted_seconds=0.0, history=history)
    assert stays(of_delivery(old)) is expected
    assert stays(of_delivery(old, replace(RULES, end_newer_sessions=True))) is None


@pytest.mark.parametrize(
    ("waited", "uncounted_seconds", "expected"), [(500, 0, None), (700, 0, KeepReason.STALE), (700, 200, None)]
)
def test_unattempted_delivery_may_end_newer_sessions_too(
    waited: float, uncounted_seconds: float, expected: KeepReason | None
) -> None:
    """A new session may start while it waits behind an open circuit, too. `uncounted_seconds` do not count."""
    never = replace(
        REPLAYED,
        sid=None,
        first_taken_at=NOW - waited,
        first_attempt_at=None,
        uncounted_seconds=uncounted_seconds,
        history=(),
    )
    found = of_delivery(never)
    assert stays(found) is expected
    if isinstance(found, KeptDeadLetter):
        assert "first received it 700 s ago" in found.text
    assert stays(of_delivery(never, replace(RULES, end_newer_sessions=True))) is None


def test_rules_of_the_client_apply_to_a_replay() -> None:
    """Whether its token contains a session, and its replay limit otherwise."""

    def rules(client: Client) -> ReplayRules:
        return replace(RULES, registry=Registry(clients=MappingProxyType({ISS: {"shop": client}})))

    client = Client(iss=ISS, client_id="shop", backchannel_logout_uri="https://shop.example.com/bcl")
    assert stays(of_delivery(REPLAYED, rules(client))) is None
    by_sub = replace(client, token=TokenProfile(subject=SubjectMode.SUB))
    assert stays(of_delivery(REPLAYED, rules(by_sub))) is KeepReason.STALE
    patient = replace(by_sub, retry=RetryPolicy(sub_only_max_age=100_000.0))
    assert stays(of_delivery(REPLAYED, rules(patient))) is None
    front = FrontChannelClient(frontchannel_logout_uri="https://shop.example/out", way=FrontChannelWay.SERVER)
    called = replace(by_sub, backchannel_logout_uri=None, front_channel=front)
    assert stays(of_delivery(REPLAYED, rules(called))) is None  # its request names the session, without a token


def test_replay_parses_a_malformed_message_again() -> None:
    """By the current rules, of an event or one entry. A message that they refuse is kept: it would return at once."""
    body = json.dumps({"id": "e-2", "iss": ISS, "sub": "bob", "clients": ["shop"]}).encode()
    found = of_raw(body)
    assert isinstance(found, Readmission)
    event = load_event(found.outgoing.body).event
    assert (event.id, event.sub, event.publisher) == ("e-2", "bob", "idp")
    still = of_raw(b'{"iss": 5}')
    assert isinstance(still, KeptDeadLetter)
    assert still.reason is KeepReason.MALFORMED
    assert "iss: must be a string" in still.text
    assert stays(of_raw(body[:10], cut_from=CutBody(size=5000, sha256="0" * 64))) is KeepReason.CUT


@pytest.mark.parametrize(
    ("which", "clients", "targets"),
    [
        ("1", ["a", "b", "c"], ("b",)),
        ("0-1,3", ["a", "b", "c", "d"], ("a", "b", "d")),
        ("1", ["a", 7, "c"], None),
        ("0-1", ["a", 7, "c"], None),
        ("", ["a", "b"], None),
    ],
)
def test_replay_of_invalid_entries_targets_only_unnotified_clients(
    which: str, clients: list[object], targets: tuple[str, ...] | None
) -> None:
    """If this release accepts them. If an entry is still invalid, or it is unknown which, the dead letter is kept."""
    body = json.dumps({"id": "e-2", "iss": ISS, "sub": "bob", "clients": clients}).encode()
    came = Message(lane=Lane.EVENTS, body=body, tag=None, user_id="idp")
    wrong = WrongEntries(mistakes=(InputIssue("clients[1]", "no"),), more=0, which=which)
    letter = dead_letter_entries(came, REPLAYED_EVENT, wrong, NOW)
    sent = dump_dead_letter(letter)
    there = Message(lane=Lane.RETRIES, body=sent.body, tag=None, kind=Kind.UNREADABLE, headers=sent.headers)
    assert load_dead_letter(there) == letter
    found = readmit(load_dead_letter(there), RULES, NOW)
    if targets is None:
        assert stays(found) is KeepReason.MALFORMED
    else:
        assert isinstance(found, Readmission)
        assert load_event(found.outgoing.body).event.clients == tuple(ClientEntry(client_id=name) for name in targets)


@pytest.mark.parametrize("waits", [RecordedWaits(seconds=700.0), RecordedWaits(undated=True)])
def test_clock_set_back_does_not_make_a_dead_letter_recent(waits: RecordedWaits) -> None:
    """Its timestamps are in the future. Its recorded waits count, and an unknown age is too old."""
    ahead = replace(REPLAYED, sid=None, first_taken_at=NOW + 3600, history=(), uncounted_seconds=0.0)
    assert isinstance(of_delivery(replace(ahead, waits=RecordedWaits(seconds=500.0))), Readmission)
    assert stays(of_delivery(replace(ahead, waits=waits))) is KeepReason.STALE
    allowed = replace(RULES, end_newer_sessions=True)
    assert isinstance(of_delivery(replace(ahead, waits=waits), allowed), Readmission)
