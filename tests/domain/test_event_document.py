"""What publishers may write, what becomes of it, and what they are told where it is wrong."""

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.domain import event_entries
from notifier.domain.client import Algorithm
from notifier.domain.errors import MalformedEvent, Mistake
from notifier.domain.event_document import event_schema, read_event, understand
from notifier.domain.event_entries import MISTAKES, first_of
from notifier.domain.message import Lane, Message, Whole
from notifier.domain.session_ended import ClientEntry, SessionEnded

NOW = 1_800_000_000.0
ISS = "https://id.example.com"
EVENT: dict[str, Any] = {"iss": ISS, "sub": "ann", "sid": "s-1", "clients": ["shop"]}


def message(body: object, **properties: Any) -> Message:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Message(lane=Lane.EVENTS, body=raw, tag=1, **properties)


def read(body: object, *, new_id: Callable[[], str] = lambda: "new", **properties: Any) -> SessionEnded:
    return understand(message(body, **properties), max_bytes=131_072, new_id=new_id, now=NOW).event


def mistakes(body: object, **properties: Any) -> list[str]:
    """All that are told of what must be right as a whole."""
    with pytest.raises(MalformedEvent) as caught:
        read_event(message(body, **properties), max_bytes=131_072, new_id=lambda: "new", now=NOW)
    return [str(mistake) for mistake in caught.value.mistakes]


def try_to_read(body: object) -> SessionEnded | tuple[Mistake, ...]:
    try:
        return read_event(message(body), max_bytes=131_072, new_id=lambda: "new", now=NOW)
    except MalformedEvent as malformed:
        return malformed.mistakes


def wrong(body: object) -> list[str]:
    """The mistakes of the wrong entries beside good ones, and which they are."""
    found = understand(message(body), max_bytes=131_072, new_id=lambda: "new", now=NOW).wrong
    return [] if found is None else [*map(str, first_of(found.mistakes, found.more)), found.which]


def test_every_member_is_understood() -> None:
    """The whole table of members, each with its OpenID Connect name."""
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


def test_unknown_members_are_ignored() -> None:
    """A publisher may add members of its own, in the event and in its entries."""
    event = read(EVENT | {"tenant": {"x": 1}, "clients": [{"client_id": "shop", "colour": "red"}]})
    assert event.clients == ("shop",)


def test_null_is_left_out() -> None:
    """Serializers that write `null` for what is absent are understood."""
    left_out = dict.fromkeys(("id", "sid", "ended_at", "not_after", "reason"))
    entry = {"client_id": "shop", "backchannel_logout_uri": None, "id_token_signed_response_alg": None, "sub": None}
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
        ({"reason": True}, ["reason: must be a string, not a boolean"]),
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
    """B12 and the types of the members: the text says what is right."""
    assert mistakes(EVENT | change) == expected


@pytest.mark.parametrize(
    "moment", ["2026-01-31T12:00:00", "2026-01-31", "1700000000", 1700000000, "2026-02-30T00:00:00Z", "now", ""]
)
@pytest.mark.parametrize("member", ["ended_at", "not_after"])
def test_a_moment_needs_rfc_3339_and_an_offset(member: str, moment: object) -> None:
    """A local time could be any moment of a day, so it is a mistake."""
    expected = "must be an RFC 3339 timestamp with an offset, like 2026-01-31T12:00:00Z"
    assert mistakes(EVENT | {member: moment}) == [f"{member}: {expected}"]


def test_every_mistake_is_told_at_once() -> None:
    """Nobody has to publish five times to learn of five mistakes."""
    body = {"iss": 1, "ended_at": "x", "clients": ["shop", 5, {"client_id": "mail", "sid": 5}, "*"]}
    assert [text.partition(":")[0] for text in mistakes(body)] == [
        "iss",
        "ended_at",
        "sub",
        "clients[1]",
        "clients[2].sid",
        "clients[3]",
    ]


