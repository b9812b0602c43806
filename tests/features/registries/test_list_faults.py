"""Faults between notifier and the servers that it reads clients from. Each has a clear text."""

import asyncio
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from notifier.configuration.clients.client_rows import ClientsReader
from notifier.model.errors import SourceFault
from tests.features.registries.list_server import Handler, page, reader, serving
from tests.support.certificates import authority

SECRET = "hunter2"
_SOON = {"Retry-After": "0"}
_CLIENT = {"client_id": "shop"}
_PAGINATION = {"pagination": {"next": 0, "count": 1}}
GOOD: Mapping[str, Mapping[str, Any]] = {
    "hydra": {"/admin/clients": [_CLIENT]},
    "http": {"/clients": [_CLIENT]},
    "authentik": {"/api/v3/providers/oauth2/": {**_PAGINATION, "results": [_CLIENT]}},
    "auth0": {"/api/v2/clients": {"total": 1, "clients": [_CLIENT]}},
    "wso2": {
        "/api/server/v1/applications": {"applications": [{"id": "6f"}]},
        "/api/server/v1/applications/6f/inbound-protocols/oidc": {"clientId": "shop"},
    },
}
ADVICE: Mapping[str, tuple[str, str, str]] = {
    "hydra": ("wants credentials; set `headers`", "check `headers`", "`admin_url` must lead to its admin port"),
    "http": ("wants credentials; set `headers`", "check `headers`", "check `url`"),
    "authentik": ("token_file is wrong or has run out", "lacks the permission `Can view OAuth2", "check `url`"),
    "auth0": ("`url` must not be a custom domain", "with the scope read:clients", "check the setting `url`"),
    "wso2": ("the credentials in headers are wrong", "internal_application_mgt_view", "`url` must be its address"),
}


def _reader(kind: str, url: str, folder: Path, **outer: Any) -> ClientsReader:
    (folder / "secret").write_text(SECRET + "\n")
    header = {"Authorization": {"file": "secret"}}
    settings: Mapping[str, Mapping[str, Any]] = {
        "hydra": {"admin_url": url, "headers": header},
        "http": {"url": f"{url}/clients?key={SECRET}", "headers": header},
        "authentik": {"url": url, "token_file": "secret"},
        "auth0": {"url": url, "client_id": "notifier", "client_secret_file": "secret"},
        "wso2": {"url": url, "headers": header},
    }
    return reader(kind, folder, **settings[kind], **outer)


def _after_the_token(handler: Handler) -> Handler:
    """Return the handler, with a token in answer to Auth0's token request."""

    async def answer(request: web.Request) -> web.StreamResponse:
        given = page({"access_token": SECRET, "expires_in": 86400, "scope": "read:clients"})
        return given if request.path == "/oauth/token" else await handler(request)

    return answer


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
    "429 for an hour": (_status(429, Retry_After="3600"), "answered 429, and asks to wait for 3600 s: "),
    "500": (_status(500), "answered 500: its own fault"),
    "503": (_status(503), "answered 503: its own fault"),
    "418": (_status(418), "answered 418: is this the right address"),
    "a redirect": (_redirect, "a redirect, which is not followed"),
    "it hangs": (_hang, "not read within 0.3 s"),
    "half an answer": (_half, "the connection broke"),
    "a page of HTML": (_body(b"<html>"), "the answer is not JSON"),
    "cut JSON": (_body(b'[{"client_id":'), "the answer is not JSON"),
    "an object": (_body(b'{"error": "hunter2"}'), "not a list"),
    "a text": (_body(b'"hunter2"'), "not a list"),
    "nothing": (_body(b""), "not a list|is empty"),
}


