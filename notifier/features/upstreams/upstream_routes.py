"""Serve `POST /upstreams/{upstream}/backchannel-logout`: accept logout tokens of upstream OpenID Providers.

Most upstreams send a token once. So the verified claims are durable before 200, even while local sessions cannot be
looked up: a worker repeats the look-up. The token is never stored.

Each answer closes its connection. Over a kept connection, a sender may send the next token while the worker stops or
restarts: Keycloak then logs `NoHttpResponseException`, and that logout is lost.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import assert_never
from urllib.parse import parse_qsl

from aiohttp import web

from notifier.features.upstreams.upstream import (
    SOURCE_PREFIX,
    UpstreamSession,
    UpstreamSessionEnd,
    derive_session_end_id,
    dump_session_end,
    to_local_event,
    to_local_session,
)
from notifier.features.upstreams.upstream_token import (
    LogoutTokenVerifier,
    UnacceptedLogout,
    UpstreamResult,
    VerifiedLogout,
)
from notifier.model.documents.sourced import to_sourced
from notifier.model.errors import QueueError
from notifier.model.message import Lane, Message, Outgoing
from notifier.model.printable import json_text
from notifier.model.session_ended import SessionEnded
from notifier.network.listeners.problem import problem_response
from notifier.tokens.security_event_token import KeysUnavailable

BACK_CHANNEL_PATH = "/upstreams/{upstream}/backchannel-logout"
FORM_TYPE = "application/x-www-form-urlencoded"
PUBLISH_TIMEOUT_SECONDS = 5.0  # until a token's claims are durable
MAX_SEEN_TOKENS = 10_000  # beyond, the oldest are forgotten. A forgotten token yields the same event again
RETRY_AFTER_SECONDS = "5"  # most upstreams never retry
_MAX_FORM_FIELDS = 20  # of a form; all but `logout_token` are ignored (Back-Channel Logout 1.0 §2.5)
_NO_STORE_HEADERS = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredUpstream:
    """A currently configured upstream. `iss`: the issuer of the local sessions.

    `same_sub_prefix`: the prefix of its `sub` here. None if a worker must look up the sessions.
    """

    name: str
    iss: str
    verifier: LogoutTokenVerifier
    same_sub_prefix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamDependencies:
    """What the routes need. `find_upstream` returns the currently configured upstream of a name.

    `publish` returns once the message is durable, and raises QueueError. `event_message` serializes an event.
    `record` counts each request by result, and logs failures.
    """

    find_upstream: Callable[[str], ConfiguredUpstream | None]
    publish: Callable[[Lane, Outgoing], Awaitable[None]]
    event_message: Callable[[SessionEnded], Outgoing]
    record: Callable[[str, UpstreamResult, str], None]
    clock: Callable[[], float]
    new_id: Callable[[], str]


class _SeenTokens:
    """The tokens that a worker accepted, to publish none of them twice (RFC 7519 §4.1.7).

    Each is stored by its id until its age makes it invalid.
    """

    def __init__(self) -> None:
        self._expires_at: OrderedDict[str, float] = OrderedDict()

    def is_seen(self, token: str, now: float) -> bool:
        """Return whether it was accepted before and its age is still valid. `now` is in epoch seconds."""
        return self._expires_at.get(token, 0.0) >= now

    def add(self, token: str, until: float) -> None:
        """Remember an accepted token until `until` (epoch seconds), when its age makes it invalid."""
        self._expires_at[token] = until
        self._expires_at.move_to_end(token)
        while len(self._expires_at) > MAX_SEEN_TOKENS:
            self._expires_at.popitem(last=False)


class UpstreamRoutes:
    """The routes that upstream providers themselves call."""

    def __init__(self, dependencies: UpstreamDependencies) -> None:
        self._dependencies = dependencies
        self._seen = _SeenTokens()

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes for the web listener's application."""
        yield web.post(BACK_CHANNEL_PATH, self.post_logout)

    async def post_logout(self, request: web.Request) -> web.Response:
        """Accept one logout token, and answer according to Back-Channel Logout 1.0 §2.8."""
        answer = await self._handle_logout(request)
        answer.force_close()
        return answer

    async def _handle_logout(self, request: web.Request) -> web.Response:
        upstream = self._dependencies.find_upstream(request.match_info["upstream"])
        if upstream is None:
            return problem_response(404, "There is no such upstream")
        result, text = await self._accept_token(request, upstream)
        self._dependencies.record(upstream.name, result, text)
        match result:
            case UpstreamResult.ACCEPTED | UpstreamResult.REPLAYED:
                return web.Response(status=200, headers=_NO_STORE_HEADERS)
            case UpstreamResult.KEYS_AWAY | UpstreamResult.QUEUE_AWAY:
                document = {"error": "temporarily_unavailable", "error_description": text}
                headers = {**_NO_STORE_HEADERS, "Retry-After": RETRY_AFTER_SECONDS}
                return web.json_response(document, status=503, headers=headers, dumps=json_text)
            case _:
                document = {"error": "invalid_request", "error_description": text}
                return web.json_response(document, status=400, headers=_NO_STORE_HEADERS, dumps=json_text)

    async def _accept_token(self, request: web.Request, upstream: ConfiguredUpstream) -> tuple[UpstreamResult, str]:
        token = await _read_token(request)
        if token is None:
            return UpstreamResult.MALFORMED, (
                f"the body must be {FORM_TYPE} with one logout_token, at most {_MAX_FORM_FIELDS} fields, not compressed"
            )
        result = await upstream.verifier.verify(token)
        match result:
            case UnacceptedLogout():
                return result.result, result.description
            case KeysUnavailable():
                return UpstreamResult.KEYS_AWAY, result.text
            case VerifiedLogout():
                return await self._publish(upstream, result)
            case _:
                assert_never(result)

    async def _publish(self, upstream: ConfiguredUpstream, logout: VerifiedLogout) -> tuple[UpstreamResult, str]:
        """Publish the token's claims durably, unless the token was accepted before."""
        dependencies, session_end = self._dependencies, _to_session_end(upstream, logout)
        if self._seen.is_seen(session_end.id, dependencies.clock()):
            return UpstreamResult.REPLAYED, ""
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_SECONDS):
                await dependencies.publish(Lane.EVENTS, self._to_message(upstream, session_end))
        except (QueueError, TimeoutError):
            return UpstreamResult.QUEUE_AWAY, "the queue is unavailable; send the token again"
        self._seen.add(session_end.id, logout.until)
        return UpstreamResult.ACCEPTED, ""

    def _to_message(self, upstream: ConfiguredUpstream, session_end: UpstreamSessionEnd) -> Outgoing:
        """Return the event, or the message that requests a look-up."""
        if upstream.same_sub_prefix is not None:
            session = to_local_session(session_end.upstream_session, upstream.same_sub_prefix)
            return self._dependencies.event_message(to_local_event(session_end, upstream.iss, session))
        message = Message(
            lane=Lane.EVENTS,
            body=dump_session_end(session_end),
            tag=None,
            content_type="application/json",
            timestamp=self._dependencies.clock(),
            user_id=upstream.name,
            source=SOURCE_PREFIX + upstream.name,
        )
        return to_sourced(message, self._dependencies.new_id())


def _to_session_end(upstream: ConfiguredUpstream, logout: VerifiedLogout) -> UpstreamSessionEnd:
    """Return the end of the token's session. Its id is the same for the same token at every worker.

    The id derives from `jti` and claims: if an upstream reuses a `jti`, no logout is dropped as a duplicate.
    """
    return UpstreamSessionEnd(
        upstream=upstream.name,
        upstream_session=UpstreamSession(iss=logout.iss, sub=logout.sub, sid=logout.sid),
        id=derive_session_end_id(upstream.name, logout.iss, logout.jti, str(logout.iat), logout.sub, logout.sid),
        ended_at=logout.iat,
    )


async def _read_token(request: web.Request) -> bytes | None:
    """Return the only `logout_token` of the form, or None."""
    plain = request.headers.get("Content-Encoding", "identity").lower() == "identity"
    if request.content_type != FORM_TYPE or not plain:
        return None
    try:
        fields = parse_qsl((await request.read()).decode("ascii"), max_num_fields=_MAX_FORM_FIELDS)
    except (ValueError, web.RequestPayloadError):
        return None
    tokens = [value for name, value in fields if name == "logout_token"]
    return tokens[0].strip().encode("utf-8", "replace") if len(tokens) == 1 else None
