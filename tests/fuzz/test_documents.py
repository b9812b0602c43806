"""Mutated documents of notifier: they are accepted, or refused as guaranteed; and accepted ones work.

Only a bug or another release can write them. A document that a worker cannot process must be refused
when it is read: a later exception would end the worker, and each one that receives the message after it.
"""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.delivery.admission import verdict_without_attempt
from notifier.delivery.facts import Attempted
from notifier.delivery.verdict import Defer, RetryAt, Standing, decide, record_deferral, report_attempt
from notifier.model.ages import last_attempt_at
from notifier.model.backoff import deferral_wait
from notifier.model.client import Algorithm, Client
from notifier.model.delivery import ClientOverrides, Delivery
from notifier.model.documents.dead_letter import (
    DeadLetter,
    dead_letter_delivery,
    dead_letter_event,
    dump_dead_letter,
    load_dead_letter,
)
from notifier.model.documents.documents import EventDocument, dump_delivery, dump_event, load_delivery, load_event
from notifier.model.documents.unreadable import RawMessage
from notifier.model.errors import InputIssue, MalformedEvent, UnknownVersion
from notifier.model.logout_token import build_claims
from notifier.model.message import Kind, Lane, Message, MessageDraft
from notifier.model.outcome import Cause, DeadReason, Failed, Reason, Refused
from notifier.model.progress import PastOutcome
from notifier.model.registry import Registry
from notifier.model.session_ended import ClientEntry, SessionEnded
from notifier.operators.deliveries.dead_letter_summary import document_of, read_summary
from notifier.operators.deliveries.readmission import ReplayRules, readmit
from notifier.queues.rabbitmq.delays import split_into_hops, to_first_hop, to_next_hop
from tests.fuzz.conftest import many
from tests.fuzz.grammar import DEEP, ISS, LOUD, NUMBERS, ODD_TEXTS
from tests.fuzz.promises import NOW, fit, open_fully
from tests.support.deliveries import make_delivery

EVENT = SessionEnded(
    id="e-1", id_given=True, iss=ISS, sub="alice", sid="s-1",
    clients=(
        ClientEntry(client_id="shop", backchannel_logout_uri="https://shop.example/", sub="pairwise"),
        "wiki",
    ),
    ended_at=1.7e9, not_after=1.9e9, reason="user_logout", source="/idp", type="t", publisher="idp",
    claimed_publisher="app",
)  # fmt: skip
DELIVERY = make_delivery(
    id="0" * 32, event_id="e-1", id_given=True, iss=ISS, client_id="shop", sub="alice", sid="s-1", entry_sub=True,
    inline=ClientOverrides(backchannel_logout_uri="https://s.example/", id_token_signed_response_alg=Algorithm.ES256),
    ended_at=1.7e9, not_after=1.9e9, reason="user_logout", source="/idp", publisher="idp", claimed_publisher="app",
    attempts=3, rejections=1, ambiguous=True, first_taken_at=1.78e9, first_attempt_at=1.79e9, uncounted_seconds=5.0,
    waited_for=(Cause.SLOT,), deferrals=2, deferred_for=Cause.SLOT, probe_due=1.8e9, slot_at=1.8e9,
    backoffs=2, charged_at=1.79e9, unknown_since=1.79e9,
    history=(PastOutcome(at=1.79e9, reason="refused", status=500, text="no"),),
)  # fmt: skip
RAW = RawMessage(body=b"{", size=1, sha256="0" * 64, headers={"cloudEvents:id": "a"}, message_id="m")
LETTERS = tuple(
    json.dumps(document_of(letter)).encode()
    for letter in (
        dead_letter_delivery(DELIVERY, DeadReason.REFUSED, "no", NOW),
        dead_letter_event(EVENT, DeadReason.UNKNOWN_ISSUER, "who?", NOW),
    )
)
UNREADABLE = DeadLetter(
    id="1", reason=DeadReason.MALFORMED_EVENT, text="bad", dead_since=NOW, raw=RAW, mistakes=(InputIssue("a", "b"),),
    entries="1-2,7",
)  # fmt: skip
WAITING = to_first_hop(
    MessageDraft(kind=Kind.DELIVERY, body=dump_delivery(DELIVERY, due=NOW + 50), message_id="d"), 50, "down"
)[1].body
PUT_OFF = tuple(
    dump_event(
        EventDocument(
            event=replace(EVENT, iss=iss), bulk=True, unknown_since=NOW - 10, deferrals=2,
        ),
        due=NOW + wait,
    )
    for iss, wait in ((ISS, 50), ("https://nobody.example", 0))
)  # fmt: skip
TOKENS = (
    "true", "false", "null", "[]", "{}", '""', '"*"', '"x"', "-1", "1e308", "-1e308", "1e18", "-" + "9" * 400, "2",
    *NUMBERS, *ODD_TEXTS, *DEEP,
)  # fmt: skip


# ── changing ────────────────────────────────────────────────────────────────────────────────────────────────────


class Token(str):
    """JSON text that is written unchanged."""

    __slots__ = ()


def _places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(place for key, one in inner for place in _places(one, (*path, key)))]


def _written(value: object) -> str:
    match value:
        case Token():
            return str(value)
        case dict():
            return "{" + ",".join(f"{json.dumps(key)}:{_written(one)}" for key, one in value.items()) + "}"
        case list():
            return "[" + ",".join(map(_written, value)) + "]"
        case _:
            return json.dumps(value)


