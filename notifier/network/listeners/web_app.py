"""The application of the web listener: pages for browsers, which the proxy of an issuer serves on the issuer's origin.

Anybody may reach it without a token: a page's URL is sealed, and messages from upstream providers are signed. It sets
no cookie and reads none. No part of a request is logged: a path may hold a sealed context, and a query a `sid`.
"""

from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Handler

from notifier.model.shared_resources import shared_bound
from notifier.network.listeners.problem import answer_refusals
from notifier.network.listeners.throttle import Throttle

BODY_TIMEOUT_SECONDS = 10.0  # for the body of a request
MAX_CONNECTIONS = shared_bound(1000)  # at a time; a proxy keeps a few tens open, and reuses them
DEFAULT_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
"""The headers of each response, unless its route sets them."""


def web_app(routes: Iterable[web.RouteDef], *, max_body: int = 65_536, requests: int = 256) -> web.Application:
    """Return the application. All routes share its limits; any other path is 404.

    `max_body`: bytes. `requests`: the number of concurrent requests; the proxy ensures fairness between addresses.
    """
    throttle = Throttle(lambda: None, requests, requests, BODY_TIMEOUT_SECONDS)
    app = web.Application(
        client_max_size=max_body, middlewares=[_add_default_headers, answer_refusals, throttle.middleware]
    )
    app.add_routes(routes)
    return app


@web.middleware
async def _add_default_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    for name, value in DEFAULT_HEADERS.items():
        response.headers.setdefault(name, value)
    return response
