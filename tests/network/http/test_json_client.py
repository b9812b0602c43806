"""Documents over HTTP: JSON in parts, clients of JSON, and documents of issuers."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from notifier.model.client import EgressPolicy, TlsFiles
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument, issuer_egress, metadata_uri
from notifier.network.http.issuer_documents import MAX_BODY_BYTES, DocumentReader
from notifier.network.http.json_client import MAX_ERROR_BYTES, JsonAnswer, JsonClient, NoAnswer
from notifier.network.http.json_parts import (
    MAX_MEMBERS,
    MAX_NESTING,
    MAX_PART_CHARACTERS,
    Bounds,
    OutOfBounds,
    read_json,
)
from tests.support.behaviours import Behaviour, hang, raw
from tests.support.certificates import authority
from tests.support.receivers import scripted

# ── Whatever a server answers is bounded before anything is made of it: head, body, what unpacks from it, its JSON


MIB = 1024 * 1024
BOUNDS = Bounds(answer=MIB)


@cache
def bomb() -> bytes:
    """100 MiB of JSON, packed."""
    return gzip.compress(b"[" + b"[]," * (100 * MIB // 3) + b"[]]", 1)


def packed(body: bytes, coding: str = "gzip", status: int = 200) -> Behaviour:
    head = f"HTTP/1.1 {status} X\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n"
    return raw(head.encode() + body)


def plain(body: bytes, status: int = 200) -> Behaviour:
    return packed(body, "identity", status)


@asynccontextmanager
async def client(bounds: Bounds = BOUNDS, **further: Any) -> AsyncIterator[JsonClient]:
    made = JsonClient(bounds, TlsFiles(), **further)
    try:
        yield made
    finally:
        await made.close()


async def asked(behaviour: Behaviour, bounds: Bounds = BOUNDS, **further: Any) -> JsonAnswer:
    async with scripted(behaviour) as server, client(bounds, **further) as ours:
        return await ours.ask("GET", server.url)


async def refused(behaviour: Behaviour, bounds: Bounds = BOUNDS) -> str:
    with pytest.raises(NoAnswer) as told:
        await asked(behaviour, bounds)
    return str(told.value)


async def test_no_compression_is_asked_for() -> None:
    """A server that keeps to it needs nothing to be unpacked."""
    async with scripted(plain(b"[]")) as server, client() as ours:
        assert (await ours.ask("GET", server.url)).content == []
    assert server.requests[0].header("Accept-Encoding") == ["identity"]


@pytest.mark.parametrize(
    ("coding", "body"),
    [("gzip", gzip.compress(b"[1]")), ("X-GZIP", gzip.compress(b"[1]")), ("deflate", zlib.compress(b"[1]"))],
    ids=["gzip", "its other name", "deflate"],
)
async def test_what_is_compressed_all_the_same_is_unpacked(coding: str, body: bytes) -> None:
    """Some proxies do it to every answer."""
    assert (await asked(packed(body, coding))).content == [1]
    whole = json.dumps(["x" * 1000] * 1000).encode()
    assert (await asked(packed(gzip.compress(whole)))).content == json.loads(whole)


@pytest.mark.parametrize("status", [200, 500])
async def test_what_unpacks_to_a_hundred_mebibytes_is_not_unpacked(status: int) -> None:
    """The bound counts what was unpacked. Beside an error nobody needs the body: its status is told."""
    lengths: list[int] = []

    async def read(body: bytes, _kind: str, _bounds: Bounds) -> None:
        lengths.append(len(body))

    if status == 200:
        assert await refused(packed(bomb())) == "the answer is larger than 1 MiB"
    else:
        answer = await asked(packed(bomb(), status=status), read=read)
        assert (answer.status, answer.content) == (status, None)
    assert lengths == []


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (plain(b'"' + b"x" * MIB + b'"'), "larger than 1 MiB"),
        (packed(gzip.compress(b"[1]") + b"x" * 2 * MIB), "larger than 1 MiB"),
        (packed(gzip.compress(b"[") + gzip.compress(b"1]")), "is not JSON"),
        (packed(gzip.compress(b"[1]")[:-9]), "cut off"),
        (packed(b"[1]"), "damaged"),
        (packed(b"[1]", "br"), "in another way than gzip"),
        (packed(gzip.compress(gzip.compress(b"[1]")), "gzip, gzip"), "in another way than gzip"),
        (raw(b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"y" * 4000 + b"\r\n") * 9), "larger than 16 KiB"),
        (raw(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n"), "a redirect"),
    ],
)  # fmt: skip
async def test_what_cannot_be_taken_is_said(behaviour: Behaviour, said: str) -> None:
    """In words that do not change from one time to the next."""
    assert said in await refused(behaviour)


async def test_an_error_tells_its_json_if_it_is_short() -> None:
    """Its words name the reason, for some servers."""
    assert (await asked(plain(b'{"error": "x"}', 401))).content == {"error": "x"}
    long = json.dumps({"error": "x" * MAX_ERROR_BYTES}).encode()
    for body in (long, b"<html>", b"[" * 60_000, b""):
        answer = await asked(plain(body, 503))
        assert (answer.status, answer.content) == (503, None)


# ── JSON that others wrote: read in parts, within bounds, and the same as `json.loads` has it ─────────────────────


PART_BOUNDS = Bounds(answer=64 * MIB)
SMALL = Bounds(answer=64 * MIB, member=128)  # windows so small that each sign is cut somewhere


async def turns_of(text: str) -> int:
    """How often something else runs while the text is read."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beside = asyncio.create_task(others())
    await read_json(text.encode(), PART_BOUNDS)
    beside.cancel()
    return turns


