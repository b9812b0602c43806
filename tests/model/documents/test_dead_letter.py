"""Test dead letters: readable by people and replayable, whichever side stored them."""

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model.delivery import Delivery
from notifier.model.documents.dead_letter import (
    DeadLetter,
    dead_letter_delivery,
    dead_letter_entries,
    dead_letter_event,
    dead_letter_raw,
    dump_dead_letter,
    load_dead_letter,
    to_message,
)
from notifier.model.documents.documents import MAX_VERSION_1_NAMES, EventDocument, dump_delivery, dump_event
from notifier.model.documents.event_entries import WrongEntries
from notifier.model.documents.unreadable import MAX_BODY_BYTES, RawMessage
from notifier.model.errors import InputIssue, UnknownVersion
from notifier.model.message import CutBody, Kind, Lane, Message, MessageDraft
from notifier.model.outcome import DeadReason, Failed, Reason
from notifier.model.progress import PastOutcome
from notifier.model.session_ended import ClientEntry, SessionEnded
from notifier.operators.deliveries.dead_letter_summary import document_of
from tests.model.documents.test_documents import DELIVERIES, EVENTS
from tests.support.deliveries import make_delivery, replace

NOW = 1769860800.25
EVENT = SessionEnded(
    id="e-1", id_given=True, iss="i", sub="s", sid=None, clients=(ClientEntry(client_id="shop"),), publisher="idp"
)
DELIVERY = make_delivery(
    id="d-1", event_id="e-1", id_given=True, iss="i", client_id="shop", sub="s", sid=None, attempts=2, publisher="idp",
    history=(
        PastOutcome(at=NOW - 1, reason="server_error", status=500, text="oops"), PastOutcome(at=NOW, reason="dns"),
    ),
)  # fmt: skip


def message(body: bytes, **properties: Any) -> Message:
    return Message(lane=Lane.EVENTS, body=body, tag=1, **properties)


def through_the_queue(letter: DeadLetter) -> DeadLetter:
    sent = dump_dead_letter(letter)
    return load_dead_letter(message(sent.body, kind=sent.kind, headers=dict(sent.headers), message_id=sent.message_id))


def raw_of(letter: DeadLetter) -> RawMessage:
    assert letter.raw is not None
    return letter.raw


def test_dead_letter_is_readable() -> None:
    """JSON with the reason as text; on request RFC 3339 times and every outcome."""
    letter = dead_letter_delivery(DELIVERY, DeadReason.REFUSED, "410 Gone", NOW)
    sent, content = dump_dead_letter(letter), document_of(letter)
    assert {name: content[name] for name in json.loads(sent.body)} == json.loads(sent.body)
    assert (sent.kind, sent.message_id) == (Kind.DEAD_LETTER, "d-1")
    assert sent.headers == {"reason": "refused", "iss": "i", "client_id": "shop", "event_id": "e-1"}
    assert content["v"] == 1
    assert content["dead_since"] == "2026-01-31T12:00:00.250000Z"
    assert (content["reason"], content["text"], content["attempts"]) == ("refused", "410 Gone", 2)
    assert content["outcomes"] == [
        {"at": "2026-01-31T11:59:59.250000Z", "reason": "server_error", "status": 500, "text": "oops"},
        {"at": "2026-01-31T12:00:00.250000Z", "reason": "dns", "status": None, "text": ""},
    ]


@given(DELIVERIES, st.sampled_from(DeadReason), st.text(max_size=20))
def test_dead_lettered_delivery_is_restored_completely(delivery: Delivery, reason: DeadReason, text: str) -> None:
    """A replay needs all of it."""
    letter = dead_letter_delivery(delivery, reason, text, NOW)
    assert through_the_queue(letter) == letter
    assert letter.delivery == delivery
    assert letter.outcomes == delivery.progress.history


@given(EVENTS, st.sampled_from(DeadReason))
def test_dead_lettered_event_is_restored_completely(event: SessionEnded, reason: DeadReason) -> None:
    """With all its clients, including invalid ones."""
    letter = dead_letter_event(event, reason, "text", NOW)
    assert through_the_queue(letter) == letter
    assert letter.event == event