@pytest.mark.parametrize(
    ("entry", "client_id", "expected"),
    [
        (7, None, "clients[1]: must be a client_id or an object with one, not a number"),
        (None, None, "clients[1]: must be a client_id or an object with one, not null"),
        ("", None, "clients[1]: must not be empty"),
        ("*", "*", 'clients[1]: is no client; for all clients write "clients": "*", not in a list'),
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
                "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA"
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
    """B3, B5, B23: the others are served, and it is told which entry is wrong and why."""
    body = EVENT | {"clients": ["a", entry, "c"]}
    assert read(body).clients == ("a", "c")
    assert wrong(body) == [expected, "1"]
    assert mistakes(body) == [expected]
    alone = mistakes(EVENT | {"clients": [entry]})
    assert alone == [expected.replace("clients[1]", "clients[0]")]


@pytest.mark.parametrize("uri", ["/relative", "ftp://a/", "https://u:p@a.example/", "https://", "https://a b/"])
def test_an_inline_uri_must_be_well_formed(uri: str) -> None:
    """B3: absolute; no user name or password. An http or private one is well formed: it is judged at the attempt."""
    entry = {"client_id": "b", "backchannel_logout_uri": uri}
    assert len(wrong(EVENT | {"clients": ["a", entry]})) == 2
    assert wrong(EVENT | {"clients": ["a", entry | {"backchannel_logout_uri": "http://10.0.0.1/"}]}) == []


def test_each_entry_may_bring_the_only_subject() -> None:
    """B12: where the event has neither `sub` nor `sid`, an entry without its own is wrong, alone."""
    body = {"iss": ISS, "clients": [{"client_id": "a", "sub": "x"}, "b", {"client_id": "c", "sid": "y"}]}
    assert wrong(body) == ["clients[1]: needs sub or sid, since the event has neither", "1"]
    assert read(body).clients == (ClientEntry(client_id="a", sub="x"), ClientEntry(client_id="c", sid="y"))


def test_an_event_of_only_wrong_entries_is_malformed() -> None:
    """Nobody can be told; what is wrong with each is told apart."""
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
        (b"{", "not JSON: "),
        (b"{} {}", "not JSON: "),
        (b'{"iss": "\\ud800"}', "not JSON: "),
        (b'{"iss": ' + b"9" * 5000 + b"}", "not JSON: "),
        (b"[" * 100_000, "nested too deeply; 200 levels at most"),
        (b"[]", "must be a JSON object, not an array"),
        (b"null", "must be a JSON object, not null"),
        (b"NaN", "must be a JSON object, not a number"),
        (b" " * 131_073, "the event has 131073 bytes; at most 131072 are taken (queue.max_event)"),
    ],
)
def test_what_is_no_json_object_is_said_to_be_none(body: bytes, expected: str) -> None:
    """Empty, oversized, not UTF-8, not JSON, nested without end: each has its words."""
    (found,) = mistakes(body)
    assert found.startswith(expected)
    assert len(found) < 200


def test_what_the_queue_cut_is_too_large() -> None:
    """It is told with its true size, and nobody tries to read its beginning."""
    cut = Whole(size=9_000_000, sha256="ab")
    told = ["the event has 9000000 bytes; at most 131072 are taken (queue.max_event)"]
    assert mistakes(EVENT, cut_from=cut) == told
    assert mistakes(EVENT, cut_from=cut, content_type="text/plain") == told


def test_a_byte_order_mark_is_tolerated() -> None:
    """RFC 8259 §8.1 lets a reader do so, and some writers put one."""
    assert read(b"\xef\xbb\xbf" + json.dumps(EVENT).encode()).iss == ISS


def test_a_wrong_entry_may_be_anything() -> None:
    """Nested to the limit, a number that is none, one of thousands of digits."""
    deep = "[" * 190 + "]" * 190
    body = f'{{"iss": "x", "sub": "s", "clients": ["a", {deep}, 1e999, {"9" * 4000}]}}'
    assert read(body.encode()).clients == ("a",)
    assert wrong(body.encode())[-1] == "1-3"


def test_a_name_that_stands_there_a_thousand_times_is_kept_once() -> None:
    """Whatever is written of the event is no larger for it."""
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
def test_it_is_noted_which_entries_are_wrong(places: set[int], which: str) -> None:
    """In ranges, for a replay that tells nobody else; where that would be longer than 1 KiB, not at all."""
    clients = [0 if index in places else f"c{index}" for index in range(1000 if not which else 500)]
    assert wrong(EVENT | {"clients": clients})[-1] == which
    if which:
        only = event_entries.places(which)
        assert [place for run in only for place in run] == sorted(places)
        meant = {"clients": [f"w{index}" if index in places else "told" for index in range(500)]}
        event = read_event(message(EVENT | meant), max_bytes=131_072, new_id=lambda: "new", now=NOW, only=only)
        assert event.clients == tuple(f"w{index}" for index in sorted(places))