@pytest.mark.parametrize(
    ("kind", "fault"), [(kind, fault) for kind in GOOD for fault in FAULTS if kind == "http" or fault == "an object"]
)
async def test_a_fault_has_a_remedy_and_no_secret(kind: str, fault: str, tmp_path: Path) -> None:
    """It comes within the source's `timeout`."""
    handler, text = FAULTS[fault]
    timeout = "300ms" if fault == "it hangs" else "30s"
    async with serving(_after_the_token(handler)) as url:
        text_of_fault = await _fault_text(_reader(kind, url, tmp_path, timeout=timeout))
    assert re.search(text, text_of_fault)


@pytest.mark.parametrize("kind", [kind for kind in GOOD if kind != "wso2"])
async def test_an_oversized_client_is_left_out_alone(kind: str, tmp_path: Path) -> None:
    """It is left out, and named by its position in the list."""
    [(path, good)] = GOOD[kind].items()
    name = next((name for name in ("results", "clients") if name in good), "")
    rows = [{"client_id": "big", "client_name": "x" * 300_000}, *(good[name] if name else good)]
    whole = {**good, name: rows, "total": 2, "pagination": {"next": 0, "count": 2}} if name else rows

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.path == path
        return page(whole)

    async with serving(_after_the_token(answer)) as url:
        found = await _reader(kind, url, tmp_path).read(None)
    assert [row["client_id"] for row in found.rows] == ["shop"]
    assert [str(fault) for fault in found.faults] == ["[0]: is larger than 256 KiB"]


@pytest.mark.parametrize("kind", ["hydra", "http", "authentik"])
async def test_pages_without_a_new_client_end_the_reading(kind: str, tmp_path: Path) -> None:
    """Each names another page. The reading ends after 20 of them in a row, and does not start again."""
    asked = 0

    async def endless(_: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        rows = [_CLIENT, {"no": "id"}]
        whole = {"pagination": {"next": asked + 1, "count": 1}, "results": rows} if kind == "authentik" else rows
        return page(whole, Link=f"<?page_token=t{asked}>; rel=next")

    async with serving(endless) as url:
        assert "20 pages in a row have no new client" in await _fault_text(_reader(kind, url, tmp_path))
    assert asked <= 23


@pytest.mark.parametrize("kind", ADVICE)
@pytest.mark.parametrize("status", [401, 403, 404])
async def test_credentials_and_permissions_are_named(kind: str, status: int, tmp_path: Path) -> None:
    """The fault names the setting or the permission."""
    async with serving(_after_the_token(_status(status))) as url:
        text_of_fault = await _fault_text(_reader(kind, url, tmp_path))
    assert f"answered {status}: " in text_of_fault
    assert ADVICE[kind][(401, 403, 404).index(status)] in text_of_fault


@pytest.mark.parametrize("kind", GOOD)
async def test_retry_after_is_followed(kind: str, tmp_path: Path) -> None:
    """429 with `Retry-After`, then what is right."""
    asked: list[str] = []

    async def later(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return page(GOOD[kind][request.path]) if len(asked) > 2 else web.Response(status=429, headers=_SOON)

    async with serving(_after_the_token(later)) as url:
        answer = await _reader(kind, url, tmp_path).read(None)
    assert [row["client_id"] for row in answer.rows] == ["shop"]
    assert asked[:3] == [asked[0]] * 3


@pytest.mark.parametrize("kind", GOOD)
async def test_an_unknown_authority_and_a_closed_port_are_faults(kind: str, tmp_path: Path) -> None:
    """Neither is a bare exception."""
    async with serving(_status(200), authority(tmp_path, "Nobody").server()) as url:
        assert re.search("certificate: .*issuer", await _fault_text(_reader(kind, url, tmp_path)))
    with socket.socket() as closed:  # bound, so that it is nobody else's, and not listening
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        text_of_fault = await _fault_text(_reader(kind, url, tmp_path))
    assert f"{url}/" in text_of_fault
    assert "Conn" in text_of_fault


async def _fault_text(source: ClientsReader) -> str:
    with pytest.raises(SourceFault) as caught:
        await source.read(None)
    text_of_fault = str(caught.value)
    assert SECRET not in text_of_fault
    assert "\n" not in text_of_fault
    return text_of_fault
