"""Test what publishers may write, how it is read, and how errors are reported."""

import gzip
import json
import re
from collections.abc import Callable
from functools import cache
from ipaddress import ip_network
from typing import Any

import jsonschema
import pytest

from notifier.model.client import Algorithm, EgressPolicy
from notifier.model.documents import event_entries
from notifier.model.documents.event_document import event_schema, parse_event, read_event
from notifier.model.documents.event_entries import MAX_ISSUES, abridge_issues
from notifier.model.egress import check_uri
from notifier.model.errors import MalformedEvent
from notifier.model.message import CutBody, Lane, Message
from notifier.model.session_ended import ClientEntry, SessionEnded

NOW = 1_800_000_000.0
ISS = "https://id.example.com"
EVENT: dict[str, Any] = {"iss": ISS, "sub": "ann", "sid": "s-1", "clients": ["shop"]}


def message(body: object, **properties: Any) -> Message:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Message(lane=Lane.EVENTS, body=raw, tag=1, **properties)


def read(body: object, *, new_id: Callable[[], str] = lambda: "new", **properties: Any) -> SessionEnded:
    return parse_event(message(body, **properties), max_bytes=131_072, new_id=new_id, now=NOW).event


def mistakes(body: object, **properties: Any) -> list[str]:
    """Return the errors of an event that must be valid as a whole."""
    with pytest.raises(MalformedEvent) as caught:
        read_event(message(body, **properties), max_bytes=131_072, new_id=lambda: "new", now=NOW)
    return [str(mistake) for mistake in caught.value.mistakes]


def wrong(body: object) -> list[str]:
    """Return the errors of invalid entries beside valid ones, then their indexes."""
    found = parse_event(message(body), max_bytes=131_072, new_id=lambda: "new", now=NOW).wrong
    return [] if found is None else [*map(str, abridge_issues(found.mistakes, found.more)), found.which]


def test_every_member_is_understood() -> None:
    """Every member of the table in docs/event.md."""
    event = read(
        {
            "id": "e-1",
            "iss": ISS,
            "sub": "ann",
            "sid": "s-1",
            "clients": [
                "shop",
                {
                    "client_id": "mail",
                    "backchannel_logout_uri": "https://mail.example.com/bcl?a=%20b",
                    "backchannel_logout_session_required": True,
                    "id_token_signed_response_alg": "EdDSA",
                    "sub": "pairwise",
                    "sid": "s-2",
                },
            ],
            "ended_at": "2026-01-31T12:00:00.25Z",
            "not_after": "2026-01-31T14:00:00+01:00",
            "reason": "terminated",
        },
        user_id="idp",
        app_id="claims",
    )
    assert event == SessionEnded(
        id="e-1",
        id_given=True,
        iss=ISS,
        sub="ann",
        sid="s-1",
        clients=(
            "shop",
            ClientEntry(
                client_id="mail",
                backchannel_logout_uri="https://mail.example.com/bcl?a=%20b",
                backchannel_logout_session_required=True,
                id_token_signed_response_alg=Algorithm.EDDSA,
                sub="pairwise",
                sid="s-2",
            ),
        ),
        ended_at=1769860800.25,
        not_after=1769864400.0,
        reason="terminated",
        publisher="idp",
        claimed_publisher="claims",
    )


def test_all_clients_are_named_by_a_star() -> None:
    """`"*"` stands for every registered client of the issuer."""
    assert read(EVENT | {"clients": "*"}).clients == "*"


def test_null_address_means_no_back_channel() -> None:
    """A publisher that knows its clients marks those without a back-channel."""
    event = read(EVENT | {"clients": [{"client_id": "shop", "backchannel_logout_uri": None}, {"client_id": "mail"}]})
    assert event.clients == (ClientEntry(client_id="shop", no_address=True), "mail")