def test_a_made_up_id_differs_at_each_reading() -> None:
    """The same user may sign out twice with the same body: neither reading marks the other a duplicate."""
    numbers = count()
    first, second = (read(EVENT, new_id=lambda: f"made-{next(numbers)}") for _ in range(2))
    assert (first.id, second.id) == ("made-0", "made-1")
    assert not first.id_given
    assert not second.id_given


def test_the_first_given_id_is_taken() -> None:
    """The body's own before CloudEvents' before AMQP's."""
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


def test_nothing_ended_in_the_future() -> None:
    """The publisher's clock may be ahead: propagation is never negative."""
    assert read(EVENT | {"ended_at": "2199-01-01T00:00:00Z"}).ended_at == NOW
    assert read(EVENT, timestamp=NOW + 5).ended_at == NOW
    assert read(EVENT, timestamp=NOW - 5).ended_at == NOW - 5
    assert read(EVENT | {"ended_at": "2026-01-31T12:00:00Z"}, timestamp=NOW - 5).ended_at == 1769860800.0
    assert read(EVENT).ended_at is None


def test_mistakes_repeat_little_of_the_input_and_only_what_prints() -> None:
    """They are shown on terminals and in answers."""
    entry = {"client_id": "b", "id_token_signed_response_alg": "\x1b[31m" + "x" * 10_000}
    (found,) = mistakes(EVENT | {"clients": [entry]})
    assert found.isprintable()
    assert len(found) < 300


def test_twenty_mistakes_are_told_and_the_others_counted() -> None:
    """The answer to 128 KiB of nonsense stays small."""
    found = mistakes(EVENT | {"clients": [1] * 5000})
    assert len(found) == MISTAKES + 1
    assert found[-1] == "and 4980 more mistakes"
    assert wrong(EVENT | {"clients": ["a", *[1] * 5000]})[-2:] == ["and 4980 more mistakes", "1-5000"]
    assert mistakes(EVENT | {"iss": 1, "clients": [1] * 20})[-1] == "and 1 more mistake"


def test_the_schema_accepts_its_own_examples_and_they_are_understood() -> None:
    """`notifier schema event` is generated from the types that parse."""
    schema: Any = event_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for example in schema["examples"]:
        jsonschema.validate(example, schema)
        assert isinstance(try_to_read(example), SessionEnded)
    json.dumps(schema)


_SOMETIMES = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("*") | st.just("2026-01-31T12:00:00Z")
)
_ENTRY = st.dictionaries(st.sampled_from(["client_id", "sub", "sid", "backchannel_logout_uri"]), _SOMETIMES)
_BODY = st.fixed_dictionaries(
    {},
    optional={
        "id": _SOMETIMES,
        "iss": _SOMETIMES,
        "sub": _SOMETIMES,
        "sid": _SOMETIMES,
        "reason": _SOMETIMES,
        "not_after": _SOMETIMES,
        "clients": st.lists(_SOMETIMES | _ENTRY, max_size=4) | _SOMETIMES,
    },
)


@settings(max_examples=200, deadline=None)
@given(_BODY)
def test_the_schema_never_refuses_what_is_understood(body: dict[str, object]) -> None:
    """Whoever validates against the schema is not kept from publishing a good event."""
    if isinstance(try_to_read(body), SessionEnded):
        schema: Any = event_schema()
        jsonschema.validate(body, schema)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200)
    | st.text(max_size=100).map(str.encode)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*EVENT, "specversion", "data"]), inner)
        ),
        max_leaves=15,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_an_event_or_malformed(body: bytes) -> None:
    """Nothing that a publisher can send raises anything else."""
    found = try_to_read(body)
    if not isinstance(found, SessionEnded):
        assert found
        assert all(str(mistake).isprintable() for mistake in found)
