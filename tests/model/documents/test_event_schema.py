"""`notifier schema event` accepts what the reader accepts, and refuses what it refuses.

Cases that no JSON Schema can express are left out: an `id` of more than 255 bytes in fewer characters, an event larger
than 128 KiB, JSON nested deeper than 200 levels, a member written twice, half a surrogate pair.
"""

import json
import re
from functools import cache
from ipaddress import ip_network
from typing import Any

import jsonschema
import pytest

from notifier.model.client import Algorithm, EgressPolicy
from notifier.model.documents.event_document import event_schema, read_event
from notifier.model.egress import check_uri
from notifier.model.errors import MalformedEvent
from notifier.model.message import Lane, Message

NO_LIST: list[object] = []
NO_OBJECT: dict[str, object] = {}
TEXTS = ("iss", "sub", "sid", "id", "reason")
NO_TEXTS = ("", "a\n", "\x7f", 5, True, NO_LIST)
ISS = "https://id.example.com"
EVENT: dict[str, Any] = {"iss": ISS, "sub": "ann", "sid": "s-1", "clients": ["shop"]}
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
    """True if the reader accepts it as over HTTP, where every wrong entry is a mistake."""
    message = Message(lane=Lane.EVENTS, body=json.dumps(body).encode(), tag=1)
    try:
        read_event(message, max_bytes=10_000_000, new_id=lambda: "new", now=1_800_000_000.0)
    except MalformedEvent:
        return False
    return True


def judged(body: object) -> tuple[bool, bool]:
    """The verdicts of the reader and of the schema."""
    return is_read(body), validator().is_valid(body)


def entry(**members: object) -> dict[str, object]:
    """The event with one client that has these members."""
    return EVENT | {"clients": [{"client_id": "shop", **members}]}


def whose(*clients: object, **members: object) -> dict[str, object]:
    """An event without `sub` and `sid` of its own, unless given."""
    return {"iss": ISS, "clients": list(clients), **members}


A, B = {"client_id": "a", "sub": "x"}, {"client_id": "b", "sid": "y"}


@pytest.mark.parametrize(
    "body",
    [
        EVENT,
        EVENT | {"clients": "*"},
        EVENT | {"tenant": {"x": [1]}, "specVersion": 1},
        EVENT | dict.fromkeys(("id", "sid", "ended_at", "not_after", "reason")),
        EVENT | {"clients": ["**", " *", {"client_id": "a", "colour": None}]},
        EVENT | {"sub": "a" * 1024, "id": "\u00e9" * 127, "reason": "\u202e\u00ad\u2028"},
        whose("a", sub="x"),
        whose("a", sid="x", sub=None),
        whose(A, B),
        whose(A | {"sid": None}, B | {"sub": None}, sub=None, sid=None),
        entry(**dict.fromkeys(("backchannel_logout_uri", "backchannel_logout_session_required", "sub", "sid"))),
        entry(id_token_signed_response_alg=None, backchannel_logout_session_required=False),
        *(entry(id_token_signed_response_alg=str(alg)) for alg in Algorithm),
        *(entry(backchannel_logout_uri=uri) for uri in URIS),
        *(EVENT | {member: moment} for moment in MOMENTS for member in ("ended_at", "not_after")),
    ],
)
def test_both_accept_it(body: object) -> None:
    """Validation before publishing never blocks a good event."""
    assert judged(body) == (True, True)


@pytest.mark.parametrize(
    "body",
    [
        *([], None, "x", {}, {"iss": ISS}, {"clients": "*", "sub": "x"}),
        whose("shop"),
        whose("shop", sub=None, sid=None),
        whose(A, "b"),
        whose(A, {"client_id": "b"}),
        whose(A, {"client_id": "b", "sub": None}),
        {"iss": ISS, "clients": "*"},
        *(EVENT | {"clients": wrong} for wrong in (None, NO_LIST, "shop", NO_OBJECT)),
        *(EVENT | {"clients": ["a", wrong]} for wrong in ("*", {"client_id": "*"}, None, NO_LIST, 5, NO_OBJECT)),
        *(EVENT | {"clients": ["a", wrong]} for wrong in ("", "a\n", "a\x00", "\x85", "a" * 1025)),
        *(EVENT | {name: wrong} for name in TEXTS if name != "reason" for wrong in NO_TEXTS),
        EVENT | {"iss": None},
        EVENT | {"id": "a" * 256},
        EVENT | {"sub": "a" * 1025},
        EVENT | {"specversion": "1.0"},
        EVENT | {"specversion": None},
        *(entry(sub=wrong) for wrong in ("", "a\n", 5)),
        *(entry(backchannel_logout_session_required=wrong) for wrong in ("yes", 1, 0, NO_LIST)),
        *(entry(id_token_signed_response_alg=wrong) for wrong in ("none", "HS256", "rs256", "RS256\n", "", 5)),
        *(entry(backchannel_logout_uri=uri) for uri in (*NO_URIS, 5)),
        *(EVENT | {"not_after": moment} for moment in (*NO_MOMENTS, 5)),
    ],
)  # fmt: skip
def test_both_refuse_it(body: object) -> None:
    """What the reader would bury, the schema says beforehand."""
    assert judged(body) == (False, False)


@pytest.mark.parametrize(
    "body",
    [
        *(EVENT | {"ended_at": moment} for moment in (*NO_MOMENTS, 5)),
        *(EVENT | {"reason": text} for text in (*NO_TEXTS, "a" * 1025)),
    ],
)
def test_the_reader_drops_what_is_for_information_alone(body: object) -> None:
    """No delivery depends on it. The schema has it as publishers should write it."""
    assert judged(body) == (True, False)


@pytest.mark.parametrize("uri", IN_DISGUISE)
def test_the_schema_wants_an_address_in_its_plain_form(uri: str) -> None:
    """No attempt is made to any other, whatever egress allows."""
    assert judged(entry(backchannel_logout_uri=uri)) == (True, False)
    assert in_disguise(uri)


def in_disguise(uri: str) -> bool:
    """Whether egress refuses it for how its address is written."""
    return "must write its address as" in (check_uri(uri, ANYWHERE) or "")


def test_every_validator_can_read_the_patterns() -> None:
    """No look-around, no back-reference, no class by letter: engines differ in these."""
    patterns = re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', json.dumps(event_schema()))
    assert len(patterns) > 10
    for pattern in patterns:
        text = json.loads(f'"{pattern}"')
        assert re.search(r"\(\?(?!:)", text) is None
        assert re.search(r"\\[1-9dDwWsSbBpPAzZ]", text) is None