@pytest.mark.parametrize(
    "text",
    ["[" + ",".join(["1"] * 20_000) + "]", "{" + ",".join(f'"{n}":1' for n in range(20_000)) + "}"],
    ids=["list", "object"],
)
async def test_others_run_after_each_thousand_members(text: str) -> None:
    """However tiny these are: 20,000 fit into one window."""
    assert len(text) < MAX_PART_CHARACTERS
    assert await turns_of(text) >= 20_000 / MAX_MEMBERS


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "value",
    [
        [], {}, [[]], [{}], "x", 1, True, [1, 2.5e10, -0.125e-3, None, 'a\\"b', "ü\U0001f600", {"a": [1, {"b": "]"}]}],
        {"total": 3, "clients": [{"client_id": "a"}, {"client_id": "b", "x": ["{", "\\"]}], "n": {"m": [1]}},
        {"clients": [], "more": None}, [12345678901234] * 40, [1.5e-7] * 40, ["x" * 40] * 9,
        [[1, 2], {"a": "\\\\"}] * 9,
    ],
)  # fmt: skip
@pytest.mark.parametrize("indent", [None, pytest.param(3, marks=pytest.mark.full)])
async def test_a_document_means_what_it_means_to_json(value: Any, indent: int | None) -> None:
    """Wherever a window ends: within a number, a text, an escape, between members."""
    text = json.dumps(value, indent=indent) + "\n"
    for pad in range(64):
        assert await read_json((" " * pad + text).encode(), SMALL) == value
    assert await read_json(b"\xef\xbb\xbf" + text.encode(), PART_BOUNDS) == value


