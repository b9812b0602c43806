"""What publishers may write, how it is read, and how their mistakes are named."""

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from notifier.model.client import Algorithm
from notifier.model.documents import event_entries
from notifier.model.documents.event_document import event_schema, read_event, understand
from notifier.model.documents.event_entries import MISTAKES, first_of
from notifier.model.errors import MalformedEvent
from notifier.model.message import Lane, Message, Whole
from notifier.model.session_ended import ClientEntry, SessionEnded

NOW = 1_800_000_000.0
ISS = "https://id.example.com"
EVENT: dict[str, Any] = {"iss": ISS, "sub": "ann", "sid": "s-1", "clients": ["shop"]}


def message(body: object, **properties: Any) -> Message:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Message(lane=Lane.EVENTS, body=raw, tag=1, **properties)


def read(body: object, *, new_id: Callable[[], str] = lambda: "new", **properties: Any) -> SessionEnded:
    return understand(message(body, **properties), max_bytes=131_072, new_id=new_id, now=NOW).event


def mistakes(body: object, **properties: Any) -> list[str]:
    """The mistakes of an event that must be right as a whole."""
    with pytest.raises(MalformedEvent) as caught:
        read_event(message(body, **properties), max_bytes=131_072, new_id=lambda: "new", now=NOW)
    return [str(mistake) for mistake in caught.value.mistakes]


def wrong(body: object) -> list[str]:
    """The mistakes of the wrong entries beside good ones, then their places."""
    found = understand(message(body), max_bytes=131_072, new_id=lambda: "new", now=NOW).wrong
    return [] if found is None else [*map(str, first_of(found.mistakes, found.more)), found.which]


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


def test_an_address_that_is_null_says_that_there_is_none() -> None:
    """A publisher that knows its clients tells which of them need not be told."""
    event = read(EVENT | {"clients": [{"client_id": "shop", "backchannel_logout_uri": None}, {"client_id": "mail"}]})
    assert event.clients == (ClientEntry(client_id="shop", no_address=True), "mail")


def test_null_counts_as_left_out() -> None:
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
        ({"iss": 7}, ["iss: must be a string, not a number"]),
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
        ({"clients": "shop"}, ['clients: must not be "shop": give a list of at least one client, or "*" for all']),
        ({"clients": {}}, ['clients: must not be an object: give a list of at least one client, or "*" for all']),
        ({"sub": None, "sid": None}, ["sub: sub or sid is required, here or in every entry of clients"]),
        (
            {"sub": None, "sid": None, "clients": "*"},
            ["sub: sub or sid is required, here or in every entry of clients"],
        ),
    ],
)
def test_a_mistake_is_named_with_its_member(change: dict[str, object], expected: list[str]) -> None:
    """B12 and the types of the members: the text says what is expected."""
    assert mistakes(EVENT | change) == expected


def test_every_mistake_is_told_at_once() -> None:
    """Nobody has to publish five times to find five mistakes."""
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
def test_what_is_for_information_alone_is_dropped(change: dict[str, object], unread: tuple[str, ...]) -> None:
    """No delivery depends on it. The time of the message takes its place."""
    event = read(EVENT | change, timestamp=NOW - 5)
    assert (event.unread, event.reason) == (unread, None)
    assert event.ended_at == NOW - 5


def test_a_good_member_beside_a_dropped_one_stays() -> None:
    """And a mistake is still one."""
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
def test_a_wrong_entry_leaves_the_others_alone(entry: object, client_id: str | None, expected: str) -> None:
    """B3, B5, B23: the others are served. The mistake says which entry is wrong and why."""
    body = EVENT | {"clients": ["a", entry, "c"]}
    assert read(body).clients == ("a", "c")
    assert wrong(body) == [expected, "1"]
    assert mistakes(body) == [expected]
    alone = mistakes(EVENT | {"clients": [entry]})
    assert alone == [expected.replace("clients[1]", "clients[0]")]


def test_each_entry_may_bring_the_only_subject() -> None:
    """B12: if the event has neither `sub` nor `sid`, only the entries without their own are wrong."""
    body = {"iss": ISS, "clients": [{"client_id": "a", "sub": "x"}, "b", {"client_id": "c", "sid": "y"}]}
    assert wrong(body) == ["clients[1]: must have sub or sid, because the event has neither", "1"]
    assert read(body).clients == (ClientEntry(client_id="a", sub="x"), ClientEntry(client_id="c", sid="y"))


