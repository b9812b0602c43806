"""A source reads documents by expressions: which configurations are wrong, and what documents become."""

import contextlib
import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.features.sources.envelopes import UnwrappedDocument
from notifier.features.sources.expressions import MAX_CACHED_TEXTS, Expression, ExpressionReader
from notifier.features.sources.source_presets import SOURCE_PRESETS
from notifier.features.sources.translation import DocumentDigests
from notifier.model.documents.sourced import Positions, format_event_positions, parse_event_positions
from notifier.model.errors import MalformedEvent
from notifier.model.message import Message
from notifier.model.session_ended import ClientEntry
from tests.features.sources.source_documents import DEMO, ISS, NOW, message, mistakes_of, refused, source, translated

EVENT = {"sub": "user", "clients": "apps"}
DOCUMENT = {"user": "alice", "apps": ["a", "b"]}

MISTAKES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "a misspelt preset": ({"preset": "duend"}, {"preset": "did you mean duende?"}),
    "no issuer, and several are configured": ({"event": EVENT, "issuer": None}, {"issuer": f'issuers: {{"{ISS}": '}),
    "no issuer, where documents name one": (
        {"preset": "duende", "issuer": None},
        {"issuer": "there are 2 issuers: the one it"},
    ),
    "issuers, and no expression that selects one": (
        {"event": EVENT, "issuer": None, "issuers": {"demo": DEMO}},
        {"issuers": "needs event.iss"},
    ),
    "an issuer that is not configured": (
        {"event": EVENT, "issuer": f"{ISS}/", "issuers": None},
        {"issuer": f"did you mean {ISS}?"},
    ),
    "no mapping": ({}, {"event": "is required without a preset"}),
    "a member that events do not have": (
        {"event": {**EVENT, "subject": "a", "ended": "b"}},
        {"event.subject": "did you mean sub?", "event.ended": "did you mean ended_at?"},
    ),
    "no clients": ({"event": {"sub": "user"}}, {"event.clients": "'*'"}),
    "a star without quotes": ({"event": {"sub": "user", "clients": "*"}}, {"event.clients": "write \"'*'\""}),
    "a star in double quotes": ({"event": {"sub": "user", "clients": '"*"'}}, {"event.clients": "write \"'*'\""}),
    "a text in double quotes that is sought": (
        {"event": {**EVENT, "clients": 'split(apps, ",")'}, "when": 'contains(default(a, "b-c"), "LOGOUT") && d'},
        {"when": "write it as 'LOGOUT'", "event.clients": "write it as ','"},
    ),
    "true without backticks": ({"event": EVENT, "when": "active == true"}, {"when": "in backticks: `true`"}),
    "not, and then a dot": ({"event": EVENT, "when": "!a.b || c"}, {"when": "write `!(a.b)`"}),
    "names with capitals where there are none": (
        {"preset": "duende", "event": {"sub": "SubjectId", "sid": '"$headers"."X-Sid"', "reason": "a || b.c_d"}},
        {"event.sub": "write subjectid", "event.reason": "write cd"},
    ),
    "nobody's session": ({"event": {"clients": "'*'"}}, {"event": "needs sub or sid"}),
    "every expression at once": (
        {
            "event": {**EVENT, "sid": "unknown(a)", "id": "length(a, b)", "reason": "a[", "ended_at": "form_ms(a)"},
            "when": "",
            "envelope": ["mass_transit", "a ==", "lines", "nservicebus"],
        },
        {
            "event.sid": "there is no function unknown()",
            "event.id": "length() takes 1 argument",
            "event.reason": "is not a JMESPath expression",
            "event.ended_at": "did you mean from_ms?",
            "when": "must not be empty",
            "envelope[0]": "did you mean masstransit?",
            "envelope[1]": "is not a JMESPath expression",
            "envelope[2]": "lines must be the first",
            "envelope[3]": "nservicebus is gone",
        },
    ),
    "brackets": ({"event": {**EVENT, "sid": "[" * 300 + "a" + "]" * 300}}, {"event.sid": "is nested too deeply"}),
    "notifier's own exchange": (
        {"event": EVENT, "bind": [{"exchange": "notifier.theirs"}, {"exchange": "notifier.events"}]},
        {"bind": "the SQLite queue has no exchanges", "bind[1].exchange": "notifier's own"},
    ),
    "a slice is none": ({"event": {**EVENT, "sid": "a[1:2] | [0]"}, "when": "a.b[:1]"}, {}),
    "alternatives": ({"event": {**EVENT, "sid": "a" + " || b" * 300}}, {"event.sid": "is nested too deeply"}),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_each_mistake_of_a_source_is_found_at_the_start(case: str) -> None:
    """With its path and remedy, and no other error."""
    shop, expected = MISTAKES[case]
    found = mistakes_of(shop={"issuer": ISS} | shop)
    assert set(found) == {f"sources.shop.{place}" for place in expected}
    for place, text in expected.items():
        assert text in found[f"sources.shop.{place}"]