@pytest.mark.parametrize(
    "text",
    [
        "<html>", "[", "[1", "[1,", "[1,]", "[1 2]", '{"a"}', '{"a":}', '{"a":1,}', "{1:2}", "[] []", '["\\',
        '["' + "x" * 999, "[" * 100_000, '[{"a":' * 50_000, "[" + "1" * 999, '["a' + "\\" * 999, "[" + "-" * 999, "tru",
        '{"a":[1}',
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
@pytest.mark.parametrize("bounds", [SMALL, PART_BOUNDS], ids=["in small windows", "in large ones"])
async def test_what_is_no_json_is_said(text: str, bounds: Bounds) -> None:
    """However deep or long it is."""
    with pytest.raises(ValueError, match=r"^is not JSON$"):
        await read_json(text.encode(), bounds)
    with pytest.raises(ValueError, match="is not JSON"):
        await read_json(b"[\xe4]", bounds)
    with pytest.raises(ValueError, match="is not JSON"):
        await read_json(f'[{{"a":tru}},"{"x" * 500}", {"[]," * MAX_PART_CHARACTERS}1]'.encode(), bounds)


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (json.dumps("x" * MAX_PART_CHARACTERS), "is larger than 256 KiB"),
        (json.dumps({"a": ['"\\' * 9] * (MAX_PART_CHARACTERS // 8)}), "is larger than 256 KiB"),
        ('{"a": "' + '\\"' * MAX_PART_CHARACTERS + '"}', "is larger than 256 KiB"),
        (nested(MAX_NESTING + 1), f"is nested more than {MAX_NESTING} deep"),
        ('{"a":' * 300 + "1" + "}" * 300, f"is nested more than {MAX_NESTING} deep"),
        (nested(100_000), f"is nested more than {MAX_NESTING} deep"),
        ('{"a":' + "9" * 5000 + "}", "has a number that is too long"),
    ],
    ids=["a text", "many values", "escapes", "deep", "deep objects", "deepest", "a number"],
)
async def test_a_member_beyond_a_bound_costs_only_itself(member: str, said: str) -> None:
    """Who may write one client must not take all others out of the list."""
    for text in (f'[{{"client_id":"a"}},{member},"b"]', f'{{"clients":[{{"client_id":"a"}}, {member} ,"b"]}}'):
        found = await read_json(text.encode(), PART_BOUNDS)
        members = found["clients"] if isinstance(found, dict) else found
        assert members == [{"client_id": "a"}, OutOfBounds(said), "b"]
    with pytest.raises(ValueError, match=f"^has a member that {said}$"):
        await read_json(f'{{"clients":[],"more":{{"x":{member}}}}}'.encode(), PART_BOUNDS)


async def test_as_deep_as_a_member_may_be() -> None:
    """Many lists beside one another are not deep."""
    for member in (nested(MAX_NESTING), "[" + "[]," * 1000 + "[]]", json.dumps("[" * 1000)):
        assert await read_json(f"[{member}]".encode(), PART_BOUNDS) == [json.loads(member)]


@pytest.mark.parametrize(
    "part", ["[],", '{"a":1},', '{"client_id":"a","backchannel_logout_uri":"https://a.example/"},', "1,"]
)
async def test_an_answer_has_a_value_for_every_16_bytes_at_most(part: str) -> None:
    """Values take far more memory than their text: `[],` takes 64 bytes."""
    bounds = Bounds(answer=MIB)
    text = "[" + part * (MIB // len(part) - 1) + "[]]"
    if "client_id" not in part:
        with pytest.raises(ValueError, match="has more than 65536 values"):
            await read_json(text.encode(), bounds)
    else:
        assert len(await read_json(text.encode(), bounds)) == text.count("client_id") + 1


async def test_what_is_left_out_has_a_bound_of_its_own() -> None:
    """To find its end takes longer than to read it."""
    with pytest.raises(ValueError, match="of more than 16 MiB in all"):
        await read_json(("[" + f'"{"x" * MIB}",' * 18 + "1]").encode(), PART_BOUNDS)


@pytest.mark.parametrize(
    "text",
    ["[" + '{"client_id":"shop"},' * 50_000 + "1]", "[" + nested(2 * MAX_PART_CHARACTERS) + "]"],
    ids=["a list", "deep"],
)
async def test_the_event_loop_has_its_turn_after_each_part(text: str) -> None:
    """Whoever asks for `/livez` meanwhile is answered."""
    assert await turns_of(text) >= len(text) // MAX_PART_CHARACTERS - 1


# ── Reading what an issuer publishes, from real sockets: bounded in size and time, over https, and without redirects


OPEN_EGRESS = issuer_egress(EgressPolicy(allow_http=True))
SYSTEM = TlsFiles()


async def read(
    uri: str, egress: EgressPolicy = OPEN_EGRESS, tls: TlsFiles = SYSTEM, within: float = 20.0
) -> IssuerDocument | DocumentIssue:
    reader = DocumentReader()
    try:
        return await reader.read(uri, egress=egress, tls=tls, within=within)
    finally:
        await reader.close()


def ok(body: bytes) -> Behaviour:
    head = b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: %d\r\n\r\n" % len(body)
    return raw(head + body)


def refusal(found: IssuerDocument | DocumentIssue) -> str:
    assert isinstance(found, DocumentIssue)
    return found.text


async def test_the_document_and_the_servers_clock() -> None:
    """The `Date` header is what the doctor compares clocks by."""
    async with scripted(ok(b'{"keys": []}')) as issuer:
        assert await read(issuer.url) == IssuerDocument(content={"keys": []}, date=784111777.0)


async def test_a_large_document_is_read_whole() -> None:
    """A hundred RSA keys with their certificates are 300 KiB."""
    keys = ["x" * 1000] * 500
    async with scripted(ok(json.dumps(keys).encode())) as issuer:
        found = await read(issuer.url)
    assert isinstance(found, IssuerDocument)
    assert found.content == keys


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (raw(b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n"), "answered 503"),
        (ok(b"<html>"), "not JSON"),
        (ok(json.dumps("x" * MAX_BODY_BYTES).encode()), "larger than"),
        (raw(b"nonsense\r\n\r\n"), ""),
    ],
)
async def test_what_is_no_document_is_said(behaviour: Behaviour, words: str) -> None:
    """Each in words, and none of them as an empty set."""
    async with scripted(behaviour) as issuer:
        found = await read(issuer.url)
    assert words in refusal(found)


async def test_one_that_never_answers_is_given_up() -> None:
    """At the deadline."""
    async with scripted(hang()) as issuer:
        assert "within 0.2 s" in refusal(await read(issuer.url, within=0.2))


async def test_private_addresses_are_allowed_and_clear_text_and_metadata_are_not() -> None:
    """The operator wrote the address; https is asked for unless allowed otherwise, and no metadata service is read."""
    closed = issuer_egress(EgressPolicy())
    assert "egress.allow_http" in refusal(await read("http://127.0.0.1:9/jwks", closed))
    assert "metadata" in refusal(await read("https://169.254.169.254/jwks", closed))
    assert "egress.deny" in refusal(
        await read("https://127.0.0.1:9/jwks", issuer_egress(EgressPolicy(deny=(ip_network("127.0.0.0/8"),))))
    )


async def test_an_authority_of_the_issuers_own(tmp_path: Path) -> None:
    """`issuers.<iss>.tls`: trusted where it is named, refused where it is not."""
    ca = authority(tmp_path)
    async with scripted(ok(b"{}"), tls=ca.server(), host="localhost") as issuer:
        assert isinstance(await read(issuer.url, tls=TlsFiles(ca_file=ca.ca_file)), IssuerDocument)
        refused = await read(issuer.url)
    assert "certificate" in refusal(refused)


def test_the_metadata_is_below_the_issuer() -> None:
    """Discovery 1.0 §4.1: with and without a slash at the end, tenants' paths kept."""
    assert metadata_uri("https://id.example/t/1/") == "https://id.example/t/1/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("headers", "fresh_seconds"),
    [
        (b"", None),
        (b"Cache-Control: public, max-age=600\r\n", 600.0),
        (b"cache-control: Max-Age=600\r\nAge: 100\r\n", 500.0),
        (b"Cache-Control: max-age=600\r\nAge: 1000\r\n", 0.0),
        (b"Cache-Control: public\r\nCache-Control: max-age=60\r\n", 60.0),
        (b"Cache-Control: s-maxage=5\r\n", None),
        (b"Cache-Control: max-age=600, no-cache\r\n", 0.0),
        (b"Cache-Control: no-store\r\n", 0.0),
        (b"Cache-Control: max-age=-1\r\nAge: x\r\n", None),
    ],
)
async def test_how_long_a_document_may_be_kept(headers: bytes, fresh_seconds: float | None) -> None:
    """As its Cache-Control says to a cache that is not shared (RFC 9111 §5.2.2)."""
    answer = raw(b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\n{}" % headers)
    async with scripted(answer) as client:
        found = await read(client.url)
    assert isinstance(found, IssuerDocument)
    assert found.fresh_seconds == fresh_seconds


async def test_a_document_behind_a_proxy() -> None:
    """The proxy looks the name up, and may be where no client may."""
    reader = DocumentReader()
    policy = EgressPolicy(allow_http=True)
    try:
        async with scripted(ok(b"{}")) as proxy:
            uri = "http://keys.example/jwks"
            found = await reader.read(uri, egress=policy, tls=SYSTEM, within=20.0, proxy=proxy.origin)
            assert isinstance(found, IssuerDocument)
            assert [request.target for request in proxy.requests] == [uri]
            denied = await reader.read(uri, egress=EgressPolicy(), tls=SYSTEM, within=20.0, proxy=proxy.origin)
            assert "http" in refusal(denied)
    finally:
        await reader.close()