def test_null_means_absent() -> None:
    """Some serializers write `null` for absent members."""
    left_out = dict.fromkeys(("id", "sid", "ended_at", "not_after", "reason"))
    entry = {"client_id": "shop", "id_token_signed_response_alg": None, "sub": None}
    event = read(EVENT | left_out | {"clients": [entry]})
    assert (event.sid, event.ended_at, event.id_given) == (None, None, False)
    assert event.clients == (ClientEntry(client_id="shop"),)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"iss": None}, ["iss: must be a string, not null"]),
        ({"iss": ""}, ["iss: must not be empty"]),
        ({"sub": 7}, ["sub: must be a string, not a number"]),
        ({"sid": ["a"]}, ["sid: must be a string, not an array"]),
        ({"sub": "a\0b"}, ["sub: must not contain control characters"]),
        ({"sub": "a" * 1025}, ["sub: must have at most 1024 characters"]),
        ({"id": "é" * 200}, ["id: must have at most 255 bytes in UTF-8"]),
        ({"id": ""}, ["id: must not be empty"]),
        (
            {"not_after": "2026-01-31T12:00:00"},
            ["not_after: must be an RFC 3339 timestamp with an offset, like 2026-01-31T12:00:00Z"],
        ),
        ({"clients": None}, ['clients: is required: give a list of at least one client, or "*" for all']),
        ({"clients": []}, ['clients: must not be an empty list: give a list of at least one client, or "*" for all']),
        ({"clients": {}}, ['clients: must not be an object: give a list of at least one client, or "*" for all']),
        ({"sub": None, "sid": None}, ["sub: sub or sid is required, here or in every entry of clients"]),
        (
            {"sub": None, "sid": None, "clients": "*"},
            ["sub: sub or sid is required, here or in every entry of clients"],
        ),
    ],
)
def test_error_contains_its_member(change: dict[str, object], expected: list[str]) -> None:
    """B12 and the types of the members: the text contains the expected type."""
    assert mistakes(EVENT | change) == expected


def test_all_errors_are_reported_at_once() -> None:
    """A single attempt shows the publisher all five errors."""
    body = {"iss": 1, "ended_at": "x", "clients": ["shop", 5, {"client_id": "mail", "sid": 5}, "*"]}
    assert [text.partition(":")[0] for text in mistakes(body)] == [
        "iss",
        "sub",
        "clients[1]",
        "clients[2].sid",
        "clients[3]",
    ]


@pytest.mark.parametrize(
    ("change", "unread"),
    [
        ({"ended_at": "2026-11-26T09:00:00"}, ("ended_at",)),
        ({"ended_at": "2026-11-26T09:00:00+0000"}, ("ended_at",)),
        ({"ended_at": 1764147600000}, ("ended_at",)),
        ({"ended_at": "", "reason": 7}, ("ended_at", "reason")),
        ({"ended_at": {"at": 1}, "reason": "a" * 1025, "clients": [*map(str, range(300))]}, ("ended_at", "reason")),
        ({"ended_at": "soon", "clients": "*"}, ("ended_at",)),
        ({"reason": ""}, ("reason",)),
    ],
)
def test_invalid_informational_member_is_dropped(change: dict[str, object], unread: tuple[str, ...]) -> None:
    """No delivery depends on it. The time of the message replaces it."""
    event = read(EVENT | change, timestamp=NOW - 5)
    assert (event.unread, event.reason) == (unread, None)
    assert event.ended_at == NOW - 5


def test_valid_member_beside_a_dropped_one_is_kept() -> None:
    """And an error is still reported."""
    event = read(EVENT | {"ended_at": "soon", "reason": "why"})
    assert (event.unread, event.reason, event.ended_at) == (("ended_at",), "why", None)
    wrong = EVENT | {"ended_at": "soon", "not_after": "soon"}
    assert mistakes(wrong) == ["not_after: must be an RFC 3339 timestamp with an offset, like 2026-01-31T12:00:00Z"]


@pytest.mark.parametrize(
    ("entry", "client_id", "expected"),
    [
        (7, None, "clients[1]: must be a client_id or an object with one, not a number"),
        (None, None, "clients[1]: must be a client_id or an object with one, not null"),
        ("", None, "clients[1]: must not be empty"),
        ("*", "*", 'clients[1]: is not a client_id; for all clients write "clients": "*", without a list'),
        ({}, None, "clients[1].client_id: is required"),
        ({"client_id": "b", "sub": 1}, "b", "clients[1].sub: must be a string, not a number"),
        (
            {"client_id": "b", "backchannel_logout_session_required": "yes"},
            "b",
            "clients[1].backchannel_logout_session_required: must be true or false, not a string",
        ),
        (
            {"client_id": "b", "id_token_signed_response_alg": "HS256"},
            "b",
            (
                'clients[1].id_token_signed_response_alg: "HS256" is not supported; must be one of '
                "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519"
            ),
        ),
        (
            {"client_id": "b", "backchannel_logout_uri": "https://b.example.com/#x"},
            "b",
            "clients[1].backchannel_logout_uri: must not have a fragment (#…)",
        ),
    ],
)
def test_invalid_entry_does_not_affect_the_others(entry: object, client_id: str | None, expected: str) -> None:
    """B3, B5, B23: the others are served. The error has the entry and the reason."""
    body = EVENT | {"clients": ["a", entry, "c"]}
    assert read(body).clients == ("a", "c")
    assert wrong(body) == [expected, "1"]
    assert mistakes(body) == [expected]
    alone = mistakes(EVENT | {"clients": [entry]})
    assert alone == [expected.replace("clients[1]", "clients[0]")]