@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_dead_lettered_message_is_restored_to_the_byte(body: bytes) -> None:
    """It is the message's own body; on request as text, or as base64 if it is not text."""
    came = message(body, content_type="text/plain", message_id="m", timestamp=5.0, user_id="idp", vouched=True)
    letter = dead_letter_raw(came, [InputIssue("", "no JSON")], NOW)
    assert through_the_queue(letter) == letter
    assert raw_of(letter).sha256 == hashlib.sha256(body).hexdigest()
    assert dump_dead_letter(letter).body == body
    raw = document_of(letter)["raw"]
    assert (base64.b64decode(raw["body"]) if raw["encoding"] == "base64" else raw["body"].encode()) == body
    again = to_message(letter, Lane.BULK)
    assert again == replace(came, lane=Lane.BULK, tag=None, headers=raw_of(letter).headers)


def test_a_binary_cloudevent_keeps_its_attributes() -> None:
    """Without them it would be a different event when it is read again; other headers are dropped."""
    headers = {"cloudEvents_id": b"e", "ce-source": "/a%20b", "x-death": [{}], "secret": "x"}
    again = to_message(dead_letter_raw(message(b"{}", headers=headers), [], NOW), Lane.EVENTS)
    assert again is not None
    assert again.headers == {"cloudEvents:id": "e", "cloudEvents:source": "/a b"}


def test_first_mebibyte_of_a_huge_message_is_kept() -> None:
    """An incomplete message cannot be read again."""
    body = b"x" * 1_100_000
    letter = dead_letter_raw(message(body), [], NOW)
    assert (raw_of(letter).size, raw_of(letter).truncated) == (len(body), True)
    assert raw_of(letter).body == body[:MAX_BODY_BYTES]
    assert to_message(letter, Lane.EVENTS) is None


def test_unstorable_attributes_prevent_a_replay() -> None:
    """Without `source` a copy would be another event; unused attributes are omitted."""
    needed = {
        "cloudEvents:id": "e",
        "cloudEvents:specversion": "1.0",
        "cloudEvents:source": "/",
        "cloudEvents:type": "t",
    }
    more = dead_letter_raw(message(b"{}", headers=needed | {f"ce-x{n}": "x" * 900 for n in range(9)}), [], NOW)
    assert needed.items() <= raw_of(more).headers.items()
    assert to_message(more, Lane.EVENTS) is not None
    long = {"cloudEvents:source": "€" * 1000, "cloudEvents:type": "€" * 1000}
    assert to_message(dead_letter_raw(message(b"{}", headers=needed | long), [], NOW), Lane.EVENTS) is None


def test_message_truncated_by_the_queue_shows_its_original_size() -> None:
    """With the size and digest of the whole, and the members of its start; it cannot be read again."""
    cut = message(b'{"iss": "i", "id": "e", "sub": "aaaa', cut_from=CutBody(size=9_000_000, sha256="ab"))
    letter = through_the_queue(dead_letter_raw(cut, [InputIssue("", "too large")], NOW))
    assert (raw_of(letter).size, raw_of(letter).sha256, raw_of(letter).truncated) == (9_000_000, "ab", True)
    assert raw_of(letter).body == cut.body
    assert (letter.iss, letter.event_id) == ("i", "e")
    assert to_message(letter, Lane.EVENTS) is None


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b'{"iss": "i", "id": "e"}', {}, ("i", "e")),
        (b'{"iss": "i"}', {"cloudEvents:id": "ce"}, ("i", "ce")),
        (b'{"specversion": "1.0", "id": "ce", "data": {"iss": "i"}}', {}, ("i", "ce")),
        (b'{"iss": 7, "id": 8}', {}, ("", "m")),
        (b'{"iss": "a\\nb"}', {}, ("a\N{REPLACEMENT CHARACTER}b", "m")),
        (b"[1]", {}, ("", "m")),
        (b"\xff", {}, ("", "m")),
    ],
)
def test_dead_letter_of_a_broken_message_has_issuer_and_event(
    body: bytes, headers: Mapping[str, object], expected: tuple[str, str]
) -> None:
    """So that its dead letter is found by issuer and event."""
    letter = dead_letter_raw(message(body, headers=headers, message_id="m"), [InputIssue("iss", "is required")], NOW)
    assert (letter.iss, letter.event_id) == expected
    assert letter.reason is DeadReason.MALFORMED_EVENT
    assert letter.text == "iss: is required"


