"""A server on loopback that answers for Hydra, WSO2, Auth0, authentik or somebody's own list."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiohttp import web

from notifier.configuration.clients.client_rows import ClientsReader
from notifier.features.registries.readers import build_reader
from notifier.settings.registry_settings import RegistrySourceSettings
from tests.settings.whole_settings import SOURCE_SETTINGS
from tests.support.certificates import authority

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ISSUER = "https://id.example.com"


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve each request by the handler, and yield the address of the server."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def source(kind: str, folder: Path | None = None, **settings: Any) -> RegistrySourceSettings:
    """A source of this kind, with `timeout` 30 s unless given. Files are relative to the folder."""
    outer: dict[str, Any] = {name: settings.pop(name) for name in ("timeout", "every") if name in settings}
    document: dict[str, Any] = {"issuer": ISSUER, "timeout": "30s", **outer, kind: settings}
    return SOURCE_SETTINGS.model_validate(document, context={"base": folder or Path()})


def reader(kind: str, folder: Path | None = None, **settings: Any) -> ClientsReader:
    """The reader of such a source. It trusts one authority: to load the system's takes 30 ms each time."""
    if kind != "auth0":
        settings.setdefault("tls", {"ca_file": _authority()[1]})
    return build_reader(source(kind, folder, **settings))


@cache
def _authority() -> tuple[TemporaryDirectory[str], str]:
    folder = TemporaryDirectory()
    return folder, str(authority(Path(folder.name)).ca_file)


def page(content: Any, **headers: str) -> web.Response:
    """A JSON document, with these headers."""
    return web.json_response(content, headers={name.replace("_", "-"): value for name, value in headers.items()})


def cut(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