def test_entries_may_have_the_only_subject() -> None:
    """B12: if the event has neither `sub` nor `sid`, only the entries without their own are invalid."""
    body = {"iss": ISS, "clients": [{"client_id": "a", "sub": "x"}, "b", {"client_id": "c", "sid": "y"}]}
    assert wrong(body) == ["clients[1]: must have sub or sid, because the event has neither", "1"]
    assert read(body).clients == (ClientEntry(client_id="a", sub="x"), ClientEntry(client_id="c", sid="y"))


def test_event_with_only_invalid_entries_is_malformed() -> None:
    """No client remains. Each entry has its own error."""
    with pytest.raises(MalformedEvent):
        read(EVENT | {"clients": [1, 2]})
    assert mistakes(EVENT | {"clients": [1, 2]}) == [
        f"clients[{index}]: must be a client_id or an object with one, not a number" for index in (0, 1)
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "the message is empty; it must be a JSON object"),
        (b" \n", "the message is empty; it must be a JSON object"),
        (b"\xff{}", "not UTF-8: byte 0 is 0xff"),
        (gzip.compress(b"{}", mtime=0), "not UTF-8: byte 1 is 0x8b"),
        (b"{", "not JSON: "),
        (b"{} {}", "not JSON: "),
        (b'{"iss": "\\ud800"}', "not JSON: "),
        (b'{"iss": ' + b"9" * 5000 + b"}", "not JSON: "),
        (b"[" * 100_000, "nested too deeply; 200 levels at most"),
        (b"[]", "must be a JSON object, not an array"),
        (b"null", "must be a JSON object, not null"),
        (b" " * 131_073, "the event has 131073 bytes; at most 131072 are allowed"),
    ],
)
def test_body_that_is_not_a_json_object_is_refused(body: bytes, expected: str) -> None:
    """Empty, oversized, not UTF-8, not JSON, nested too deeply: each has its own text."""
    (found,) = mistakes(body)
    assert found.startswith(expected)
    assert len(found) < 200


def test_message_truncated_by_the_queue_is_too_large() -> None:
    """The error has the true size, and the start is not read."""
    cut = CutBody(size=9_000_000, sha256="ab")
    expected = ["the event has 9000000 bytes; at most 131072 are allowed"]
    assert mistakes(EVENT, cut_from=cut) == expected
    assert mistakes(EVENT, cut_from=cut, content_type="text/plain") == expected


def test_a_byte_order_mark_is_tolerated() -> None:
    """RFC 8259 §8.1 allows it, and some writers add one."""
    assert read(b"\xef\xbb\xbf" + json.dumps(EVENT).encode()).iss == ISS


def test_repeated_client_names_are_kept_once() -> None:
    """So documents of the event do not grow."""
    assert read(EVENT | {"clients": ["a", "b"] * 500}).clients == ("a", "b")


@pytest.mark.parametrize(
    ("places", "which"),
    [
        ({1}, "1"),
        ({1, 2, 3, 7}, "1-3,7"),
        ({0, 2, 499}, "0,2,499"),
        (set(range(0, 500, 2)), ",".join(map(str, range(0, 500, 2)))),
        (set(range(0, 1000, 2)), ""),
    ],
)
def test_indexes_of_invalid_entries_are_recorded(places: set[int], which: str) -> None:
    """As ranges, for a replay to those clients only. A list longer than 1 KiB is omitted."""
    clients = [0 if index in places else f"c{index}" for index in range(1000 if not which else 500)]
    assert wrong(EVENT | {"clients": clients})[-1] == which
    if which:
        only = event_entries.parse_positions(which)
        assert [place for run in only for place in run] == sorted(places)
        meant = {"clients": [f"w{index}" if index in places else "valid" for index in range(500)]}
        event = read_event(message(EVENT | meant), max_bytes=131_072, new_id=lambda: "new", now=NOW, only=only)
        assert event.clients == tuple(f"w{index}" for index in sorted(places))