def test_invalid_entries_of_an_event_share_a_dead_letter() -> None:
    """With the original body, the first errors, and the indexes of the entries; a copy is the same dead letter."""
    came = message(b'{"clients": ["shop", 1, 2]}', message_id="m", user_id="idp")
    wrong = WrongEntries(mistakes=(InputIssue("clients[1]", "no"),), more=1, which="1-2")
    letter = dead_letter_entries(came, EVENT, wrong, NOW)
    assert (letter.iss, letter.event_id, letter.publisher, letter.entries) == ("i", "e-1", "idp", "1-2")
    assert letter.text == "clients[1]: no; and 1 more mistake"
    assert raw_of(letter).body == came.body
    assert through_the_queue(letter) == letter
    assert dead_letter_entries(came, EVENT, wrong, NOW + 60).id == letter.id
    assert dead_letter_raw(came, [], NOW).id != letter.id


def test_listed_errors_are_shortened_readably() -> None:
    """Of many errors the first, complete; a long text has its start and its end."""
    batch = [
        InputIssue("sources.s.event.sub", f"event {nth} of 99: must be a string, not a number") for nth in range(99)
    ]
    letter = dead_letter_raw(message(b"[]"), batch, NOW)
    *listed, last = letter.mistakes
    assert (tuple(batch[: len(listed)]), last) == (tuple(listed), InputIssue("", "and others"))
    assert len(listed) >= 8
    long = [InputIssue("a", f"begins {'x' * 500}; add sources.s") for _ in range(20)]
    for mistake in dead_letter_raw(message(b"[]"), long, NOW).mistakes[:-1]:
        assert mistake.text.startswith("begins ")
        assert mistake.text.endswith("x; add sources.s")


@pytest.mark.parametrize("headers", [{}, {"letter": "{}"}, {"letter": '{"v": 1}'}, {"letter": b"\xff"}])
def test_dead_letter_without_its_header_is_shown_raw(headers: Mapping[str, object]) -> None:
    """Whatever its body contains: it comes from a publisher, who may have written a dead letter there."""
    forged = dump_dead_letter(dead_letter_delivery(DELIVERY, DeadReason.REFUSED, "", NOW)).body
    letter = load_dead_letter(message(forged, kind=Kind.UNREADABLE, headers=headers, message_id="x"))
    assert (letter.id, letter.delivery, letter.reason) == ("x", None, DeadReason.MALFORMED_EVENT)


def test_unreadable_message_of_a_later_release_is_kept_for_it() -> None:
    """A replay by a wrong interpretation could change it."""
    with pytest.raises(UnknownVersion):
        load_dead_letter(message(b"{}", kind=Kind.UNREADABLE, headers={"letter": '{"v": 3}'}))


def grown(came: Message, sent: MessageDraft) -> int:
    """Return the number of bytes that the dead letter has and the message had not."""
    own = sum(len(name) + len(str(value).encode()) for name, value in came.headers.items())
    own += sum(len(text.encode()) for text in (came.message_id, came.user_id, came.content_type) if text)
    return len(sent.body) + sum(len(name) + len(value.encode()) for name, value in sent.headers.items()) - (
        len(came.body) + own
    )  # fmt: skip


LONG = "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 1024


