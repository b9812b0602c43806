"""Serves `/relays/{relay}/backchannel-logout` for an identity server, and `/relays/{relay}/jwks` for its clients.

The proxy of the issuer passes the path of its `jwks_uri` on to `GET /relays/{relay}/jwks`, and asks the server itself
if that fails. The server's own keys must be read at another address, or each reading would cause the next. So a
reading has the header CDN-Loop, and a request that has it is refused. If the proxy drops the header, the reading finds
the joined set, which is marked.

Sign-ins depend on the JWK Set. So its requests have separate slots, and so do the tokens of each relay: a server that
sends many, or strangers who send nothing whole, delay no other relay and no JWK Set.
"""

import sys
from collections.abc import Callable, Iterator

from aiohttp import web

from notifier.features.upstreams.configured_relays import LOOP_NAME
from notifier.features.upstreams.relay_tokens import Relay
from notifier.features.upstreams.server_keys import JwksResult
from notifier.features.upstreams.upstream_routes import (
    RETRY_AFTER_SECONDS,
    LogoutTokenRoute,
    RecordResult,
    to_logout_response,
)
from notifier.features.upstreams.upstream_token import UpstreamResult
from notifier.model.shared_resources import shared_bound
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.network.listeners.throttle import RequestSlots, with_own_slots

TOKEN_PATH = "/relays/{upstream}/backchannel-logout"  # noqa: S105  a path
JWKS_PATH = "/relays/{upstream}/jwks"
MAX_TOKENS = shared_bound(256)  # of one relay at a time
MAX_JWKS_REQUESTS = shared_bound(256)  # of one relay that wait for its keys; others get what is held
_PUBLIC_HEADERS = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}  # for browsers
_JSON = "application/json"


class RelayRoutes:
    """The routes of relays. `find_relay` returns None for an unknown relay. `tokens` accepts logout tokens.

    `record` and `record_jwks` count the requests by result.
    """

    def __init__(
        self,
        find_relay: Callable[[str], Relay | None],
        tokens: LogoutTokenRoute[Relay],
        record: RecordResult,
        record_jwks: Callable[[str, JwksResult], None],
    ) -> None:
        self._find_relay = find_relay
        self._tokens = tokens
        self._record = record
        self._record_jwks = record_jwks
        self._token_slots = RequestSlots(sys.maxsize, MAX_TOKENS, "")
        self._jwks_slots = RequestSlots(sys.maxsize, MAX_JWKS_REQUESTS, "")

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes for the web listener's application."""
        yield web.post(TOKEN_PATH, self.post_logout)
        yield web.get(JWKS_PATH, self.get_jwks)

    @with_own_slots
    async def post_logout(self, request: web.Request) -> web.Response:
        """Accept one logout token."""
        name = request.match_info["upstream"]
        if self._find_relay(name) is None:
            return problem_response(404, "There is no such address")
        try:
            with self._token_slots.hold_slot(name):
                return await self._tokens.post_logout(request)
        except Refusal:
            text = "too many tokens at a time; send the token again"
            self._record(name, UpstreamResult.BUSY, text)
            return to_logout_response(UpstreamResult.BUSY, text)

    @with_own_slots
    async def get_jwks(self, request: web.Request) -> web.Response:
        """Return the joined set; 503 if none may be served now."""
        name = request.match_info["upstream"]
        relay = self._find_relay(name)
        if relay is None:
            return problem_response(404, "There is no such address")
        if any(LOOP_NAME in value for value in request.headers.getall("CDN-Loop", [])):
            return problem_response(508, f"relays.{name} reads its keys from itself: set its jwks_uri")
        try:
            with self._jwks_slots.hold_slot(name):
                held = await relay.keys.current()
        except Refusal:
            held = relay.keys.held  # without waiting
        self._record_jwks(name, relay.keys.result)
        if held is None:
            headers = {"Retry-After": RETRY_AFTER_SECONDS}
            return problem_response(503, "The keys of the identity server cannot be served now", headers=headers)
        caching = f"public, max-age={held.max_age}" if held.max_age else "no-cache"
        headers = {**_PUBLIC_HEADERS, "Cache-Control": caching}
        return web.Response(body=held.joined.body, content_type=_JSON, headers=headers)