def test_precedence_of_event_ids() -> None:
    """That of the body, else of CloudEvents, else of AMQP."""
    cloud = {
        "cloudEvents:id": "cloud",
        "cloudEvents:source": "/",
        "cloudEvents:type": "t",
        "cloudEvents:specversion": "1.0",
    }
    own = EVENT | {"id": "own"}
    assert read(own, headers=cloud, message_id="amqp").id == "own"
    assert read(EVENT, headers=cloud, message_id="amqp").id == "cloud"
    assert read(EVENT, message_id="amqp").id == "amqp"
    assert read(EVENT, message_id="amqp").id_given
    assert not read(EVENT, message_id="").id_given
    assert mistakes(EVENT, message_id="a\nb") == ["message_id: must be printable and have at most 255 bytes in UTF-8"]
    assert read(own, message_id="a\nb").id == "own"


def test_ended_at_in_the_future_is_now() -> None:
    """The publisher's clock may be ahead. Propagation is never negative."""
    assert read(EVENT | {"ended_at": "2199-01-01T00:00:00Z"}).ended_at == NOW
    assert read(EVENT, timestamp=NOW + 5).ended_at == NOW
    assert read(EVENT, timestamp=NOW - 5).ended_at == NOW - 5
    assert read(EVENT | {"ended_at": "2026-01-31T12:00:00Z"}, timestamp=NOW - 5).ended_at == 1769860800.0
    assert read(EVENT).ended_at is None


def test_twenty_mistakes_are_listed_and_the_others_counted() -> None:
    """The answer to 128 KiB of garbage stays small."""
    found = mistakes(EVENT | {"clients": [1] * 5000})
    assert len(found) == MAX_ISSUES + 1
    assert found[-1] == "and 4980 more mistakes"
    assert wrong(EVENT | {"clients": ["a", *[1] * 5000]})[-2:] == ["and 4980 more mistakes", "1-5000"]
    assert mistakes(EVENT | {"iss": 1, "clients": [1] * 20})[-1] == "and 1 more mistake"


def test_the_schema_accepts_its_own_examples_and_so_does_the_reader() -> None:
    """`notifier schema event` is generated from the types that parse."""
    schema: Any = event_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for example in schema["examples"]:
        jsonschema.validate(example, schema)
        assert read(example).iss == ISS
    json.dumps(schema)


# ── `notifier schema event` accepts and refuses the same events as the reader ────────────────────────────────────────

# Cases that no JSON Schema can express are omitted: an `id` of more than 255 bytes in fewer characters, an
# event larger
# than 128 KiB, JSON nested deeper than 200 levels, a member written twice, half a surrogate pair.

