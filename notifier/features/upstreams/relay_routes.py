"""Serves `/relays/{relay}/backchannel-logout` for an identity server, and `/relays/{relay}/jwks` for its clients.

The proxy of the issuer passes the path of its `jwks_uri` on to `GET /relays/{relay}/jwks`, and asks the server itself
if that fails. The server's own keys must be read at another address, or each reading would cause the next. So a
reading has the header CDN-Loop, and a request that has it is refused with 508. If the proxy drops the header, the
reading finds the joined set, which is marked; then all requests are answered with 508, so that no worker takes the
answer of another for an outage of the server.

Sign-ins depend on the JWK Set. So its requests have separate slots, and so do the tokens of each relay: a server that
sends many delays no other relay and no JWK Set. A token has a slot only once it is verified, so strangers take none.
Of requests without a whole body the oldest is closed if there are too many.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

from aiohttp import web

from notifier.features.upstreams.configured_relays import LOOP_NAME
from notifier.features.upstreams.relay_settings import back_channel_path, jwks_path
from notifier.features.upstreams.relay_tokens import Relay
from notifier.features.upstreams.server_keys import JwksResult, result_of
from notifier.features.upstreams.upstream_routes import RETRY_AFTER_SECONDS, LogoutTokenRoute
from notifier.model.shared_resources import shared_bound
from notifier.network.http.issuer_document import LOOP_STATUS
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.network.listeners.throttle import RequestSlots, with_own_slots

MAX_TOKENS = shared_bound(700)  # verified ones at a time; the listener has 1,000 connections, for JWK Sets too
MAX_TOKENS_OF_RELAY = shared_bound(600)  # of these
MAX_UNREAD_BODIES = shared_bound(256)  # of all relays; a server sends the body at once
MAX_JWKS_REQUESTS = shared_bound(256)  # of one relay that wait for its keys; others get what is held
_PUBLIC_HEADERS = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}  # for browsers
_JSON = "application/json"


class RelayRoutes:
    """The routes of relays. `find_relay` returns None for an unknown relay. `tokens` accepts logout tokens.

    `record_jwks` counts the requests of a JWK Set by result.
    """

    def __init__(
        self,
        find_relay: Callable[[str], Relay | None],
        tokens: LogoutTokenRoute,
        record_jwks: Callable[[str, JwksResult], None],
    ) -> None:
        self._find_relay = find_relay
        self._tokens = tokens
        self._record_jwks = record_jwks
        self._unread: dict[web.RequestHandler, web.Request] = {}  # requests whose body has not arrived, oldest first
        self._jwks_slots = RequestSlots(sys.maxsize, MAX_JWKS_REQUESTS, "")

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes for the web listener's application."""
        yield web.post(back_channel_path("{upstream}"), self.post_logout)
        yield web.get(jwks_path("{upstream}"), self.get_jwks)

    @with_own_slots
    async def post_logout(self, request: web.Request) -> web.Response:
        """Accept one logout token."""
        await self._read_body(request)
        return await self._tokens.post_logout(request)

    async def _read_body(self, request: web.Request) -> None:
        """Read the body, which the request keeps. The next reader finds the fault of a broken one."""
        if len(self._unread) >= MAX_UNREAD_BODIES:
            oldest = self._unread.pop(next(iter(self._unread)))
            if oldest.transport is not None:
                oldest.transport.abort()
        self._unread[request.protocol] = request
        try:
            with suppress(web.RequestPayloadError):
                await request.read()
        finally:
            self._unread.pop(request.protocol, None)

    @with_own_slots
    async def get_jwks(self, request: web.Request) -> web.Response:
        """Return the joined set; 503 if none may be served now."""
        name = request.match_info["upstream"]
        relay = self._find_relay(name)
        if relay is None:
            return problem_response(404, "There is no such address")
        if any(LOOP_NAME in value for value in request.headers.getall("CDN-Loop", [])):
            return _refuse_loop(name)
        try:
            with self._jwks_slots.hold_slot(name):
                held = await relay.keys.current()
        except Refusal:
            held = await relay.keys.current(0.0)  # without waiting
        self._record_jwks(name, result_of(held))
        if held is JwksResult.LOOP:  # another worker may read this answer
            return _refuse_loop(name)
        if isinstance(held, JwksResult):
            headers = {"Retry-After": RETRY_AFTER_SECONDS}
            return problem_response(503, "The keys of the identity server cannot be served now", headers=headers)
        caching = f"public, max-age={held.max_age}" if held.max_age else "no-cache"
        headers = {**_PUBLIC_HEADERS, "Cache-Control": caching}
        return web.Response(body=held.joined.body, content_type=_JSON, headers=headers)


def _refuse_loop(name: str) -> web.Response:
    return problem_response(LOOP_STATUS, f"relays.{name} reads its keys from itself: set its jwks_uri")
