"""Whatever a server answers is bounded before anything is made of it: head, body, what unpacks from it, its JSON."""

import gzip
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import pytest

from notifier.model.client import TlsFiles
from notifier.network.http.json_client import ERROR_LIMIT, JsonAnswer, JsonClient, NoAnswer
from notifier.network.http.json_parts import Bounds
from tests.support.behaviours import Behaviour, raw
from tests.support.receivers import scripted

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


@pytest.mark.parametrize("status", [200, 400, 500])
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
    long = json.dumps({"error": "x" * ERROR_LIMIT}).encode()
    for body in (long, b"<html>", b"[" * 60_000, b""):
        answer = await asked(plain(body, 503))
        assert (answer.status, answer.content) == (503, None)