NO_LIST: list[object] = []
NO_OBJECT: dict[str, object] = {}
TEXTS = ("iss", "sub", "sid", "id", "reason")
NO_TEXTS = ("", "a\n", "\x7f", 5, True, NO_LIST)
PLAIN: dict[str, Any] = {"iss": ISS, "sub": "ann", "sid": "s-1", "clients": ["shop"]}
URIS = (
    "https://a.example/", "http://10.0.0.1", "HTTPS://a.example:443?x=%20", "https://[::1]:8080/x", "https://a_b.c-d.",
    "https://a.example:00080/?", "https://[1:2:3:4:5:6:7:8]", "https://[1:2:3:4:5:6:7::]/", "https://[::1.2.3.4]",
    "https://[1::1.2.3.4]/", "https://0x.example", "https://1.2.3.4a", "https://a/b@c", "https://a?b@c:d",
    "https://" + "a" * 63,
    "https://" + "a." * 126 + "a", "https://" + "a." * 126 + "a.", "https://a.example/" + "x" * 4078,
)  # fmt: skip
NO_URIS = (
    "", "/a", "a.example", "ftp://a/", "https:/a", "https://", "https:///a", "https://a#", "https://a/#b",
    "https://u@a/",
    "https://u:p@a/", "https://a b/", "https://a/ ", " https://a/", "https://a/\n", "https://a\n", "https://a\\b",
    "https://\u00e4.example/", "https://a/\u00e4", "https://-a/", "https://a-/", "https://a..b/", "https://.a/",
    "https://a:/",
    "https://a:0/", "https://a:00000/", "https://a:65536/", "https://a:99999/", "https://a:100000/", "https://a:x/",
    "https://a:1:2/", "https://256.1.1.1/", "https://a.1/", "https://a.0x/", "https://a.0xfg.0x1/", "https://[::1/",
    "https://::1/",
    "https://[]/",
    "https://[1::2::3]/", "https://[1:2:3:4:5:6:7]/", "https://[1:2:3:4:5:6:7:8::]/", "https://[::1%25lo]/",
    "https://[::1]x/",
    "https://[::12345]/", "https://[1.2.3.4]/", "https://[::1.2.3.256]/", "https://" + "a" * 64,
    "https://a.example/" + "x" * 4079, "https://" + "a." * 127 + "a",
)  # fmt: skip
# Unusual forms of an address: the reader accepts them, and egress checks them. The schema accepts the plain form only.
IN_DISGUISE = ("https://1.2.3/", "https://127.1/", "https://1.2.3.4./", "https://0x7f000001/", "https://01.2.3.4/")
ANYWHERE = EgressPolicy(allow=(ip_network("0.0.0.0/0"), ip_network("::/0")), allow_http=True)
MOMENTS = (
    "2026-01-31T12:00:00Z", "2026-01-31t12:00:00.123456789z", "2026-01-31 12:00:00+23:59", "2024-02-29T00:00:00-00:00",
    "2000-02-29T00:00:00Z", "2026-12-31T23:59:60Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
    "2026-01-31T12:00:00." + "1" * 20 + "Z",
)  # fmt: skip
NO_MOMENTS = (
    "", "2026-01-31", "2026-01-31T12:00:00", "2026-1-31T12:00:00Z", "2026-02-29T00:00:00Z", "2100-02-29T00:00:00Z",
    "2026-04-31T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "2026-01-31T24:00:00Z", "2026-01-31T12:60:00Z", "2026-01-31T12:00:61Z", "2026-01-31T12:00Z",
    "2026-01-31T12:00:00.Z",
    "2026-01-31T12:00:00." + "1" * 21 + "Z", "2026-01-31T12:00:00+24:00", "2026-01-31T12:00:00+01:60",
    "2026-01-31T12:00:00+0100",
    "2026-01-31T12:00:00,5Z", "2026-01-31T12:00:00Z\n", " 2026-01-31T12:00:00Z", "20260131T120000Z",
    "2026-W05-6T12:00:00Z",
    "\u0662026-01-31T12:00:00Z", "0000-02-29T00:00:00Z", "now",
)  # fmt: skip


@cache
def validator() -> jsonschema.Draft202012Validator:
    """Cached, because `validate` checks the schema each time."""
    schema: Any = event_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def is_read(body: object) -> bool:
    """Return True if the reader accepts it as over HTTP, where every invalid entry is an error."""
    message = Message(lane=Lane.EVENTS, body=json.dumps(body).encode(), tag=1)
    try:
        read_event(message, max_bytes=10_000_000, new_id=lambda: "new", now=1_800_000_000.0)
    except MalformedEvent:
        return False
    return True


def judged(body: object) -> tuple[bool, bool]:
    """Return the verdicts of the reader and of the schema."""
    return is_read(body), validator().is_valid(body)


def entry(**members: object) -> dict[str, object]:
    """Return the event with one client that has these members."""
    return PLAIN | {"clients": [{"client_id": "shop", **members}]}


def whose(*clients: object, **members: object) -> dict[str, object]:
    """Return an event without `sub` and `sid`, unless given."""
    return {"iss": ISS, "clients": list(clients), **members}


A, B = {"client_id": "a", "sub": "x"}, {"client_id": "b", "sid": "y"}