@pytest.mark.parametrize("filling", ["", "\0" * 10_000, '"' * 10_000, "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 10_000])
@pytest.mark.parametrize("count", [1, 20, 2000])
def test_dead_letter_adds_at_most_4_kib(filling: str, count: int) -> None:
    """For any body, any number of errors, and any length of them."""
    mistakes = [
        InputIssue(f"clients[{index}].id_token_signed_response_alg", filling[:400] or "no") for index in range(count)
    ]
    came = message(
        filling.encode(), message_id='"' * 255 if count < 2000 else "\x85" * 127, user_id="é" * 127,
        content_type="é" * 100,
        headers={"cloudEvents:source": '"' * 1024, "cloudEvents:id": "€" * 80, "ce-other": "x" * 1024},
    )  # fmt: skip
    wrong = WrongEntries(mistakes=tuple(mistakes[:20]), more=count, which=",".join(map(str, range(0, 600, 2))))
    for letter in (
        dead_letter_raw(came, mistakes, NOW),
        dead_letter_entries(came, replace(EVENT, iss=LONG, id="\N{CJK UNIFIED IDEOGRAPH-4E00}" * 85), wrong, NOW),
    ):
        sent = dump_dead_letter(letter)
        assert grown(came, sent) <= 4096
        assert all(value.isprintable() for value in sent.headers.values())
        assert through_the_queue(letter) == letter


@pytest.mark.parametrize("names", [1, 100, MAX_VERSION_1_NAMES, MAX_VERSION_1_NAMES + 1, 18_000])
def test_dead_letter_of_an_event_adds_at_most_4_kib(names: int) -> None:
    """For any number of clients, and names of any length."""
    clients = tuple(chr(0x4E00 + index) for index in range(names))
    came = {"iss": LONG, "id": "e", "sub": LONG, "sid": LONG, "reason": LONG, "clients": list(clients)}
    event = SessionEnded(
        id="e", id_given=True, iss=LONG, sub=LONG, sid=LONG, reason=LONG, clients=clients, publisher="idp", ended_at=NOW
    )
    body = json.dumps(came, ensure_ascii=False, separators=(",", ":")).encode()
    letter = dead_letter_event(event, DeadReason.UNKNOWN_ISSUER, LONG, NOW)
    sent = dump_dead_letter(letter)
    assert grown(message(body, user_id="idp"), sent) <= 4096
    assert (letter.iss, letter.event_id) == (LONG, "e")
    again = load_dead_letter(message(sent.body, kind=sent.kind))
    assert (again.iss, again.event_id, again.publisher) == (LONG, "e", "idp")
    assert again.event is not None
    assert len(again.event.clients) == names
    assert len(dump_event(EventDocument(event=event))) <= len(body) + 4096


@pytest.mark.parametrize("answer", ['"', "\N{CJK UNIFIED IDEOGRAPH-4E00}", "x"])
def test_dead_letter_of_a_delivery_adds_at_most_4_kib(answer: str) -> None:
    """For names of any length and any ten answers of the client."""
    delivery = replace(DELIVERY, iss=LONG, client_id=LONG, event_id="a\0b", sub=LONG, sid=LONG, reason=LONG, history=())
    for attempt in range(10):
        failed = Failed(reason=Reason.SERVER_ERROR, status=500, text=answer * 1024)
        delivery = replace(delivery, progress=delivery.progress.after_attempt(failed, NOW + attempt / 3, 0.0))
    came = dict.fromkeys(("iss", "client_id", "sub", "sid", "reason"), LONG) | {"id": "a\0b"}
    body = json.dumps(came, ensure_ascii=False).encode()
    letter = dead_letter_delivery(delivery, DeadReason.REFUSED, answer * 2000, NOW)
    sent = dump_dead_letter(letter)
    assert grown(message(body, user_id="idp"), sent) <= 4096
    assert all(value.isprintable() and len(value.encode()) <= 255 for value in sent.headers.values())
    assert through_the_queue(letter) == letter
    assert [past.at for past in letter.outcomes] == [past.at for past in delivery.progress.history]


def test_two_parts_of_an_event_are_two_dead_letters() -> None:
    """They have the same event id; a copy after a crash is identical, whenever it was made."""
    one, other = (replace(EVENT, clients=(ClientEntry(client_id=name),)) for name in "ab")
    ids = [
        dead_letter_event(event, DeadReason.UNKNOWN_ISSUER, "", now).id
        for event, now in ((one, 1), (other, 1), (one, 2))
    ]
    assert ids[0] == ids[2] != ids[1]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.DELIVERY, dump_delivery(DELIVERY)),
        (Kind.EVENT, dump_event(EventDocument(event=EVENT))),
        (None, dump_dead_letter(dead_letter_delivery(DELIVERY, DeadReason.REFUSED, "", NOW)).body),
    ],
)
def test_message_moved_by_the_broker_is_shown_raw(kind: Kind | None, body: bytes) -> None:
    """Whatever it contains: its author is unknown."""
    death = [{"queue": "notifier.retries", "reason": "delivery_limit", "time": datetime(2026, 1, 31, 12, tzinfo=UTC)}]
    letter = load_dead_letter(message(body, kind=kind, user_id="idp", headers={"x-death": death}))
    assert (letter.reason, letter.dead_since) == (DeadReason.DELIVERY_LIMIT, 1769860800.0)
    assert (letter.delivery, letter.event, letter.publisher) == (None, None, "idp")
    assert raw_of(letter).body == body


