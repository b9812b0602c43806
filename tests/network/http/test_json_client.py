"""Test documents over HTTP: streamed JSON, JSON clients, and documents of issuers."""

import asyncio
import gc
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from notifier import RELEASE
from notifier.model.client import EgressPolicy, TlsFiles
from notifier.model.defaults import MAX_LIST_ROWS
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument, issuer_egress, metadata_uri
from notifier.network.http.issuer_documents import MAX_BODY_BYTES, DocumentReader
from notifier.network.http.json_client import MAX_ERROR_BYTES, JsonAnswer, JsonClient, NoAnswer
from notifier.network.http.json_parts import (
    MAX_MEMBERS,
    MAX_NESTING,
    MAX_PART_BYTES,
    MAX_PART_VALUES,
    Bounds,
    OutOfBounds,
    read_json,
)
from tests.support.behaviours import Behaviour, hang, raw
from tests.support.certificates import authority
from tests.support.receivers import scripted

# ── Answers of servers are bounded before they are processed: head, body, unpacked size, JSON ────────────────────────


MIB = 1024 * 1024
BOUNDS = Bounds(answer=MIB)


@cache
def bomb() -> bytes:
    """Return 100 MiB of compressed JSON."""
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
    async with scripted(behaviour) as server, client(bounds, **further) as http:
        return await http.ask("GET", server.url)


async def refused(behaviour: Behaviour, bounds: Bounds = BOUNDS) -> str:
    with pytest.raises(NoAnswer) as caught:
        await asked(behaviour, bounds)
    return str(caught.value)


async def test_compression_is_not_requested() -> None:
    """A compliant server then sends an uncompressed body. It does not learn the commit of this build."""
    async with scripted(plain(b"[]")) as server, client() as http:
        assert (await http.ask("GET", server.url)).content == []
    assert server.requests[0].header("Accept-Encoding") == ["identity"]
    assert server.requests[0].header("User-Agent") == [f"notifier/{RELEASE}"]


@pytest.mark.parametrize(
    ("coding", "body"),
    [("gzip", gzip.compress(b"[1]")), ("X-GZIP", gzip.compress(b"[1]")), ("deflate", zlib.compress(b"[1]"))],
    ids=["gzip", "its other name", "deflate"],
)
async def test_compressed_answer_is_unpacked(coding: str, body: bytes) -> None:
    """Some proxies compress every answer."""
    assert (await asked(packed(body, coding))).content == [1]
    whole = json.dumps(["x" * 1000] * 1000).encode()
    assert (await asked(packed(gzip.compress(whole)))).content == json.loads(whole)


@pytest.mark.parametrize("status", [200, 500])
async def test_decompression_bomb_is_refused(status: int) -> None:
    """The limit counts unpacked bytes. For an error status the body is not needed, and the status is reported."""
    lengths: list[int] = []

    async def read(body: bytearray, _kind: str, _bounds: Bounds) -> None:
        lengths.append(len(body))

    if status == 200:
        assert await refused(packed(bomb())) == "the answer is larger than 1 MiB"
    else:
        answer = await asked(packed(bomb(), status=status), read=read)
        assert (answer.status, answer.content) == (status, None)
    assert lengths == []


@pytest.mark.parametrize(
    ("behaviour", "text"),
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
async def test_refused_answer_has_a_text(behaviour: Behaviour, text: str) -> None:
    """In a constant text."""
    assert text in await refused(behaviour)


async def test_error_includes_its_short_json() -> None:
    """For some servers the body has the reason."""
    assert (await asked(plain(b'{"error": "x"}', 401))).content == {"error": "x"}
    long = json.dumps({"error": "x" * MAX_ERROR_BYTES}).encode()
    for body in (long, b"<html>", b"[" * 60_000, b""):
        answer = await asked(plain(body, 503))
        assert (answer.status, answer.content) == (503, None)


# ── Foreign JSON: read in parts, within bounds, with the result of `json.loads` ──────────────────────────────────────


PART_BOUNDS = Bounds(answer=64 * MIB)
SMALL = Bounds(answer=64 * MIB, member=128)  # windows so small that each sign is cut somewhere


async def turns_of(text: str) -> int:
    """Count how often another task runs while the text is read."""
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
async def test_other_tasks_run_after_each_thousand_members(text: str) -> None:
    """Even for tiny members: 20,000 fit into one window."""
    assert len(text) < MAX_PART_BYTES
    assert await turns_of(text) >= 20_000 / MAX_MEMBERS


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "value",
    [
        [], {}, [[]], [{}], "x", 1, True, [1, 2.5e10, -0.125e-3, None, 'a\\"b', "ü\U0001f600", {"a": [1, {"b": "]"}]}],
        {"total": 3, "clients": [{"client_id": "a"}, {"client_id": "b", "x": ["{", "\\"]}], "n": {"m": [1]}},
        {"clients": [], "more": None}, [12345678901234] * 40, [1.5e-7] * 40, ["x" * 40] * 9,
        [[1, 2], {"a": "\\\\"}] * 9, ["\u00fc\U0001f600\u20ac" * 4, {"\u20ac": [1]}] * 9,
    ],
)  # fmt: skip
@pytest.mark.parametrize("indent", [None, pytest.param(3, marks=pytest.mark.full)])
async def test_streamed_document_equals_json_loads(value: Any, indent: int | None) -> None:
    """Wherever a window ends: within a number, a text, an escape, between members."""
    for is_ascii in (True, False):
        text = json.dumps(value, indent=indent, ensure_ascii=is_ascii) + "\n"
        for pad in range(64):
            assert await read_json((" " * pad + text).encode(), SMALL) == value
        assert await read_json(b"\xef\xbb\xbf" + text.encode(), PART_BOUNDS) == value