READ: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]] = {
    "what is given replaces members of the preset": (
        {"preset": "duende", "event": {"sid": "`null`", "reason": "'signed_out'"}},
        {"SubjectId": "alice", "SessionId": "s", "ClientIds": ["a"]},
        {"sub": "alice", "sid": None, "reason": "signed_out"},
    ),
    "a time in milliseconds": (
        {"event": {**EVENT, "ended_at": "from_ms(at)"}},
        {"at": 1763719200123},
        {"ended_at": 1763719200.123},
    ),
    "a time in seconds as text": (
        {"event": {**EVENT, "ended_at": "from_s(at)"}},
        {"at": "1763719200"},
        {"ended_at": 1763719200.0},
    ),
    "a time in microseconds": (
        {"event": {**EVENT, "ended_at": "from_us(at)"}},
        {"at": 1763719200123456},
        {"ended_at": 1763719200.123456},
    ),
    "a time as ISO 8601 in another form than RFC 3339": (
        {"event": {**EVENT, "ended_at": "to_time(at)", "not_after": "to_time(until)"}},
        {"at": "20251121 12:00:00,5+0200", "until": "2025-11-21T10:00:60Z"},
        {"ended_at": 1763719200.5, "not_after": 1763719259.0},
    ),
    "a time as a number of seconds, or null": (
        {"event": {**EVENT, "ended_at": "to_time(at)", "not_after": "to_time(never)"}},
        {"at": 1763719200.5},
        {"ended_at": 1763719200.5, "not_after": None},
    ),
    "JSON as text, in it JSON as text again": (
        {
            "event": {
                "sub": "from_json(text).user",
                "clients": "from_json(from_json(text).apps)",
                "sid": "from_json(no)",
            }
        },
        {"text": '{"user": "bob", "apps": "[\\"c\\"]"}'},
        {"sub": "bob", "clients": ("c",), "sid": None},
    ),
    "a list of events as text": (
        {"envelope": "from_json(text)"},
        {"text": '[{"user": "bob", "apps": ["c"]}]'},
        {"sub": "bob", "clients": ("c",)},
    ),
    "names in any case, in JSON as text too": (
        {"event": {"sub": "from_json(text).userid", "clients": "apps"}, "ignore_case": True},
        {"TEXT": '{"User_Id": "bob"}'},
        {"sub": "bob"},
    ),
    "names split": ({"event": {**EVENT, "clients": "split(apps, ',')"}}, {"apps": "a, b,"}, {"clients": ("a", "b")}),
    "a default for null alone": (
        {"event": {**EVENT, "reason": "default(why, 'none')"}},
        {"why": None},
        {"reason": "none"},
    ),
    "a table": (
        {"event": {**EVENT, "reason": """look_up(why, `{"0": "user_logout", "timedout": "session_expiration"}`)"""}},
        {"why": "Timed_Out"},
        {"reason": "session_expiration"},
    ),
    "names in any case": (
        {"ignore_case": True},
        {"User": "alice", "apps": None, "A_p_p_s": ["a"]},
        {"sub": "alice", "clients": ("a",)},
    ),
    "null gives way to the other spelling": ({"ignore_case": True}, {"USER": "bob", "user": None}, {"sub": "bob"}),
    "empty texts are left out": (
        {"event": {**EVENT, "sid": "'s'", "id": "''", "email": "''", "reason": "''"}},
        {"user": ""},
        {"sub": None, "sid": "s"},
    ),
    "headers in any case": ({"event": {**EVENT, "sid": '"$headers"."X-Sid"'}}, {}, {"sid": "h"}),
    "a property": ({"event": {**EVENT, "reason": '"$properties".app_id'}}, {}, {"reason": "shop-idp"}),
    "the issuer that the document names": (
        {"event": {**EVENT, "iss": "issuer"}, "issuers": {DEMO: DEMO}},
        {"issuer": DEMO},
        {"iss": DEMO},
    ),
    "a realm by its name": (
        {"preset": "keycloak_rabbitmq", "issuer": DEMO},
        {"type": "LOGOUT", "userId": "alice", "realmId": "7c1e", "realmName": "demo", "time": 1_800_000_000_000},
        {"iss": DEMO, "sub": "alice", "clients": "*"},
    ),
    "the issuer if it names none": ({"event": {**EVENT, "iss": "issuer"}}, {"issuer": ""}, {"iss": ISS}),
    "an issuer by its number": (
        {"event": {**EVENT, "iss": "tenant"}, "issuers": {"7": DEMO}},
        {"tenant": 7},
        {"iss": DEMO},
    ),
    "an end at Okta without an outcome": (
        {"preset": "okta_hook"},
        {"data": {"events": [{"eventType": "user.session.end", "actor": {"id": "alice"}}]}},
        {"sub": "alice"},
    ),
    "another member in double quotes": ({"when": 'user == @."us-er"'}, {"us-er": "alice"}, {"sub": "alice"}),
    "clients as objects": (
        {"event": {**EVENT, "clients": "apps[].{client_id: @, sid: 's1'}"}},
        {"apps": ["a"]},
        {"clients": (ClientEntry(client_id="a", sid="s1"),)},
    ),
}


