"""Events similar and dissimilar to real ones, as hypothesis strategies. They produce text, not Python objects.

So they can contain what a serializer of Python would never write: duplicate members, half of a surrogate
pair, numbers of 5,000 digits, unbounded nesting. Error texts must not contain `SUBJECT`, and at most
100 characters of `LOUD`.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from notifier.model.message import Lane, Message

ISS, OTHER = "https://id.example", "https://other.example"
SUBJECT = "4f1c-the-subject-"
LOUD = "L"
MOST = 8192  # bytes of an event

Json = st.SearchStrategy[str]


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object: its name as text, and its value as JSON text."""

    name: str
    value: str


def quoted(text: str) -> str:
    """Return a string as JSON text."""
    return json.dumps(text)


def object_of(members: Sequence[Member]) -> str:
    """Return JSON text of an object, with duplicates."""
    return "{" + ",".join(f"{quoted(member.name)}:{member.value}" for member in members) + "}"


def _list_of(values: Sequence[str]) -> str:
    return f"[{','.join(values)}]"


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────

ODD_TEXTS = (
    '""', r'"\ud800"', r'"\udc00\ud800"', r'"\ud83d\ude00"', r'"\u0000"', r'"a\nb"', r'"\u2028"', '"\x7f"', r'"\x"',
    '"',
    quoted(LOUD * 300), quoted(LOUD * 1024), quoted(LOUD * 1025), quoted("é" * 255), quoted("*"), quoted(" "),
)  # fmt: skip
NUMBERS = (
    "0", "-0", "-1", "1.5", "1e999", "-1e999", "1e-999", "9" * 30, "9" * 4300, "9" * 5000, "1" * 25 + ".5", "NaN",
    "Infinity", "-Infinity", "01", "1.", "0x10",
)  # fmt: skip
DEEP = (*("[" * depth + "]" * depth for depth in (3, 195, 198, 199, 200, 201, 3000)), '{"a":' * 199 + "1" + "}" * 199)
MOMENTS = (
    "2026-01-31T12:00:00Z", "2026-01-31t12:00:00.123456789z", "2016-12-31T23:59:60Z", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-23:59", "2026-02-30T12:00:00Z", "2026-01-31T24:00:00Z", "2026-01-31T12:00:00+24:00",
    "0000-01-01T00:00:00Z",
    "2026-01-31T12:00:00", "2026-01-31T12:00:00+01:00:30", "٢٠٢٦-01-31T12:00:00Z", "yesterday", "9999-12-31T23:59:59Z",
)  # fmt: skip
URIS = (
    "https://shop.example/out?tenant=1", "http://shop.example/", "https://[::1]/", "https://[fe80::1%25eth0]/", "https://127.1/",
    "https://0x7f000001/", "https://u:p@shop.example/", "https://shop.example:0/", "https://shop.example:65536/", "https://é.example/",
    "https://shop.example/#f", "https:///", "https://[", "ftp://a/", "https://a..b/", "https://shop.example/%", "/out", "https://a:\n/",
    "https://" + "a" * 5000, "https://xn--a/", "https://" + "a." * 200 + "b/", f"https://shop.example/{SUBJECT}", "https://[v1.x]/",
)  # fmt: skip

ODD = (
    "null", "true", "false", "[]", "{}", "", "nul", "[1,]", '{"a":1,}', "//", "[1]", '["a"]', "[null]", '"a"',
    '[{"client_id":"a"}]',
    *ODD_TEXTS, *NUMBERS, *DEEP,
)  # fmt: skip


def mostly(good: Sequence[str], odd_share: float = 0.06) -> Json:
    """Draw valid values, and an odd one in so many cases. One draw, so that a case takes a millisecond, not five."""
    times = math.ceil(len(ODD) / odd_share / len(good))
    return st.sampled_from([*good] * times + [*ODD])


def all_quoted(*texts: str) -> tuple[str, ...]:
    """Strings as JSON text."""
    return tuple(map(quoted, texts))


SUBJECTS = all_quoted(SUBJECT, SUBJECT + "2", SUBJECT * 60, SUBJECT, SUBJECT, SUBJECT * 70, SUBJECT + "\x00")
NAMES = all_quoted("a", "shop", "mail", "x" * 300, "café", "0", "user_logout")


STRANGER = st.sampled_from(ODD)


# ── the event ───────────────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def objects(draw: st.DrawFn, known: Mapping[str, Json], least: Sequence[str] = ()) -> str:
    """Draw an object of known members, most of them valid, some twice, in any order, and sometimes an unknown one."""
    names = [*least, *draw(st.lists(st.sampled_from([*known, "stranger"]), max_size=4))]
    how = draw(st.integers(0, 15))
    if how == 0 and names:
        names.pop(0)
    members = [Member(name, draw(known.get(name, STRANGER))) for name in names]
    return object_of(members[::-1] if how % 2 else members)