async def test_a_list_takes_no_memory_beside_its_values() -> None:
    """The body is not decoded as a whole, which takes four bytes for each character, and equal names share a string."""
    rows = json.dumps([{"client_id": f"c{nth}", "client_name": "x" * 400} for nth in range(10_000)], ensure_ascii=False)
    body = bytearray(rows.replace("c9999", "\U0001f600").encode())
    tracemalloc.start()
    try:
        values = await read_json(body, Bounds(answer=64 * MIB))
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert values[-1]["client_id"] == "\U0001f600"
    assert peak - kept < 6 * MAX_PART_BYTES  # a window of text, of up to four bytes a character, and its parts
    assert len({id(name) for row in values for name in row}) == 2


async def test_a_body_is_freed_without_the_garbage_collector() -> None:
    """It pauses while a list is read, and then never examines the objects made meanwhile: each body would stay."""
    gc.collect()
    gc.disable()
    try:
        await read_json(b'{"clients": [{"client_id": "a"}]}', PART_BOUNDS)
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("bounds", [SMALL, PART_BOUNDS], ids=["in small windows", "in large ones"])
async def test_invalid_json_is_reported(bounds: Bounds) -> None:
    """For any depth and length."""
    for text in (
        "<html>", "[", "[1", "[1,", "[1,]", "[1 2]", '{"a"}', '{"a":}', '{"a":1,}', "{1:2}", "[] []", '["\\',
        '["' + "x" * 999, "[" * 100_000, '[{"a":' * 50_000, "[" + "1" * 999, '["a' + "\\" * 999, "[" + "-" * 999, "tru",
        '{"a":[1}',
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"^is not JSON$"):
            await read_json(text.encode(), bounds)
    with pytest.raises(ValueError, match="is not JSON"):
        await read_json(b"[\xe4]", bounds)
    with pytest.raises(ValueError, match="is not JSON"):
        await read_json(f'[{{"a":tru}},"{"x" * 500}", {"[]," * MAX_PART_BYTES}1]'.encode(), bounds)


