"""The web listener as any stranger meets it: what it answers, what it bears, and what it never says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from notifier.network.listeners.listener import Listener
from notifier.network.listeners.web_app import WebLimits, web_app
from tests.publishing.serving import serving

SECRET = "gAAAAABsealed"


@asynccontextmanager
async def face(*routes: web.RouteDef, limits: WebLimits | None = None) -> AsyncIterator[Listener]:
    async with serving(web_app(routes, limits)) as listener:
        yield listener


async def test_what_is_no_route_is_404_and_may_be_framed_by_nobody() -> None:
    """Nothing here is kept, framed, guessed at or found by a search engine."""
    async with face() as listener, aiohttp.ClientSession() as session:
        for path in ("/", "/livez", "/metrics", "/v1/events", f"/{SECRET}?sid=s1"):
            async with session.get(listener.url + path) as answer:
                assert answer.status == 404
                assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
                assert (answer.headers["Cache-Control"], answer.headers["X-Robots-Tag"]) == ("no-store", "noindex")
                assert not {"Set-Cookie", "Server"} & set(answer.headers)
                assert SECRET not in await answer.text()


async def test_a_route_has_the_last_word_on_its_headers() -> None:
    """A page that others may keep, or frame, says so itself."""

    async def kept(_request: web.Request) -> web.Response:
        return web.Response(headers={"Cache-Control": "max-age=60"})

    async with (
        face(web.get("/x", kept)) as listener,
        aiohttp.ClientSession() as session,
        session.get(listener.url + "/x") as answer,
    ):
        assert (answer.headers["Cache-Control"], answer.headers["Referrer-Policy"]) == ("max-age=60", "no-referrer")


async def test_large_bodies_and_too_many_requests_are_refused() -> None:
    """413 for a body beyond the limit; 429 for one request too many, before its body is read."""
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        entered.set()
        await go.wait()
        return web.Response(text=str(len(await request.read())))

    limits = WebLimits(body=10, requests=1)
    async with face(web.post("/x", slow), limits=limits) as listener, aiohttp.ClientSession() as session:
        first = asyncio.create_task(session.post(listener.url + "/x", data=b"a" * 11))
        await entered.wait()
        async with session.post(listener.url + "/x", data=b"a") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        go.set()
        assert (await first).status == 413


async def test_nothing_of_a_request_is_in_the_log(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Not even of one that fails, or that is no HTTP."""

    async def fail(_request: web.Request) -> web.Response:
        raise RuntimeError("broken")

    async with face(web.get("/{context}", fail)) as listener:
        async with aiohttp.ClientSession() as session, session.get(f"{listener.url}/{SECRET}?sid={SECRET}") as answer:
            assert answer.status == 500
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(f"GET /{SECRET} nonsense\r\n\r\n".encode())
        assert b"400" in (await reader.read()).split(b"\r\n")[0]
        writer.close()
    assert "broken" in caplog.text
    assert SECRET not in caplog.text + "".join(capfd.readouterr())
