"""Opens and closes the worker's listeners: ops always, the API and the web listener if they are configured."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from aiohttp import web

from notifier.network.listeners import ops, web_app
from notifier.network.listeners.authorization import AuthenticateBearer
from notifier.network.listeners.certificates import ListenerContext
from notifier.network.listeners.held_bytes import ConnectionBudget
from notifier.network.listeners.listener import Listener, listen
from notifier.publishing.event_requests import EventRequests, build_api_app
from notifier.settings.policies import WebListenerSettings
from notifier.settings.service_settings import ApiSettings, Settings


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
    an address cannot be bound.
    """
    async with AsyncExitStack() as stack:
        address = settings.ops.listen
        app = ops.ops_app(health, metrics)
        budget = ConnectionBudget()
        listener = await listen(
            app, address.host, address.port, key="ops.listen", connections=ops.MAX_CONNECTIONS, budget=budget
        )
        stack.push_async_callback(listener.close)
        structlog.get_logger().info("listening", ops=listener.url)
        if settings.api is not None:
            listener = await _listen_api(settings.api, build_api_app(requests, api_routes, authenticate_bearer), budget)
            stack.push_async_callback(listener.close)
            structlog.get_logger().info("listening", api=listener.url)
        if settings.web is not None:
            listener = await _listen_web(settings.web, pages, budget)
            stack.push_async_callback(listener.close)
            structlog.get_logger().info("listening", web=listener.url)
        yield


async def _listen_api(api: ApiSettings, app: web.Application, budget: ConnectionBudget) -> Listener:
    address, tls = api.listen, api.tls
    context = None if tls is None else ListenerContext(tls, "api").context
    return await listen(app, address.host, address.port, key="api.listen", tls=context, budget=budget)


async def _listen_web(
    settings: WebListenerSettings, pages: Iterable[web.RouteDef], budget: ConnectionBudget
) -> Listener:
    address, tls = settings.listen, settings.tls
    context = None if tls is None else ListenerContext(tls, "web").context
    app = web_app.web_app(pages)
    return await listen(
        app,
        address.host,
        address.port,
        key="web.listen",
        tls=context,
        connections=web_app.MAX_CONNECTIONS,
        budget=budget,
    )