@pytest.mark.parametrize(
    ("member", "fault"),
    [
        (json.dumps("x" * MAX_PART_BYTES), "is larger than 256 KiB"),
        (json.dumps({"a": ['"\\' * 9] * (MAX_PART_BYTES // 8)}), "is larger than 256 KiB"),
        ('{"a": "' + '\\"' * MAX_PART_BYTES + '"}', "is larger than 256 KiB"),
        (nested(MAX_NESTING + 1), f"is nested more than {MAX_NESTING} deep"),
        ('{"a":' * 300 + "1" + "}" * 300, f"is nested more than {MAX_NESTING} deep"),
        (nested(100_000), f"is nested more than {MAX_NESTING} deep"),
        ('{"a":' + "9" * 5000 + "}", "has a number that is too long"),
        ("[" + "[]," * MAX_PART_VALUES + "1]", "has more than 10,000 values"),
        ("[" + '{"a":null},' * MAX_PART_VALUES + "1]", "has more than 10,000 values"),
    ],
    ids=["a text", "many values", "escapes", "deep", "deep objects", "deepest", "a number", "lists", "objects"],
)
async def test_oversized_member_is_omitted_alone(member: str, fault: str) -> None:
    """One oversized client must not remove all others from the list."""
    for text in (f'[{{"client_id":"a"}},{member},"b"]', f'{{"clients":[{{"client_id":"a"}}, {member} ,"b"]}}'):
        found = await read_json(text.encode(), PART_BOUNDS)
        members = found["clients"] if isinstance(found, dict) else found
        assert members == [{"client_id": "a"}, OutOfBounds(fault), "b"]
    with pytest.raises(ValueError, match=f"^has a member that {fault}$"):
        await read_json(f'{{"clients":[],"more":{{"x":{member}}}}}'.encode(), PART_BOUNDS)


async def test_depth_limit_of_a_member() -> None:
    """Sibling lists do not add to the depth."""
    for member in (nested(MAX_NESTING), "[" + "[]," * (MAX_PART_VALUES // 2 - 2) + "[]]", json.dumps("[" * 1000)):
        assert await read_json(f"[{member}]".encode(), PART_BOUNDS) == [json.loads(member)]


async def test_a_list_is_read_up_to_its_bound() -> None:
    """What follows is not read: it would only be refused later, after the memory is spent."""
    text = "[" + "1," * (MAX_LIST_ROWS + 1) + "no JSON"
    with pytest.raises(ValueError, match="has a list of more than 200,000 members"):
        await read_json(text.encode(), Bounds(answer=16 * MIB))


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


async def test_omitted_member_has_a_size_limit() -> None:
    """Skipping such a member takes longer than reading it."""
    with pytest.raises(ValueError, match="of more than 16 MiB in all"):
        await read_json(("[" + f'"{"x" * MIB}",' * 18 + "1]").encode(), PART_BOUNDS)


@pytest.mark.parametrize(
    "text",
    ["[" + '{"client_id":"shop"},' * 50_000 + "1]", "[" + nested(2 * MAX_PART_BYTES) + "]"],
    ids=["a list", "deep"],
)
async def test_event_loop_runs_after_each_part(text: str) -> None:
    """A concurrent `/livez` request is answered."""
    assert await turns_of(text) >= len(text) // MAX_PART_BYTES - 1


@pytest.mark.parametrize(
    "member",
    ["[" + part * 20_000 + "1]" for part in ("[],", '{"":{}},', '"",', '"\\u0000",')]
    + [nested(100_000), "[" + f"{nested(MAX_NESTING - 2)}," * 1000 + "1]", '"' + "\\n" * 100_000 + '"'],
)
async def test_other_tasks_run_after_each_ten_thousand_values(member: str) -> None:
    """Whatever is in one member: what is not read is skipped sign by sign."""
    assert len(member) < MAX_PART_BYTES
    assert await turns_of(f"[{member}]") >= (member.count("[") + member.count("{")) // MAX_PART_VALUES


# ── Documents of an issuer, from real sockets: bounded in size and time, over https, without redirects ───────────────


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
    """The doctor compares clocks by the `Date` header."""
    async with scripted(ok(b'{"keys": []}')) as issuer:
        assert await read(issuer.url) == IssuerDocument(content={"keys": []}, date=784111777.0)


async def test_large_document_is_read_completely() -> None:
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
async def test_invalid_document_is_reported(behaviour: Behaviour, words: str) -> None:
    """Each has a text, and none is read as an empty set."""
    async with scripted(behaviour) as issuer:
        found = await read(issuer.url)
    assert words in refusal(found)


async def test_unanswered_request_ends_at_the_deadline() -> None:
    """At the deadline."""
    async with scripted(hang()) as issuer:
        assert "within 0.2 s" in refusal(await read(issuer.url, within=0.2))


async def test_private_addresses_are_allowed_but_not_http_or_metadata_services() -> None:
    """The operator wrote the address; https is required unless allowed otherwise, and metadata services are refused."""
    closed = issuer_egress(EgressPolicy())
    assert "egress.allow_http" in refusal(await read("http://127.0.0.1:9/jwks", closed))
    assert "metadata" in refusal(await read("https://169.254.169.254/jwks", closed))
    assert "egress.deny" in refusal(
        await read("https://127.0.0.1:9/jwks", issuer_egress(EgressPolicy(deny=(ip_network("127.0.0.0/8"),))))
    )


async def test_authority_of_one_issuer(tmp_path: Path) -> None:
    """`issuers.<iss>.tls`: trusted for that issuer, refused for others."""
    ca = authority(tmp_path)
    async with scripted(ok(b"{}"), tls=ca.server(), host="localhost") as issuer:
        assert isinstance(await read(issuer.url, tls=TlsFiles(ca_file=ca.ca_file)), IssuerDocument)
        refused = await read(issuer.url)
    assert "certificate" in refusal(refused)


def test_the_metadata_is_below_the_issuer() -> None:
    """Discovery 1.0 §4.1: with and without a trailing slash, and below the paths of tenants."""
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
async def test_cache_lifetime_of_a_document(headers: bytes, fresh_seconds: float | None) -> None:
    """By its Cache-Control for a private cache (RFC 9111 §5.2.2)."""
    answer = raw(b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\n{}" % headers)
    async with scripted(answer) as client:
        found = await read(client.url)
    assert isinstance(found, IssuerDocument)
    assert found.fresh_seconds == fresh_seconds


async def test_a_document_behind_a_proxy() -> None:
    """The proxy resolves the name, and may be at an address that is forbidden to clients."""
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
