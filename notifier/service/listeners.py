"""Opens and closes the worker's listeners: ops always, the API and the web listener if they are configured."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from aiohttp import web

from notifier.model.shared_resources import shared_bound
from notifier.network.http.transport import max_open_files
from notifier.network.listeners import ops, web_app
from notifier.network.listeners.authorization import AuthenticateBearer
from notifier.network.listeners.certificates import ListenerContext
from notifier.network.listeners.held_bytes import ConnectionBudget
from notifier.network.listeners.listener import MAX_CONNECTIONS, listen
from notifier.publishing.event_requests import EventRequests, build_api_app
from notifier.settings.policies import ListenerTls
from notifier.settings.service_settings import Settings
from notifier.settings.values import Listen

MAX_SHARE_OF_FILES = shared_bound(1 / 8)  # of the open files, for the connections of a listener: strangers open them


@asynccontextmanager
async def listeners(
    settings: Settings,
    health: Callable[[], ops.Readiness],
    metrics: ops.Exposition,
    requests: EventRequests,
    api_routes: Iterable[web.RouteDef] = (),
    pages: Iterable[web.RouteDef] = (),
    authenticate_bearer: AuthenticateBearer | None = None,
) -> AsyncIterator[None]:
    """Run the listeners while entered. The API serves `requests` and `api_routes`, the web listener `pages`.

    `authenticate_bearer` accepts bearer tokens of the API that are not in its tokens file. Raises ConfigurationError if
    an address cannot be bound, or a certificate cannot be read.
    """
    budget = ConnectionBudget()
    async with AsyncExitStack() as stack:

        async def start(
            name: str, app: web.Application, address: Listen, tls: ListenerTls | None, connections: int
        ) -> None:
            context = None
            if tls is not None:
                certificates = ListenerContext(tls, name)
                context = certificates.context
                following = asyncio.create_task(certificates.follow_files())
                stack.callback(following.cancel)
            listener = await listen(
                app, address.host, address.port, key=f"{name}.listen", tls=context, budget=budget,
                tokens=requests.sources.tokens if name == "api" else lambda: None,
                connections=int(min(connections, MAX_SHARE_OF_FILES * max_open_files())),
            )  # fmt: skip
            stack.push_async_callback(listener.close)
            structlog.get_logger().info("listening", **{name: listener.url})

        await start("ops", ops.ops_app(health, metrics), settings.ops.listen, None, ops.MAX_CONNECTIONS)
        if (api := settings.api) is not None:
            api_app = build_api_app(requests, api_routes, authenticate_bearer)
            await start("api", api_app, api.listen, api.tls, MAX_CONNECTIONS)
        if (pages_settings := settings.web) is not None:
            app = web_app.web_app(pages)
            await start("web", app, pages_settings.listen, pages_settings.tls, web_app.MAX_CONNECTIONS)
        yield