_ENTRY = {
    "client_id": mostly(NAMES, 0.03),
    "backchannel_logout_uri": mostly(all_quoted(*URIS[:1] * 20, *URIS)),
    "backchannel_logout_session_required": mostly(["true", "false"]),
    "frontchannel_logout_uri": mostly(all_quoted(*URIS[:1] * 20, *URIS)),
    "frontchannel_logout_session_required": mostly(["true", "false"]),
    "id_token_signed_response_alg": mostly(all_quoted("ES256", "RS256", "PS512", "none", "HS256", "es256")),
    "sub": mostly(SUBJECTS),
    "sid": mostly(SUBJECTS),
}
entries: Json = st.one_of(mostly(NAMES), objects(_ENTRY, ["client_id"]))
clients: Json = st.one_of(
    mostly(['"*"', '["a"]', '["shop","mail"]', _list_of(['"a"'] * 150)], 0.1),
    st.lists(entries, min_size=1, max_size=4).map(_list_of),
)
_EVENT = {
    "id": mostly(all_quoted("e-1", "é" * 127, "i" * 255, "e-1", "é" * 128, "i" * 256)),
    "iss": mostly(all_quoted(*[ISS] * 6, OTHER, "https://nobody.example"), 0.03),
    "sub": mostly(SUBJECTS, 0.03),
    "sid": mostly(SUBJECTS),
    "clients": clients,
    "ended_at": mostly(all_quoted(*MOMENTS[:5] * 5, *MOMENTS)),
    "not_after": mostly(all_quoted(*MOMENTS[:5] * 5, *MOMENTS)),
    "reason": st.one_of(mostly(NAMES), st.text(max_size=12).map(quoted)),
}
events: Json = objects(_EVENT, ["iss", "clients", "sub"])


def _encoded(text: str) -> str:
    return quoted(base64.b64encode(text.encode("utf-8", "replace")).decode())


_ENVELOPE = {
    "specversion": mostly(all_quoted("1.0", "1.0", "1.0", "1.0", "1.0", "1.0", "1.0", "0.3"), 0.02),
    "id": mostly(all_quoted("c-1", "c-2", "c-3", "é" * 128), 0.02),
    "source": mostly(all_quoted("/idp", "urn:idp"), 0.02),
    "type": mostly(NAMES, 0.02),
    "time": mostly(all_quoted(*MOMENTS[:5] * 5, *MOMENTS)),
    "datacontenttype": mostly(all_quoted("application/json", "text/json", "application/x+json;a=b", "text/plain")),
    "data": events,
    "data_base64": st.one_of(events.map(_encoded), mostly(all_quoted("", "=", "a", "YQ==", "Y Q="))),
}
structured: Json = objects(_ENVELOPE, ["specversion", "id", "source", "type", "data"])


# ── the message ─────────────────────────────────────────────────────────────────────────────────────────────────

_MARKS = (b"\xef\xbb\xbf", b"\xef\xbb\xbf" * 2, b" " * 9000, b"\xff\xfe", b"\x00")


@st.composite
def broken(draw: st.DrawFn, text: str) -> bytes:
    """Return the text as bytes; in one case of six truncated, spliced, or in another encoding."""
    body = text.encode("utf-8", "surrogatepass")
    match draw(st.integers(0, 23)):
        case 20:
            return body[: draw(st.integers(0, len(body)))]
        case 21:
            at = draw(st.integers(0, len(body)))
            return body[:at] + draw(st.binary(max_size=4)) + body[at:]
        case 22:
            return draw(st.sampled_from(_MARKS)) + body
        case 23:
            return text.encode("utf-16", "surrogatepass") if draw(st.booleans()) else body + body
    return body


PREFIXES = ("cloudEvents_", "cloudEvents:", "CLOUDEVENTS_", "ce-", "cloudEvents", "", "İcloudEvents:")
header_values: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        ["1.0", "/idp", "c-1", "a", "", "%41%", "%ff", "\ud800", "a\nb", LOUD * 300, "2026-01-31T12:00:00Z"]
    ),
    st.sampled_from([b"1.0", b"\xff", bytearray(b"a"), 1, -1, True, None, 1.5, float("nan"), [], {"a": [None]}, 2**63]),
    st.datetimes(),
    st.text(max_size=8),
)
headers = st.dictionaries(
    st.builds(
        str.__add__,
        st.sampled_from(PREFIXES),
        st.sampled_from(["specversion", "id", "source", "type", "time", "datacontenttype", "", "ext", "x-death"]),
    ),
    header_values,
    max_size=8,
)
_ATTRIBUTES = {"specversion": "1.0", "id": "c-1", "source": "/i", "type": "t"}
whole_headers = st.builds(
    lambda prefix, more: {prefix + name: value for name, value in _ATTRIBUTES.items()} | more,
    st.sampled_from(PREFIXES[:4]),
    headers,
)
CONTENT_TYPES = (
    *[None, "application/json"] * 6, "application/cloudevents+json", "application/cloudevents-batch+json",
    "application/cloudevents+avro",
    "text/plain", ";", "Application/CloudEvents+JSON; charset=utf-16", "\ud800", LOUD * 300,
)  # fmt: skip
names = st.one_of(st.none(), st.sampled_from(["m-1", "", "é" * 128, "a\x00b", "\ufffd", "\u2028", LOUD * 255]))


_headers = st.integers(0, 5).flatmap(lambda one: {4: headers, 5: whole_headers}.get(one, st.just({})))


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Draw what a publisher may have sent, as the queue delivers it."""
    text = draw(st.one_of(events, structured))
    return Message(
        lane=draw(st.sampled_from(Lane)),
        body=draw(broken(text)),
        tag=None,
        content_type=draw(st.sampled_from(CONTENT_TYPES)),
        headers=draw(_headers),
        message_id=draw(names),
        timestamp=draw(st.sampled_from([None, 0.0, 1.7e9, -9.3e15, 9.3e15, 1e12])),
        user_id=draw(names),
        app_id=draw(names),
        delivery_count=draw(st.sampled_from([0, 0, 3, -1])),
    )
