"""The files of the console: anybody may fetch them, under a strict policy, and nothing else."""

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from notifier.features.console.console_files import HEADERS, console_files
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.problem import problems


def files(tokens: tuple[()] | None = None) -> TestClient[web.Request, web.Application]:
    """A listener that serves the files, guarded as the API is."""
    app = web.Application(middlewares=[problems, Authorization(lambda: tokens).local])
    app.add_routes(console_files())
    return TestClient(TestServer(app))


async def test_each_file_has_the_policy() -> None:
    """And a browser asks again whether it has changed, so that no release meets scripts of another."""
    async with files() as client:
        for route in console_files():
            answer = await client.get(route.path, allow_redirects=False, headers={"Origin": "http://localhost"})
            assert answer.status == (308 if route.path == "/console" else 200), route.path
            assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS)
            if answer.status == 200:
                again = await client.get(route.path, headers={"If-None-Match": answer.headers["ETag"]})
                assert (again.status, await again.read()) == (304, b"")


async def test_nothing_else_is_a_file() -> None:
    """No part of a path is used as one."""
    async with files() as client:
        for path in ("console_files.py", "..%2f__init__.py", "%2e%2e/feature.py", "vendored.json", "app.js/"):
            assert (await client.get(f"/console/{path}")).status == 404, path


async def test_packed_or_not_it_is_the_same() -> None:
    """Files are packed once, when the worker starts."""
    async with files(()) as client:
        packed = await client.get("/console/app.js")
        plain = await client.get("/console/app.js", headers={"Accept-Encoding": "identity"})
        assert (packed.headers["Content-Encoding"], plain.headers.get("Content-Encoding")) == ("gzip", None)
        assert await packed.read() == await plain.read()
