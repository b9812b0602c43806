"""Test which hosts and bodies a listener accepts."""

import ast
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from notifier.model.message import Lane
from notifier.model.printable import json_text
from notifier.model.session_ended import SessionEnded
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.listener import Listener
from notifier.network.listeners.openapi import PATH, OperationDescription
from notifier.network.listeners.operation import routes_of
from notifier.network.listeners.problem import read_json_object
from notifier.operators.status.status_routes import StatusRoutes
from notifier.publishing.event_requests import EventRequests, build_api_app
from notifier.settings.api_tokens import ApiToken
from tests.publishing.serving import accept, look, serving, sources_of, token

# ── Without a tokens file the API is only for this machine: no web page reads or changes anything ────────────────────


STATUS = "GET /v1/status"


async def nobody_publishes(event: SessionEnded, lane: Lane) -> None:
    raise AssertionError("nobody may publish here")


@asynccontextmanager
async def listening(*tokens: ApiToken) -> AsyncIterator[Listener]:
    sources = sources_of(lambda: tokens or None)
    routes = routes_of(StatusRoutes(look, lambda: 0.0), Authorization(sources.tokens))
    async with serving(build_api_app(EventRequests(nobody_publishes, sources), routes)) as listener:
        yield listener


async def ask(listener: Listener, line: str, *headers: str) -> tuple[int, str]:
    """Return status and body; the headers are sent as given, so that there may be none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    try:
        writer.write("\r\n".join((line, *headers, "Connection: close", "", "")).encode())
        async with asyncio.timeout(30):
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        return int(head.split(" ")[1]), body
    finally:
        writer.close()


@pytest.fixture
async def api() -> AsyncIterator[Listener]:
    """An API without tokens."""
    async with listening() as listener:
        yield listener


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:8080", "LocalHost:1", "localhost.", "localhost.:8080", "api.localhost",
        "a.b.LOCALHOST.",
        "127.0.0.1", "127.0.0.1:8080", "127.1.2.3:9", "127.255.255.254", "127.0.0.1.", "[::1]", "[::1]:8080",
        "[0:0:0:0:0:0:0:1]:80",
    ],
)  # fmt: skip
async def test_loopback_names_are_accepted(api: Listener, host: str) -> None:
    """By every name that always means loopback, with any port, in either case."""
    assert (await ask(api, f"{STATUS} HTTP/1.1", f"Host: {host}"))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost",
        ".localhost",
        "..localhost", "localhost..", "a@localhost", "evil.example@localhost", "evil.example/.localhost", "localhost:x",
        "localhost:80:80", "127.0.0.1:", "127.1", "2130706433", "0x7f.1", "127.0.0.256", "0.0.0.0", "10.0.0.1",
        "192.168.1.1",
        "[::]", "[::2]:80", "[::ffff:10.0.0.1]", "::1", "[::1", "[127.0.0.1]", "[::1%25lo]", "localhost%2e", "",
    ],
)  # fmt: skip
async def test_any_other_name_is_refused(api: Listener, host: str) -> None:
    """A page whose own name resolves to loopback gets nothing."""
    assert (await ask(api, f"{STATUS} HTTP/1.1", f"Host: {host}"))[0] == 421


@pytest.mark.parametrize("line", [STATUS, f"GET {PATH}", "POST /v1/events", "PUT /v1/log-level", "GET /nowhere"])
async def test_every_route_refuses_a_foreign_host(api: Listener, line: str) -> None:
    """Neither reads nor unknown routes. The error names the remedy."""
    status, body = await ask(api, f"{line} HTTP/1.1", "Host: evil.example", "Content-Type: application/json")
    assert status == 421
    assert "api.tokens_file" in body
    assert "localhost" in body


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_missing_host_is_refused(api: Listener, version: str) -> None:
    """HTTP/1.0 needs no Host, so the sender is unknown."""
    assert (await ask(api, f"{STATUS} HTTP/{version}"))[0] in {400, 421}
    assert (await ask(api, f"{STATUS} HTTP/1.0", "Host: 127.0.0.1"))[0] == 200


@pytest.mark.parametrize("hosts", [("localhost", "evil.example"), ("evil.example", "localhost")])
async def test_two_hosts_are_refused(api: Listener, hosts: tuple[str, str]) -> None:
    """In either order."""
    assert (await ask(api, f"{STATUS} HTTP/1.1", *(f"Host: {host}" for host in hosts)))[0] in {400, 421}


async def test_host_in_the_request_line_is_checked(api: Listener) -> None:
    """RFC 9112 §3.2.2: it precedes Host. Clients of a proxy write it, and servers must accept it."""
    for host in ("evil.example", "localhost@evil.example", "evil.example#@localhost", "", "localhost\\.evil.example"):
        line = f"GET http://{host}/v1/status HTTP/1.1"
        assert (await ask(api, line, "Host: localhost"))[0] in {400, 421}
    for host in ("localhost", "127.0.0.1:8080", "[::1]"):
        for scheme in ("http", "HTTPS"):
            line = f"GET {scheme}://{host}/v1/status HTTP/1.1"
            assert (await ask(api, line, "Host: evil.example"))[0] == 200
    for target in ("*", "localhost:80", "ftp://localhost/v1/status"):
        assert (await ask(api, f"GET {target} HTTP/1.1", "Host: localhost"))[0] in {400, 404, 421}


@pytest.mark.parametrize("line", [STATUS, f"GET {PATH}", "POST /v1/events", "GET /nowhere"])
async def test_a_web_page_is_refused_by_its_origin(api: Listener, line: str) -> None:
    """A page of this machine, or of a name like `x.localhost`, sends Origin on cross-origin requests."""
    status, body = await ask(api, f"{line} HTTP/1.1", "Host: localhost", "Origin: http://localhost:3000")
    assert status == 403
    assert "web page" in body


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_web_page_is_refused_where_it_names_no_origin(api: Listener, site: str) -> None:
    """An image, a GET form, a link: the page cannot read the answer, but would start a pass over the queue."""
    assert (await ask(api, f"{STATUS} HTTP/1.1", "Host: localhost", f"Sec-Fetch-Site: {site}"))[0] == 403
    for ours in ("same-origin", "none"):
        assert (await ask(api, f"{STATUS} HTTP/1.1", "Host: localhost", f"Sec-Fetch-Site: {ours}"))[0] == 200


async def test_with_tokens_any_host_is_accepted() -> None:
    """The token identifies the caller; a page has none."""
    async with listening(token("reader", "read")) as listener:
        bearer = "Authorization: Bearer reader-secret"
        assert (await ask(listener, f"{STATUS} HTTP/1.1", "Host: notifier.example.com", bearer))[0] == 200
        assert (await ask(listener, f"{STATUS} HTTP/1.1", "Host: localhost"))[0] == 401
        assert (await ask(listener, f"GET {PATH} HTTP/1.1", "Host: notifier.example.com"))[0] == 200


async def test_two_tokens_are_refused() -> None:
    """A proxy may check one of them, and the listener the other."""
    async with listening(token("reader", "read")) as listener:
        bearer = "Authorization: Bearer reader-secret"
        for lines in ((bearer, "Authorization: Bearer x"), ("Authorization: Bearer x", bearer), (bearer, bearer)):
            assert (await ask(listener, f"{STATUS} HTTP/1.1", "Host: localhost", *lines))[0] == 401


# ── Bodies of requests are JSON in UTF-8: no sender chooses the codec ────────────────────────────────────────────────


HOUSE = Path(__file__).parents[3] / "notifier"


@pytest.fixture
async def json_echo() -> AsyncIterator[Listener]:
    """Return the object of the request. `/v1/parts` answers in parts."""

    async def read(request: web.Request) -> web.Response:
        return web.json_response(await read_json_object(request), dumps=json_text)

    @OperationDescription(summary="An answer in parts.")
    async def parts(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"alice")
        return response

    routes = [web.post("/echo", read), web.get("/v1/parts", parts)]
    async with serving(build_api_app(EventRequests(accept, sources_of()), routes)) as listener:
        yield listener


@pytest.mark.parametrize("charset", ["punycode", "idna", "rot13", "nonsense", "utf-16", "latin-1"])
async def test_body_is_utf_8_whatever_its_charset(json_echo: Listener, charset: str) -> None:
    """Decoding 128 KiB of punycode blocked the loop of the worker for ten seconds."""
    kind = {"Content-Type": f"application/json; charset={charset}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{json_echo.url}/echo", data='{"name": "é-"}'.encode(), headers=kind) as answer,
    ):
        assert (answer.status, await answer.json()) == (200, {"name": "é-"})


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"\xff", b'{"a":' * 20_000, b'{"a": ' + b"9" * 5000 + b"}"])
async def test_body_that_is_not_an_object_is_refused(json_echo: Listener, body: bytes) -> None:
    """For any depth and length."""
    async with aiohttp.ClientSession() as session, session.post(f"{json_echo.url}/echo", data=body) as answer:
        assert (answer.status, await answer.json()) == (200, None)


def test_no_route_uses_the_charset_of_the_request() -> None:
    """aiohttp's `text`, `json` and `post` of a request decode by the charset of the request."""
    calls = (
        f"{path.relative_to(HOUSE)}:{node.lineno}"
        for path in HOUSE.rglob("*.py")
        if "demo" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("text", "json", "post")
        if isinstance(node.value, ast.Name) and node.value.id == "request"
    )
    assert list(calls) == []


async def test_answer_in_parts_is_not_cached(json_echo: Listener) -> None:
    """For example an export of dead letters, which contains users."""
    async with aiohttp.ClientSession() as session, session.get(f"{json_echo.url}/v1/parts") as answer:
        assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
