"""What goes wrong between notifier and the servers that it reads clients from. Each is one fault with a clear text."""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from notifier.adapters.registries.readers import ClientsReader
from notifier.domain.client_rows import SourceFault
from tests.adapters.registries.list_server import Handler, page, reader, serving
from tests.certificates import authority

SECRET = "hunter2"
_NO_CONTENT: Mapping[str, Any] = {"hydra": [], "http": []}


def _reader(kind: str, url: str, folder: Path, **outer: Any) -> ClientsReader:
    (folder / "secret").write_text(SECRET + "\n")
    header = {"Authorization": {"file": "secret"}}
    settings: Mapping[str, Mapping[str, Any]] = {
        "hydra": {"admin_url": url, "headers": header},
        "http": {"url": f"{url}/clients?key={SECRET}", "headers": header},
    }
    return reader(kind, folder, **settings[kind], **outer)


async def _redirect(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("https://elsewhere.example.com/")


async def _hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def _half(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'[{"client_id": "a"}, {"client_id":')
    assert request.transport is not None
    request.transport.close()
    return response


def _status(status: int, **headers: str) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="no", headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


def _body(body: bytes) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    return answer


FAULTS: Mapping[str, tuple[Handler, str]] = {
    "401": (_status(401), r"answered 401: .*`?headers`?"),
    "403": (_status(403), r"answered 403: .*`headers`"),
    "404": (_status(404), r"answered 404: .*`(admin_)?url`"),
    "429 for an hour": (_status(429, Retry_After="3600"), "answered 429, and asks to wait for 3600 s: .*`every`"),
    "500": (_status(500), "answered 500: its own fault"),
    "503": (_status(503), "answered 503: its own fault"),
    "418": (_status(418), "answered 418: is this the right address"),
    "a redirect": (_redirect, "a redirect, which is not followed"),
    "it hangs": (_hang, "not read within 0.3 s"),
    "half an answer": (_half, "the connection broke"),
    "a page of HTML": (_body(b"<html>"), "the answer is not JSON"),
    "cut JSON": (_body(b'[{"client_id":'), "the answer is not JSON"),
    "not UTF-8": (_body(b'["\xe4"]'), "the answer is not JSON"),
    "deep JSON": (_body(b"[" * 100_000), "the answer is not JSON"),
    "an object": (_body(b'{"error": "hunter2"}'), "not a list"),
    "a text": (_body(b'"hunter2"'), "not a list"),
    "nothing": (_body(b""), "not a list|is empty"),
}


@pytest.mark.parametrize("kind", _NO_CONTENT)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_says_what_to_do_and_no_secret(kind: str, fault: str, tmp_path: Path) -> None:
    """It comes within the source's `timeout`."""
    handler, text = FAULTS[fault]
    timeout = "300ms" if fault == "it hangs" else "5s"
    async with serving(handler) as url:
        with pytest.raises(SourceFault) as caught:
            await _reader(kind, url, tmp_path, timeout=timeout).read(None)
    assert re.search(text, str(caught.value))
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", _NO_CONTENT)
async def test_a_server_that_asks_to_wait_is_asked_again(kind: str, tmp_path: Path) -> None:
    """429 with `Retry-After`, then a list."""
    asked: list[str] = []

    async def later(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers["Authorization"])
        return page(_NO_CONTENT[kind]) if len(asked) == 3 else web.Response(status=429, headers={"Retry-After": "0"})

    async with serving(later) as url:
        assert (await _reader(kind, url, tmp_path).read(None)).rows == ()
    assert asked == [SECRET] * 3


@pytest.mark.parametrize("kind", _NO_CONTENT)
async def test_a_certificate_of_nobody_and_a_closed_port(kind: str, tmp_path: Path) -> None:
    """Neither is a bare exception."""
    async with serving(_status(200), authority(tmp_path).server()) as url:
        with pytest.raises(SourceFault, match=r"certificate: .*issuer"):
            await _reader(kind, url, tmp_path).read(None)
    with pytest.raises(SourceFault, match=f"{url}/[a-z/0-9]*: Conn"):
        await _reader(kind, url, tmp_path).read(None)