@pytest.mark.parametrize("case", READ)
def test_a_document_is_read_by_its_mapping(case: str) -> None:
    """Members that are absent or null are left out."""
    shop, document, expected = READ[case]
    what = message(DOCUMENT | document, headers={"x-sid": "h"}, app_id="shop-idp")
    (event,) = translated(source(**{"event": EVENT} | shop) if "preset" not in shop else source(**shop), what).events
    assert {name: getattr(event, name) for name in expected} == expected


REFUSED: dict[str, tuple[dict[str, Any], Any, dict[str, str]]] = {
    "invalid JSON": ({}, b"{", {"sources.shop": "not JSON"}),
    "an empty message": ({}, b" ", {"sources.shop": "is empty"}),
    "a comparison of text with a number": (
        {"event": {**EVENT, "sub": "user > `5` && 'a' || 'b'"}},
        {},
        {"sources.shop.event.sub": "types that do not fit"},
    ),
    "a function on what it does not take": (
        {"event": {**EVENT, "sub": "lower(user)"}},
        {"user": 5},
        {"sources.shop.event.sub": "lower() takes string or null, not number"},
    ),
    "a time out of range": (
        {"event": {**EVENT, "not_after": "from_ms(at)"}},
        {"at": 1e300},
        {"sources.shop.event.not_after": "takes milliseconds since 1970, in the years 1 to 9999, not a number"},
    ),
    "times of no sense": (
        {"event": {**EVENT, "ended_at": "from_us(at)", "not_after": "to_time(until)"}},
        {"at": "soon", "until": "2026-01-31T12:00:00"},
        {
            "sources.shop.event.not_after": "to_time() takes ISO 8601 with an offset, or seconds since 1970, not",
        },
    ),
    "a text with invalid JSON": (
        {"event": {**EVENT, "sub": "from_json(user)", "sid": "from_json('')", "id": "from_json(apps)"}},
        {},
        {
            "sources.shop.event.sub": "from_json() takes a string that is JSON: expected value at line 1 column 1",
            "sources.shop.event.sid": "from_json() takes a string that is JSON: EOF while parsing a value",
            "sources.shop.event.id": "from_json() takes string or null, not array",
        },
    ),
    "JSON without bounds, as text": (
        {"event": {**EVENT, "sub": "from_json(deep)", "sid": "from_json(long)"}},
        {"deep": "[" * 300 + "]" * 300, "long": "1" * 5000, "user": "NaN"},
        {
            "sources.shop.event.sub": "from_json() takes a string that is JSON: nested too deeply; 200 levels at most",
            "sources.shop.event.sid": "from_json() takes a string that is JSON: number out of range",
        },
    ),
    "a time as a number": (
        {"event": {**EVENT, "not_after": "at"}},
        {"at": 17},
        {"sources.shop.event.not_after": "from_s(…)"},
    ),
    "neither true nor false": ({"when": "user"}, {}, {"sources.shop.when": "must give true or false, not a string"}),
    "several members at once": (
        {"event": {**EVENT, "id": "why", "sid": "session"}},
        {"user": 5, "apps": None, "why": 7, "session": ""},
        {
            "sources.shop.event.sub": "to_string(…)",
            "sources.shop.event.clients": "is required",
            "sources.shop.event.id": "to_string(…)",
            "sources.shop.event.sid": "must not be empty",
        },
    ),
    "a realm that nobody configured": (
        {"event": {**EVENT, "iss": "realm"}, "issuers": {"demo": DEMO}},
        {"realm": "other"},
        {"sources.shop.issuers": "other is not among them"},
    ),
    "no realm at all": (
        {"preset": "keycloak_rabbitmq", "event": None, "issuer": None, "issuers": {"demo": DEMO}},
        {"type": "LOGOUT", "userId": "alice", "realmId": None},
        {"sources.shop.issuer": "the document names none"},
    ),
    "another issuer than the source's": (
        {"event": {**EVENT, "iss": "issuer"}},
        {"issuer": DEMO},
        {"sources.shop.issuer": f"the document names {DEMO}; this source speaks for {ISS} alone"},
    ),
    "another realm than the issuer's": (
        {"preset": "keycloak_rabbitmq", "issuer": DEMO},
        {"type": "LOGOUT", "userId": "alice", "realmId": "demo", "realmName": "other", "time": 1},
        {"sources.shop.issuers": f'if it is the same, write issuers: {{"other": "{DEMO}"}}'},
    ),
    "a realm by its id alone": (
        {"preset": "keycloak_rabbitmq", "issuer": DEMO},
        {"type": "LOGOUT", "userId": "alice", "realmId": "7c1e", "time": 1},
        {"sources.shop.issuers": f'write issuers: {{"7c1e": "{DEMO}"}}'},
    ),
    "a list where an object is meant": (
        {"when": "type == 'LOGOUT'"},
        b'[{"type": "LOGOUT"}]',
        {"sources.shop": 'is an array, not an object; if each of its members is an event, add "@" to `envelope`'},
    ),
    "JSON in JSON": (
        {},
        b'"{}"',
        {
            "sources.shop": "is a string, not an object",
            "sources.shop.event.clients": "is required",
            "sources.shop.event.sub": "sub or sid is required",
        },
    ),
    "a list that is none": ({"envelope": ["apps.x"]}, {}, {"sources.shop.envelope": "must give a list, not null"}),
    "MassTransit without a message": (
        {"envelope": "masstransit"},
        {"messageId": "m", "message": None},
        {"sources.shop.envelope": "without `message`"},
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_unreadable_document_has_a_reason(case: str) -> None:
    """Every mistake, by the setting whose expression found it. No text quotes the document's user."""
    shop, document, expected = REFUSED[case]
    body = document if isinstance(document, bytes) else DOCUMENT | document
    found = refused(source(**{"event": EVENT} | shop), message(body))
    assert set(found) == set(expected)
    for place, text in expected.items():
        assert text in found[place]
    assert "alice" not in str(found)


def test_json_as_text_has_a_size() -> None:
    """The largest message of SNS has it too. Else each of many events could have it read once more."""
    fits, longer = (json.dumps("x" * length) for length in (262_142, 262_144))
    by = source(event={**EVENT, "id": "length(from_json(text)) && 'long'"})
    read = partial(by.translate, max_bytes=1_000_000, new_id=lambda: "", now=NOW)
    assert read(message(DOCUMENT | {"text": fits})).events[0].id == "long"
    with pytest.raises(MalformedEvent, match=r"from_json\(\) takes at most 262,144 characters, not 262,146"):
        read(message(DOCUMENT | {"text": longer}))


def test_json_as_text_is_read_once_for_all_events_of_a_message() -> None:
    """Else 200 events, each of which asks for the same 128 KiB, hold the loop for seconds."""
    texts: dict[str, object] = {}
    expression, document = Expression("from_json(text)"), {"text": '{"user": "alice"}'}
    first, again = (ExpressionReader(document, texts=texts).evaluate(expression) for _ in range(2))
    assert first == {"user": "alice"}
    assert first is again
    for number in range(100):
        ExpressionReader({"text": f"{number}"}, texts=texts).evaluate(expression)
    assert len(texts) == MAX_CACHED_TEXTS


def test_texts_that_differ_are_not_mixed_up() -> None:
    """However many there are."""
    by = source(envelope="events", event={"sub": "from_json(text)", "clients": "'*'"})
    events = [{"text": f'"u{number % 7}"'} for number in range(50)]
    assert [event.sub for event in translated(by, message({"events": events})).events] == [
        f"u{number % 7}" for number in range(50)
    ]


@pytest.mark.parametrize(
    "kind",
    ["text/plain; charset=UTF-8", "text/xml", "application/vnd.masstransit+bson", "application/secevent+jwt", None],
)
def test_a_body_is_json_whatever_its_content_type(kind: str | None) -> None:
    """With `content_type: json`. An expression still sees the header's value."""
    by = source(event={**EVENT, "reason": '"$properties".content_type'}, content_type="json", envelope="masstransit")
    (event,) = translated(by, message(DOCUMENT, content_type=kind)).events
    assert (event.sub, event.reason) == ("alice", kind)


def test_when_sees_an_empty_body() -> None:
    """As null: a tombstone of Debezium. A document is read as ever, and a list of events has no part in it."""
    by = source(event=EVENT, when="@ != `null` && user == 'alice'", envelope=["lines", "of || [@]"])
    for body in (b"", b" \n", b"\xef\xbb\xbf"):
        assert translated(by, message(body)).ignored == 1
    assert translated(by, message(DOCUMENT)).events
    by = source(event={"sub": '"$headers".user', "clients": "'*'"}, when="@ == `null`")
    assert translated(by, message(b"", headers={"user": "bob"})).events[0].sub == "bob"


def test_an_empty_body_is_ignored_only_by_an_explicit_condition() -> None:
    """Where `when` speaks of members alone, a server that lost its bodies would be ignored without a word."""
    found = refused(source(event=EVENT, when="user == 'alice'"), message(b""))
    assert found == {"sources.shop": "the message is empty; to ignore such ones, begin `when` with @ != `null` &&"}
    assert "when" not in refused(source(event=EVENT), message(b""))["sources.shop"]


VERIFIED = {"https://schemas.openid.net/secevent/ssf/event-type/verification": {"state": "x"}}
BEFORE: dict[str, Any] = {"https://schemas.openid.net/secevent/risc/event-type/verification": {}}


@pytest.mark.parametrize("events", [VERIFIED, BEFORE])
@pytest.mark.parametrize("more", [{}, {"ignore_case": True}, {"envelope": "events.sessions"}, {"when": "user == 'a'"}])
def test_a_token_that_verifies_the_stream_ends_nothing(events: dict[str, Any], more: dict[str, Any]) -> None:
    """Whatever the mapping: it is ignored, and does not become a dead letter."""
    found = translated(source(event=EVENT, **more), message({"iss": ISS, "jti": "j", "events": events, **DOCUMENT}))
    assert (found.events, found.ignored, found.wrong) == ((), 1, None)


@pytest.mark.parametrize("events", [{}, [], {**VERIFIED, "urn:ended": {}}, {"verification": {}}])
def test_other_events_beside_a_verification_are_read(events: object) -> None:
    """By its mapping."""
    assert translated(source(event=EVENT), message({"events": events, **DOCUMENT})).events


SIGNED = (
    {"hmac": {"header": "x-sig", "secret_file": __file__}},
    {"set": {"issuer": ISS, "jwks_uri": f"{ISS}/keys", "audience": "us"}},
)
ENDED = {"specversion": "1.0", "id": "e", "source": "s", "type": "ended", "data": DOCUMENT}


@pytest.mark.parametrize("http", SIGNED)
def test_a_signed_body_needs_a_type_where_types_are_configured(http: dict[str, Any]) -> None:
    """Else whoever captured an event of another type could send its data as bare JSON."""
    by = source(types=["ended"], event=EVENT, http=http)
    assert translated(by, message(ENDED)).events[0].type == "ended"
    assert refused(by, message(DOCUMENT)) == {
        "sources.shop": f'has no CloudEvents type; of a signed body, issuers["{ISS}"].event_types asks for one of ended'
    }
    assert "is of the CloudEvents type started" in refused(by, message(ENDED | {"type": "started"}))["sources.shop"]
    assert translated(source(event=EVENT, http=http), message(DOCUMENT)).events


def test_a_signed_list_has_the_type_that_is_around_it() -> None:
    """Its members have no own type."""
    by = source(types=["ended"], http=SIGNED[0], event=EVENT, envelope="@")
    assert len(translated(by, message(ENDED | {"data": [DOCUMENT, DOCUMENT]})).events) == 2
    assert refused(by, message(ENDED | {"type": "started", "data": [DOCUMENT]}))
    assert refused(by, message([DOCUMENT]))


def test_an_unsigned_document_needs_no_type() -> None:
    """As an event of notifier's own form may."""
    proof = {"header": "Authorization", "value_file": __file__}
    for more in ({}, {"http": proof}):
        assert translated(source(types=["ended"], event=EVENT, **more), message(DOCUMENT)).events


BATCH = "application/cloudevents-batch+json; charset=utf-8"


def batch(*events: object) -> Message:
    """Return a batch in a message whose id belongs to no event."""
    return message(list(events), content_type=BATCH, message_id="whole")


def test_a_batch_of_cloud_events_is_opened_as_single_ones_are() -> None:
    """Each has its own id, time, type and envelope."""
    by = source(types=["ended"], http=SIGNED[0], event={**EVENT, "reason": '"$envelope".subject'})
    timed = ENDED | {"id": "e-2", "time": "2026-01-31T12:00:00Z", "subject": "why"}
    first, second = translated(by, batch(ENDED, timed)).events
    assert (first.id, first.type, first.ended_at) == ("e", "ended", None)
    assert (second.id, second.reason, second.ended_at) == ("e-2", "why", 1769860800.0)
    (single,) = translated(by, message(timed, content_type="application/cloudevents+json")).events
    assert single == second
    assert translated(by, batch(ENDED)).events == (first,)
    assert translated(by, batch()).events == ()


def test_encoded_attributes_of_a_cloud_event_are_bounded() -> None:
    """As those of publishers: each percent sign takes up to 0.6 µs of the event loop."""
    by = source(types=["ended"], event=EVENT)
    headers = {f"ce-{name}": value for name, value in ENDED.items() if name != "data"}
    encoded = headers | {f"ce-x{number}": "%" * 500 for number in range(2)}
    assert len(translated(by, message(ENDED["data"], headers=encoded)).events) == 1
    text = "ce-… have 1,001 percent signs; at most 1,000 are allowed"
    assert refused(by, message(ENDED["data"], headers=encoded | {"ce-y": "%"})) == {"headers": text}


def test_a_wrong_event_of_a_batch_affects_no_other() -> None:
    """It is named by its number, for a replay of it alone."""
    by = source(types=["ended"], http=SIGNED[0], event=EVENT, when="user != 'bob'")
    bob = ENDED | {"data": {"user": "bob"}}
    found = translated(
        by, batch(ENDED, {"id": "x"}, 7, bob, ENDED | {"type": "started"}, ENDED | {"data_base64": "?", "data": None})
    )
    assert (len(found.events), found.ignored) == (1, 1)
    assert found.wrong is not None
    assert found.wrong.which == "1-2;4-5"
    texts = [f"{each.path}: {each.text}" for each in found.wrong.mistakes]
    assert "source: event 2 of 6: is required by CloudEvents" in texts
    assert "sources.shop: event 3 of 6: is a number, not a CloudEvent" in texts
    assert any("event 5 of 6: is of the CloudEvents type started" in text for text in texts)
    assert "sources.shop: event 6 of 6: data_base64 is not base64 (RFC 4648 §4)" in texts
    assert (
        refused(by, message({}, content_type=BATCH))["sources.shop"]
        == "is an object; a batch of CloudEvents is an array"
    )
    assert "holds 5,001 events" in refused(by, batch(*range(5_001)))["sources.shop"]


def test_lists_within_a_batch_are_separate_events() -> None:
    """None takes the id of the CloudEvent, which belongs to its whole list."""
    by = source(event={**EVENT, "sid": "user"}, envelope="@")
    listed = ENDED | {"data": [DOCUMENT, {**DOCUMENT, "user": "bob"}]}
    events = translated(by, batch(listed, ENDED | {"data": [{**DOCUMENT, "user": "carol"}]})).events
    assert [event.sub for event in events] == ["alice", "bob", "carol"]
    assert len({event.id for event in events} | {"e", "whole"}) == 5


LIST = {
    "envelope": ["data.events"],
    "event": {"sub": '"$envelope".data.user', "sid": "s", "clients": "c"},
    "when": "t == 'end'",
}


def listed(*events: dict[str, Any]) -> Message:
    """A message with these events."""
    return message({"data": {"user": "alice", "events": [{"t": "end"} | event for event in events]}})


def test_each_member_of_a_list_is_a_separate_event() -> None:
    """Each is good, ignored or wrong separately; one dead letter lists the wrong members for a replay."""
    what = listed({"s": "1", "c": ["a"]}, {"t": "begin"}, {"s": 2, "c": ["a"]}, {"s": "3", "c": ["a", 5, "b", 6]})
    found = translated(source(**LIST), what)
    assert [(event.sub, event.sid, event.clients) for event in found.events] == [
        ("alice", "1", ("a",)), ("alice", "3", ("a", "b")),
    ]  # fmt: skip
    assert (found.ignored, found.wrong and found.wrong.which) == (1, "2;3:1,3")
    assert found.wrong is not None
    assert [(each.path, each.text.partition(":")[0]) for each in found.wrong.mistakes] == [
        ("sources.shop.event.sid", "event 3 of 4"),
        ("sources.shop.event.clients[1]", "event 4 of 4"),
        ("sources.shop.event.clients[3]", "event 4 of 4"),
    ]


LINES = b"\n".join(
    b'{"user": "%s", "apps": ["a"]}' % user if user else b'{"user": "bob' for user in (b"alice", b"", b"bob", b"carol")
)


@pytest.mark.parametrize("envelope", ["lines", ["lines", "of || [@]"], ["lines", "to_array(@)"]])
def test_an_unreadable_line_affects_no_other(envelope: Any) -> None:
    """Nothing is ignored for it, and the lines keep their numbers."""
    found = translated(source(envelope=envelope, event=EVENT, when="@.user != 'bob'"), message(LINES))
    assert ([event.sub for event in found.events], found.ignored) == (["alice", "carol"], 1)
    assert found.wrong is not None
    assert (found.wrong.which, "event 2 of 4: the line is not JSON" in str(found.wrong.mistakes)) == ("1", True)


def test_an_unknown_issuer_is_not_named_by_the_dead_letter() -> None:
    """A dead letter is found by its issuer."""
    shop = source(event={**EVENT, "iss": "realm"}, issuers={"demo": DEMO})
    with pytest.raises(MalformedEvent) as raised:
        translated(shop, message(DOCUMENT | {"realm": "other"}))
    assert raised.value.data == {"iss": "", "id": ""}


def test_a_replay_reads_only_the_wrong_events() -> None:
    """Even if only some of them have been corrected since."""
    what = listed({"s": "1", "c": ["a"]}, {}, {"s": "2", "c": ["a"]}, {"s": "3", "c": ["a", "x", "b", 6]})
    found = translated(source(**LIST), what, only=parse_event_positions("2;3:1,3"))
    assert [(event.sid, event.clients) for event in found.events] == [("2", ("a",)), ("3", ("x",))]
    assert found.wrong is not None
    assert found.wrong.which == "3:3"


def test_a_message_of_very_many_events_is_divided() -> None:
    """So that reading it does not hold the loop."""
    what = listed(*({"s": f"{number}", "c": ["a"]} for number in range(450)))
    found = translated(source(**LIST), what)
    assert (found.events, found.parts) == ((), ("0-199", "200-399", "400-449"))
    sids = [
        event.sid
        for part in found.parts
        for event in translated(source(**LIST), what, only=parse_event_positions(part)).events
    ]
    assert sids == [f"{number}" for number in range(450)]


def test_a_message_of_absurdly_many_events_is_refused() -> None:
    """Each part would read all of them."""
    found = refused(source(**LIST), listed(*({} for _ in range(5_001))))
    assert found == {"sources.shop.envelope": "holds 5,001 events; 5,000 at most"}


def test_an_event_without_an_id_gets_a_stable_one() -> None:
    """An own id wins, then the message's. Without a time and a session there is none, since users sign out again."""
    mapping = source(event={**EVENT, "sid": "session", "ended_at": "at", "id": "id"})

    def id_of(given: dict[str, Any], **more: Any) -> str:
        return translated(mapping, message(DOCUMENT | given, **more)).events[0].id

    with_time = {"at": "2026-01-31T12:00:00Z"}
    assert id_of(with_time) == id_of(with_time) != id_of({"at": "2026-01-31T12:00:01Z"})
    assert id_of({"session": "s"}, timestamp=1.0) == id_of({"session": "s"}, timestamp=2.0)
    assert id_of({}, timestamp=1.0) != id_of({}, timestamp=2.0)
    assert id_of({}) == "made-up"
    assert id_of(with_time, message_id="m-1") == "m-1"
    assert id_of(with_time | {"id": "own"}, message_id="m-1") == "own"


@pytest.mark.parametrize(
    "times", [("2026-11-26T09:00:00", "2026-11-26T09:00:01"), (1764147600, 1764147601), ([1], [2])]
)
@pytest.mark.parametrize("expression", ["at", "from_ms(at)", "to_time(at)", "from_s(lower(at))"])
def test_an_unreadable_time_distinguishes_two_sign_outs(times: tuple[object, object], expression: str) -> None:
    """One user may end one session id twice. The same document again is a copy."""
    by = source(event={**EVENT, "sid": "session", "ended_at": expression})
    first, second, again = (
        translated(by, message(DOCUMENT | {"session": "s", "at": at})).events[0] for at in (*times, times[0])
    )
    assert first.id == again.id != second.id
    assert (first.unread, first.ended_at) == ((), first.ended_at) if first.ended_at else (("ended_at",), None)


def test_a_shared_envelope_is_digested_once() -> None:
    """The sender of a message of 128 KiB chooses the number of events for which its time is unreadable."""
    by = source(event={**EVENT, "sid": "session", "ended_at": 'from_ms("$envelope".at)'}, envelope="list")
    members = [DOCUMENT | {"session": f"s{nth}"} for nth in range(100)]
    ids = [{event.id for event in translated(by, message({"at": at, "list": members})).events} for at in "xyx"]
    assert (len(ids[0]), ids[0] == ids[2], ids[0] & ids[1]) == (100, True, set())
    digests, envelope = DocumentDigests(), {"at": "x"}
    documents = [UnwrappedDocument(data=member, envelope=envelope) for member in members]
    first = digests.of(documents[0], with_envelope=True)
    envelope["at"] = "y"  # this is not seen
    second = digests.of(documents[1], with_envelope=True)
    assert (first[0] != second[0], first[1] == second[1]) == (True, True)


def test_an_envelope_with_an_unreadable_time_is_opened() -> None:
    """MassTransit's and CloudEvents'. It distinguishes two messages without an id."""
    bus = source(event=EVENT, envelope="masstransit")
    ids = set()
    for sent in ("2026-11-26T09:00:00", 1764147600000):
        (event,) = translated(bus, message({"message": DOCUMENT, "messageType": [], "sentTime": sent})).events
        assert (event.unread, event.ended_at) == (("time",), None)
        ids.add(event.id)
    assert len(ids) == 2
    cloud = {"specversion": "1.0", "id": "c1", "source": "/", "type": "t", "time": 1764147600000, "data": DOCUMENT}
    (event,) = translated(source(event=EVENT), message(cloud)).events
    assert (event.id, event.unread) == ("c1", ("time",))
    (event,) = translated(source(event=EVENT), batch(cloud | {"time": "today"})).events
    assert event.unread == ("time",)


def test_an_unreadable_reason_still_ends_the_session() -> None:
    """Nothing depends on it."""
    by = source(event={**EVENT, "reason": "user > `5` && 'a' || 'b'"})
    (event,) = translated(by, message(DOCUMENT)).events
    assert (event.unread, event.reason) == (("reason",), None)


def test_positions_are_written_in_short_and_read_back() -> None:
    """Too many of them are unknown."""
    positions: Positions = {0: None, 1: None, 2: None, 7: (range(1, 3), range(4, 5)), 9: None}
    assert format_event_positions(positions) == "0-2;7:1-2,4;9"
    assert parse_event_positions("0-2;7:1-2,4;9") == positions
    assert format_event_positions(dict.fromkeys(range(0, 2000, 2))) == ""


NAMES = sorted(
    {name for preset in SOURCE_PRESETS for name in source(preset=preset).used_names}
    | {"message", "messageId", "specversion", "data"}
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.just("LOGOUT"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=20,
)  # fmt: skip


@given(
    document=JSON,
    preset=st.sampled_from(sorted(SOURCE_PRESETS)),
    media=st.sampled_from([None, "application/vnd.masstransit+json"]),
)
def test_whatever_a_document_holds_is_read_ignored_or_refused(document: Any, preset: str, media: str | None) -> None:
    """No preset raises anything else."""
    with contextlib.suppress(MalformedEvent):
        found = translated(source(preset=preset), message(document, content_type=media))
        assert all(event.sub or event.sid for event in found.events)