def test_an_event_of_only_wrong_entries_is_malformed() -> None:
    """No client can be told. Each entry has its own mistake."""
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
        (gzip.compress(b"{}", mtime=0), "the body is compressed with gzip: publish it as plain UTF-8"),
        (zlib.compress(b"{}", 1), "the body is compressed with deflate: publish it as plain UTF-8"),
        (zlib.compress(b"{}"), "the body is compressed with deflate: publish it as plain UTF-8"),
        (zlib.compress(b"{}", 9), "the body is compressed with deflate: publish it as plain UTF-8"),
        (b"\x28\xb5\x2f\xfd\x00", "the body is compressed with zstd: publish it as plain UTF-8"),
        ("{}".encode("utf-16"), "the body is UTF-16: publish it as plain UTF-8"),
        ("{}".encode("utf-16-le"), "the body is UTF-16: publish it as plain UTF-8"),
        ("{}".encode("utf-16-be"), "the body is UTF-16: publish it as plain UTF-8"),
        (b"{", "not JSON: "),
        (b"{} {}", "not JSON: "),
        (b'{"iss": "\\ud800"}', "not JSON: "),
        (b'{"iss": ' + b"9" * 5000 + b"}", "not JSON: "),
        (b"[" * 100_000, "nested too deeply; 200 levels at most"),
        (b"[]", "must be a JSON object, not an array"),
        (b"null", "must be a JSON object, not null"),
        (b"NaN", "must be a JSON object, not a number"),
        (b" " * 131_073, "the event has 131073 bytes; at most 131072 are allowed"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes, expected: str) -> None:
    """Empty, oversized, not UTF-8, not JSON, nested too deeply: each has its own text."""
    (found,) = mistakes(body)
    assert found.startswith(expected)
    assert len(found) < 200


def test_a_message_that_the_queue_cut_is_too_large() -> None:
    """The mistake names the true size, and the beginning is not read."""
    cut = Whole(size=9_000_000, sha256="ab")
    told = ["the event has 9000000 bytes; at most 131072 are allowed"]
    assert mistakes(EVENT, cut_from=cut) == told
    assert mistakes(EVENT, cut_from=cut, content_type="text/plain") == told


def test_a_byte_order_mark_is_tolerated() -> None:
    """RFC 8259 §8.1 allows it, and some writers add one."""
    assert read(b"\xef\xbb\xbf" + json.dumps(EVENT).encode()).iss == ISS


def test_a_name_that_occurs_a_thousand_times_is_kept_once() -> None:
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
def test_the_places_of_wrong_entries_are_noted(places: set[int], which: str) -> None:
    """As ranges, for a replay that tells nobody else. A list longer than 1 KiB is left out."""
    clients = [0 if index in places else f"c{index}" for index in range(1000 if not which else 500)]
    assert wrong(EVENT | {"clients": clients})[-1] == which
    if which:
        only = event_entries.positions(which)
        assert [place for run in only for place in run] == sorted(places)
        meant = {"clients": [f"w{index}" if index in places else "told" for index in range(500)]}
        event = read_event(message(EVENT | meant), max_bytes=131_072, new_id=lambda: "new", now=NOW, only=only)
        assert event.clients == tuple(f"w{index}" for index in sorted(places))


def test_the_first_given_id_is_taken() -> None:
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


def test_an_end_in_the_future_counts_as_now() -> None:
    """The publisher's clock may be ahead. Propagation is never negative."""
    assert read(EVENT | {"ended_at": "2199-01-01T00:00:00Z"}).ended_at == NOW
    assert read(EVENT, timestamp=NOW + 5).ended_at == NOW
    assert read(EVENT, timestamp=NOW - 5).ended_at == NOW - 5
    assert read(EVENT | {"ended_at": "2026-01-31T12:00:00Z"}, timestamp=NOW - 5).ended_at == 1769860800.0
    assert read(EVENT).ended_at is None


def test_twenty_mistakes_are_listed_and_the_others_counted() -> None:
    """The answer to 128 KiB of nonsense stays small."""
    found = mistakes(EVENT | {"clients": [1] * 5000})
    assert len(found) == MISTAKES + 1
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
