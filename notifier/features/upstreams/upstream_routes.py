"""Serve `POST /upstreams/{upstream}/backchannel-logout`: accept logout tokens of upstream OpenID Providers.

Most upstreams send a token only once. The verified claims are therefore published durably before the response 200, and
the local sessions are looked up later by a worker. The token is never stored.

Each response closes its connection. On a connection that is reused, an upstream may send the next token just when the
worker stops: Keycloak then logs `NoHttpResponseException`, and the logout is lost.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeAlias, assert_never
from urllib.parse import parse_qsl

from aiohttp import web

from notifier.features.upstreams.configured_upstreams import Upstream
from notifier.features.upstreams.upstream import (
    SOURCE_PREFIX,
    UpstreamSession,
    UpstreamSessionEnd,
    derive_session_end_id,
    dump_session_end,
    to_local_event,
    to_local_session,
)
from notifier.features.upstreams.upstream_token import UnacceptedLogout, UpstreamResult, VerifiedLogout
from notifier.messages.replacements import to_event_message
from notifier.model.documents.sourced import to_sourced
from notifier.model.errors import QueueError
from notifier.model.ids import new_id
from notifier.model.message import Lane, Message, MessageDraft
from notifier.model.moment import Clock
from notifier.model.printable import json_text
from notifier.model.shared_resources import shared_bound
from notifier.network.listeners.problem import problem_response
from notifier.tokens.security_event_token import KeysUnavailable

BACK_CHANNEL_PATH = "/upstreams/{upstream}/backchannel-logout"
FORM_TYPE = "application/x-www-form-urlencoded"
PUBLISH_TIMEOUT_SECONDS = 5.0  # until a token's claims are durable
MAX_SEEN_TOKENS = shared_bound(10_000)  # the oldest are dropped; the event of a dropped one has the same id again
RETRY_AFTER_SECONDS = "5"  # for the few upstreams that retry
_MAX_FORM_FIELDS = 20  # all but `logout_token` are ignored (Back-Channel Logout 1.0 §2.5)
_NO_STORE_HEADERS = {"Cache-Control": "no-store"}

PublishOutgoing: TypeAlias = Callable[[Lane, MessageDraft], Awaitable[None]]
"""Returns once a message is durable. Raises QueueError."""
RecordResult: TypeAlias = Callable[[str, UpstreamResult, str], None]
"""Counts a request of an upstream by result, and logs failures."""


async def publish_all(publish: PublishOutgoing, messages: Iterable[MessageDraft]) -> bool:
    """Publish the messages durably. Return False if the queue is unavailable."""
    try:
        async with asyncio.timeout(PUBLISH_TIMEOUT_SECONDS):
            for message in messages:
                await publish(Lane.EVENTS, message)
    except (QueueError, TimeoutError):
        return False
    return True


class _SeenTokens:
    """The IDs of tokens that a worker accepted, so that it publishes none twice (RFC 7519 §4.1.7)."""

    def __init__(self) -> None:
        self._expires_at: OrderedDict[str, float] = OrderedDict()

    def is_seen(self, token_id: str, now: float) -> bool:
        """Return whether the token was accepted before, and is not too old to be accepted again."""
        return self._expires_at.get(token_id, 0.0) >= now

    def add(self, token_id: str, expires_at: float) -> None:
        """Remember an accepted token until `expires_at` (epoch seconds), when it is refused for its age."""
        self._expires_at[token_id] = expires_at
        self._expires_at.move_to_end(token_id)
        while len(self._expires_at) > MAX_SEEN_TOKENS:
            self._expires_at.popitem(last=False)


class UpstreamRoutes:
    """The routes that upstream providers themselves call. `find_upstream` returns None for an unknown upstream."""

    def __init__(
        self,
        find_upstream: Callable[[str], Upstream | None],
        publish: PublishOutgoing,
        record: RecordResult,
        clock: Clock = time.time,
        new_id: Callable[[], str] = new_id,
    ) -> None:
        self._find_upstream = find_upstream
        self._publish = publish
        self._record = record
        self._clock = clock
        self._new_id = new_id
        self._seen = _SeenTokens()

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes for the web listener's application."""
        yield web.post(BACK_CHANNEL_PATH, self.post_logout)

    async def post_logout(self, request: web.Request) -> web.Response:
        """Accept one logout token. The response follows Back-Channel Logout 1.0 §2.8."""
        answer = await self._handle_logout(request)
        answer.force_close()
        return answer

    async def _handle_logout(self, request: web.Request) -> web.Response:
        """Process a logout token, record the result, and return the response for the result."""
        upstream = self._find_upstream(request.match_info["upstream"])
        if upstream is None:
            return problem_response(404, "There is no such upstream")
        result, text = await self._accept_token(request, upstream)
        self._record(upstream.name, result, text)
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

    async def _accept_token(self, request: web.Request, upstream: Upstream) -> tuple[UpstreamResult, str]:
        """Verify and publish the token of a request. Return the result and the error text."""
        token = await _read_token(request)
        if token is None:
            fields = f"one logout_token, at most {_MAX_FORM_FIELDS} fields, not compressed"
            return UpstreamResult.MALFORMED, f"the body must be {FORM_TYPE} with {fields}"
        logout = await upstream.verifier.verify(token)
        match logout:
            case UnacceptedLogout():
                return logout.result, logout.description
            case KeysUnavailable():
                return UpstreamResult.KEYS_AWAY, logout.text
            case VerifiedLogout():
                return await self._accept_logout(upstream, logout)
            case _:
                assert_never(logout)

    async def _accept_logout(self, upstream: Upstream, logout: VerifiedLogout) -> tuple[UpstreamResult, str]:
        """Publish the token's claims durably, unless the token was accepted before. Return result and error text."""
        session_end = _to_session_end(upstream, logout)
        if self._seen.is_seen(session_end.id, self._clock()):
            return UpstreamResult.REPLAYED, ""
        if not await publish_all(self._publish, [self._to_message(upstream, session_end)]):
            return UpstreamResult.QUEUE_AWAY, "the queue is unavailable; send the token again"
        self._seen.add(session_end.id, logout.until)
        return UpstreamResult.ACCEPTED, ""

    def _to_message(self, upstream: Upstream, session_end: UpstreamSessionEnd) -> MessageDraft:
        """Return the event of the local session, or a message by which a worker looks up the sessions."""
        same_sub = upstream.settings.resolve.same_sub
        if same_sub is not None:
            session = to_local_session(session_end.upstream_session, same_sub.prefix)
            return to_event_message(to_local_event(session_end, upstream.iss, session))
        message = Message(
            lane=Lane.EVENTS,
            body=dump_session_end(session_end),
            tag=None,
            content_type="application/json",
            timestamp=self._clock(),
            user_id=upstream.name,
            source=SOURCE_PREFIX + upstream.name,
        )
        return to_sourced(message, self._new_id())


def _to_session_end(upstream: Upstream, logout: VerifiedLogout) -> UpstreamSessionEnd:
    """Return the session end of a token. Its id is the same at all workers.

    The id derives from `jti` and further claims, so that a logout is not dropped if an upstream reuses a `jti`.
    """
    return UpstreamSessionEnd(
        upstream=upstream.name,
        upstream_session=UpstreamSession(iss=logout.iss, sub=logout.sub, sid=logout.sid),
        id=derive_session_end_id(upstream.name, logout.iss, logout.jti, str(logout.iat), logout.sub, logout.sid),
        ended_at=logout.iat,
    )


async def _read_token(request: web.Request) -> bytes | None:
    """Return the value of `logout_token` in the form; None unless the form is valid and has exactly one."""
    is_compressed = request.headers.get("Content-Encoding", "identity").lower() != "identity"
    if request.content_type != FORM_TYPE or is_compressed:
        return None
    try:
        fields = parse_qsl((await request.read()).decode("ascii"), max_num_fields=_MAX_FORM_FIELDS)
    except (ValueError, web.RequestPayloadError):
        return None
    tokens = [value for name, value in fields if name == "logout_token"]
    return tokens[0].strip().encode("utf-8", "replace") if len(tokens) == 1 else None