@pytest.mark.parametrize("name", ["id", "iss", "client_id", "event_id", "publisher"])
def test_dead_letter_with_a_mismatching_delivery_is_malformed(name: str) -> None:
    """It is listed by one identity, and would be replayed as the other."""
    content = json.loads(dump_dead_letter(dead_letter_delivery(DELIVERY, DeadReason.REFUSED, "", NOW)).body)
    for odd in (content | {name: "other"}, content | {"delivery": content["delivery"] | {name: "other"}}):
        letter = load_dead_letter(message(json.dumps(odd).encode(), kind=Kind.DEAD_LETTER))
        assert (letter.reason, letter.delivery) == (DeadReason.MALFORMED_EVENT, None)
        assert letter.text == f"{name}: is not that of the delivery that it holds"
        assert letter.raw is not None


@pytest.mark.parametrize("name", ["iss", "client_id", "event_id", "publisher"])
def test_dead_letter_that_contradicts_its_event_is_malformed(name: str) -> None:
    """As a dead letter that contradicts its delivery."""
    content = json.loads(dump_dead_letter(dead_letter_event(EVENT, DeadReason.MALFORMED_EVENT, "", NOW)).body)
    letter = load_dead_letter(message(json.dumps(content | {name: "other"}).encode(), kind=Kind.DEAD_LETTER))
    assert (letter.reason, letter.event) == (DeadReason.MALFORMED_EVENT, None)
    assert letter.text == f"{name}: is not that of the event that it holds"


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("delivery_limit", "an internal error"),
        ("expired", "AMQP `expiration`"),
        ("maxlen", "length limit"),
        ("rejected", "other than notifier"),
        (["odd"], "an internal error"),
    ],
)
def test_reason_of_the_broker_is_shown(why: object, words: str) -> None:
    """By the newest death, whatever delays the message had been through before."""
    death = [{"queue": "notifier.events", "reason": why}, {"queue": "notifier.delay.8s", "reason": "expired"}]
    letter = load_dead_letter(message(b"{}", headers={"x-death": death}))
    assert letter.reason is DeadReason.DELIVERY_LIMIT
    assert words in letter.text
    assert ("internal error" in letter.text) == (words == "an internal error")


@pytest.mark.parametrize("kind", [None, Kind.DELIVERY, Kind.EVENT])
def test_foreign_message_in_the_dead_letter_queue_is_shown_raw(kind: Kind | None) -> None:
    """With the same id at each pass, although the broker counts passes in the headers."""
    looks = [
        load_dead_letter(
            message(b'{"iss": "i"}', kind=kind, timestamp=7.0, user_id="idp", headers={"x-delivery-count": count})
        )
        for count in range(2)
    ]
    assert looks[0] == looks[1]
    assert (looks[0].reason, looks[0].iss, looks[0].publisher) == (DeadReason.DELIVERY_LIMIT, "i", "idp")
    assert looks[0].dead_since == 7.0
    assert looks[0].raw is not None


def test_broken_dead_letter_is_shown_raw() -> None:
    """It can be discarded."""
    letter = load_dead_letter(message(b"{}", kind=Kind.DEAD_LETTER, message_id="x"))
    assert (letter.id, letter.reason) == ("x", DeadReason.MALFORMED_EVENT)