@st.composite
def changed(draw: st.DrawFn, document: bytes) -> bytes:
    """Draw the document with one to three values replaced, removed, or added."""
    content = json.loads(document)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(_places(content)))
        into = content
        for step in way:
            into = into[step]
        match draw(st.integers(0, 7)):
            case 0:
                del into[last]
            case 1 if isinstance(into, dict):
                into[draw(st.sampled_from(["more", LOUD * 300, "\u2028", ""]))] = Token(draw(st.sampled_from(TOKENS)))
            case _:
                into[last] = Token(draw(st.sampled_from(TOKENS)))
        if not isinstance(into, dict | list) or not _places(content):
            break
    return _written(content).encode()


# ── the worker's processing ──────────────────────────────────────────────────────────────────────────────────────────

OUTCOMES: tuple[Failed | Refused, ...] = (
    Failed(reason=Reason.TIMEOUT, ambiguous=True),
    Failed(reason=Reason.THROTTLED, status=429, retry_after=1e12),
    Refused(reason=Reason.REJECTED_TOKEN, status=400),
)


def go_through(delivery: Delivery) -> None:
    """Make every decision of a delivery on its way."""
    client = Client(iss=delivery.iss, client_id=delivery.client_id, backchannel_logout_uri="https://shop.example/")
    for known in (client, None, replace(client, paused=True)):
        before = verdict_without_attempt(delivery, known, client, Registry(), NOW)
        if isinstance(before, Defer):
            assert deferral_wait(before.due - NOW)
            dump_delivery(record_deferral(delivery, before, client.retry, NOW))
    due = max(NOW, min(NOW + 5, last_attempt_at(delivery, client, NOW)))
    assert deferral_wait(due - NOW)
    build_claims(delivery, client, now=NOW, jti="j")
    for outcome in OUTCOMES:
        fact = Attempted(delivery=delivery, number=1, jti="", alg="", outcome=outcome, seconds=0.0, at=NOW)
        report = report_attempt(delivery, client, fact)
        after, verdict = decide(report, client, Standing(), NOW, lambda: 0.5)
        if isinstance(verdict, RetryAt | Defer):
            assert split_into_hops(verdict.due - NOW, verdict.rounding)
            assert math.isfinite(verdict.due)
        dump_delivery(after, due=NOW)
    dump_dead_letter(dead_letter_delivery(delivery, DeadReason.EXPIRED, "", NOW))


def loaded(load: Callable[[bytes], Any], body: bytes) -> Any:
    """Return the document, None if it is refused as guaranteed."""
    try:
        return load(body)
    except MalformedEvent as malformed:
        fit(malformed.mistakes)
    except UnknownVersion as newer:
        fit([InputIssue("", str(newer))])
    return None


def _message(kind: Kind, body: bytes) -> Message:
    return Message(lane=Lane.RETRIES, body=body, tag=None, kind=kind, message_id="m-1", timestamp=NOW)


@pytest.mark.timeout(1200)
@many(400, 20_000)
@given(changed(WAITING))
def test_delivery_can_be_continued_or_is_refused(body: bytes) -> None:
    """For any change, no decision of a worker fails, and it goes to existing queues only."""
    delivery = loaded(load_delivery, body)
    if delivery is not None:
        go_through(delivery)
    assert to_next_hop(_message(Kind.DELIVERY, body), NOW) is None or b"hops" in body
    open_fully(_message(Kind.DELIVERY, body))


@pytest.mark.timeout(1200)
@many(400, 20_000)
@given(st.sampled_from(PUT_OFF).flatmap(changed))
def test_event_in_progress_can_be_continued_or_is_refused(body: bytes) -> None:
    """Likewise, each of its deliveries."""
    document = loaded(load_event, body)
    if document is not None:
        dump_event(document)
    open_fully(_message(Kind.EVENT, body))


@pytest.mark.timeout(1200)
@many(400, 20_000)
@given(st.sampled_from((*LETTERS, json.dumps(document_of(UNREADABLE)).encode())).flatmap(changed))
def test_a_dead_letter_is_always_shown(body: bytes) -> None:
    """A body that is not a dead letter is shown raw; only a later release's is kept for that release."""
    shown(_message(Kind.DEAD_LETTER, body))


@pytest.mark.timeout(1200)
@many(400, 20_000)
@given(changed(dump_dead_letter(UNREADABLE).headers["letter"].encode()))
def test_dead_letter_of_an_unreadable_message_is_always_shown(notes: bytes) -> None:
    """For any header its body is unchanged, and can be shown and read again."""
    message = replace(_message(Kind.UNREADABLE, b"{"), headers={"letter": notes.decode()})
    letter = shown(message)
    if letter is not None:
        assert letter.raw is not None
        assert letter.raw.body == b"{"
        readmit(letter, ReplayRules(registry=None, new_id=lambda: "made-up", max_event=1000), NOW)


def shown(message: Message) -> DeadLetter | None:
    """Return it as an operator sees it, in every form."""
    letter: DeadLetter | None = loaded(lambda _: load_dead_letter(message), message.body)
    read_summary(message)
    if letter is not None:
        sent = dump_dead_letter(letter)
        assert all(value.isprintable() for name, value in sent.headers.items() if name != "letter")
        json.dumps(document_of(letter))
    return letter
