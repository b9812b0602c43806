"""Bodies of requests are JSON, and JSON is UTF-8: no sender chooses the codec that this machine decodes by."""

import ast
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from notifier.model.printable import json_text
from notifier.network.listeners.json_body import json_object
from notifier.network.listeners.listener import Listener
from notifier.publishing.event_requests import EventRequests
from notifier.publishing.events import api_app
from tests.publishing.serving import accept, serving, sources_of

HOUSE = Path(__file__).parents[3] / "notifier"


@pytest.fixture
async def echo() -> AsyncIterator[Listener]:
    """Answers with the object that it has read. `/v1/parts` answers in parts."""

    async def read(request: web.Request) -> web.Response:
        return web.json_response(await json_object(request), dumps=json_text)

    async def parts(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"alice")
        return response

    routes = [web.post("/v1/echo", read), web.get("/v1/parts", parts)]
    async with serving(api_app(EventRequests(accept, sources_of()), routes)) as listener:
        yield listener


@pytest.mark.parametrize("charset", ["punycode", "idna", "rot13", "nonsense", "utf-16", "latin-1"])
async def test_a_body_is_utf_8_whatever_it_says(echo: Listener, charset: str) -> None:
    """To decode 128 KiB of punycode held the loop of the worker for ten seconds."""
    kind = {"Content-Type": f"application/json; charset={charset}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{echo.url}/v1/echo", data='{"name": "é-"}'.encode(), headers=kind) as answer,
    ):
        assert (answer.status, await answer.json()) == (200, {"name": "é-"})


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"\xff", b'{"a":' * 20_000, b'{"a": ' + b"9" * 5000 + b"}"])
async def test_what_is_no_object_is_none(echo: Listener, body: bytes) -> None:
    """However deep or long it is."""
    async with aiohttp.ClientSession() as session, session.post(f"{echo.url}/v1/echo", data=body) as answer:
        assert (answer.status, await answer.json()) == (200, None)


def test_no_route_lets_the_sender_choose() -> None:
    """aiohttp's `text`, `json` and `post` of a request decode by the charset that it names."""
    calls = (
        f"{path.relative_to(HOUSE)}:{node.lineno}"
        for path in HOUSE.rglob("*.py")
        if "demo" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("text", "json", "post")
        if isinstance(node.value, ast.Name) and node.value.id == "request"
    )
    assert list(calls) == []


async def test_nobody_keeps_an_answer_in_parts(echo: Listener) -> None:
    """As an export of dead letters is, which holds users."""
    async with aiohttp.ClientSession() as session, session.get(f"{echo.url}/v1/parts") as answer:
        assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