def test_reader_and_schema_accept_it() -> None:
    """Validation before publishing never blocks a valid event."""
    bodies: list[object] = [
        PLAIN,
        PLAIN | {"clients": "*"},
        PLAIN | {"tenant": {"x": [1]}, "specVersion": 1},
        PLAIN | dict.fromkeys(("id", "sid", "ended_at", "not_after", "reason")),
        PLAIN | {"clients": ["**", " *", {"client_id": "a", "colour": None}]},
        PLAIN | {"sub": "a" * 1024, "id": "\u00e9" * 127, "reason": "\u202e\u00ad\u2028"},
        whose("a", sub="x"),
        whose("a", sid="x", sub=None),
        whose(A, B),
        whose(A | {"sid": None}, B | {"sub": None}, sub=None, sid=None),
        entry(**dict.fromkeys(("backchannel_logout_uri", "backchannel_logout_session_required", "sub", "sid"))),
        entry(id_token_signed_response_alg=None, backchannel_logout_session_required=False),
        *(entry(id_token_signed_response_alg=str(alg)) for alg in Algorithm),
        *(entry(backchannel_logout_uri=uri) for uri in URIS),
        *(PLAIN | {member: moment} for moment in MOMENTS for member in ("ended_at", "not_after")),
    ]
    assert [body for body in bodies if judged(body) != (True, True)] == []


def test_reader_and_schema_refuse_it() -> None:
    """The schema refuses what the reader would dead-letter."""
    bodies: list[object] = [
        *([], None, "x", {}, {"iss": ISS}, {"clients": "*", "sub": "x"}),
        whose("shop"),
        whose("shop", sub=None, sid=None),
        whose(A, "b"),
        whose(A, {"client_id": "b"}),
        whose(A, {"client_id": "b", "sub": None}),
        {"iss": ISS, "clients": "*"},
        *(PLAIN | {"clients": wrong} for wrong in (None, NO_LIST, "shop", NO_OBJECT)),
        *(PLAIN | {"clients": ["a", wrong]} for wrong in ("*", {"client_id": "*"}, None, NO_LIST, 5, NO_OBJECT)),
        *(PLAIN | {"clients": ["a", wrong]} for wrong in ("", "a\n", "a\x00", "\x85", "a" * 1025)),
        *(PLAIN | {name: wrong} for name in TEXTS if name != "reason" for wrong in NO_TEXTS),
        PLAIN | {"iss": None},
        PLAIN | {"id": "a" * 256},
        PLAIN | {"sub": "a" * 1025},
        PLAIN | {"specversion": "1.0"},
        PLAIN | {"specversion": None},
        *(entry(sub=wrong) for wrong in ("", "a\n", 5)),
        *(entry(backchannel_logout_session_required=wrong) for wrong in ("yes", 1, 0, NO_LIST)),
        *(entry(id_token_signed_response_alg=wrong) for wrong in ("none", "HS256", "rs256", "RS256\n", "", 5)),
        *(entry(backchannel_logout_uri=uri) for uri in (*NO_URIS, 5)),
        *(PLAIN | {"not_after": moment} for moment in (*NO_MOMENTS, 5)),
    ]  # fmt: skip
    assert [body for body in bodies if judged(body) != (False, False)] == []


def test_reader_drops_invalid_informational_members() -> None:
    """No delivery depends on it. The schema requires the correct form from publishers."""
    bodies: list[object] = [
        *(PLAIN | {"ended_at": moment} for moment in (*NO_MOMENTS, 5)),
        *(PLAIN | {"reason": text} for text in (*NO_TEXTS, "a" * 1025)),
    ]
    assert [body for body in bodies if judged(body) != (True, False)] == []


def test_schema_requires_plain_addresses() -> None:
    """No attempt is made to any other, whatever egress allows."""
    for uri in IN_DISGUISE:
        assert judged(entry(backchannel_logout_uri=uri)) == (True, False), uri
        assert in_disguise(uri), uri


def in_disguise(uri: str) -> bool:
    """Return whether egress refuses it for the spelling of its address."""
    return "must write its address as" in (check_uri(uri, ANYWHERE) or "")


@pytest.mark.parametrize("body", [b"\x00Sw\xc1\x01\x00", b"\x00Sv\x45", b"\x00\x80" + bytes(7) + b"w\x40"])
def test_other_value_of_amqp_1_0_has_a_remedy(body: bytes) -> None:
    """A map, a sequence, null: notifier reads texts and bytes."""
    [mistake] = mistakes(body)
    assert "send the JSON as a data section" in mistake


def test_every_validator_can_read_the_patterns() -> None:
    """No look-around, no back-reference, no class by letter: engines differ in these."""
    patterns = re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', json.dumps(event_schema()))
    assert len(patterns) > 10
    for pattern in patterns:
        text = json.loads(f'"{pattern}"')
        assert re.search(r"\(\?(?!:)", text) is None
        assert re.search(r"\\[1-9dDwWsSbBpPAzZ]", text) is None
