"""Sites over https for a browser to visit: an identity server behind nginx, as documents have it, and clients.

Each host has a handler.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from tests.support.proxies import proxied

LOOPBACK = "127.0.0.1"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Sites:
    """The sites."""

    def __init__(self, port: int, server: str, server_port: int) -> None:
        self._port = port
        self._server = server
        self._server_port = server_port

    def origin(self, host: str) -> str:
        """As browsers write it."""
        return f"https://{host}:{self._server_port if host == self._server else self._port}"


@asynccontextmanager
async def sites(
    folder: Path, pem: Path, handlers: Mapping[str, Handler], server: str, notifier: str, locations: str
) -> AsyncIterator[Sites]:
    """Serve `handlers`, by host, while entered. nginx is in front of the host `server`, with locations of notifier's.

    `pem`: the key and certificate of all.
    """

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.Request)
        return await handlers[request.host.partition(":")[0]](request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    try:
        for tls in (context, None):
            await web.TCPSite(runner, LOOPBACK, 0, ssl_context=tls).start()
        port, behind = (address[1] for address in runner.addresses)
        other = f"http://{LOOPBACK}:{behind}"
        nginx = proxied("nginx", folder / "nginx", pem=pem, notifier=notifier, other=other, block=locations)
        async with nginx as front:
            yield Sites(port, server, front)
    finally:
        await runner.cleanup()
