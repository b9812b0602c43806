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
    PREFIX,
    EndedUpstream,
    Question,
    dump_ending,
    ended_here,
    ending_id,
    same_session,
)
from notifier.features.upstreams.upstream_token import (
    LogoutTokenVerifier,
    UnacceptedLogout,
    UpstreamResult,
    VerifiedLogout,
)
from notifier.model.documents.sourced import as_sourced
from notifier.model.errors import QueueError
from notifier.model.message import Lane, Message, Outgoing
from notifier.model.printable import json_text
from notifier.model.session_ended import SessionEnded
from notifier.network.listeners.problem import problem
from notifier.tokens.security_event_token import KeysAway

BACK_CHANNEL = "/upstreams/{upstream}/backchannel-logout"
FORM = "application/x-www-form-urlencoded"
PUBLISH_WITHIN = 5.0  # seconds to publish a token's claims durably
SEEN = 10_000  # tokens; beyond, the oldest are forgotten. A forgotten token yields the same event again
AGAIN = "5"  # seconds (Retry-After); most upstreams never retry
_FIELDS = 20  # of a form; all but `logout_token` are ignored (Back-Channel Logout 1.0 §2.5)
_NO_STORE = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredUpstream:
    """A currently configured upstream. `iss`: the issuer of the local sessions.

    `same_sub`: the prefix of its `sub` here. None if a worker must look up the sessions.
    """

    name: str
    iss: str
    verifier: LogoutTokenVerifier
    same_sub: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamAccess:
    """What the routes need. `upstream` returns the currently configured upstream of a name.

    `publish` returns once the message is durable, and raises QueueError. `event_message` serializes an event.
    `record` counts each request by result, and logs failures.
    """

    upstream: Callable[[str], ConfiguredUpstream | None]
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
        self._until: OrderedDict[str, float] = OrderedDict()

    def seen(self, token: str, now: float) -> bool:
        """Return whether it was accepted before and its age is still valid. `now` is in epoch seconds."""
        return self._until.get(token, 0.0) >= now

    def take(self, token: str, until: float) -> None:
        """Remember an accepted token until `until` (epoch seconds), when its age makes it invalid."""
        self._until[token] = until
        self._until.move_to_end(token)
        while len(self._until) > SEEN:
            self._until.popitem(last=False)


class UpstreamRoutes:
    """The routes that upstream providers themselves call."""

    def __init__(self, access: UpstreamAccess) -> None:
        self._access = access
        self._seen = _SeenTokens()

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes for the web listener's application."""
        yield web.post(BACK_CHANNEL, self.post_logout)

    async def post_logout(self, request: web.Request) -> web.Response:
        """Accept one logout token, and answer according to Back-Channel Logout 1.0 §2.8."""
        answer = await self._answer(request)
        answer.force_close()
        return answer

    async def _answer(self, request: web.Request) -> web.Response:
        upstream = self._access.upstream(request.match_info["upstream"])
        if upstream is None:
            return problem(404, "There is no such upstream")
        result, text = await self._take(request, upstream)
        self._access.record(upstream.name, result, text)
        match result:
            case UpstreamResult.ACCEPTED | UpstreamResult.REPLAYED:
                return web.Response(status=200, headers=_NO_STORE)
            case UpstreamResult.KEYS_AWAY | UpstreamResult.QUEUE_AWAY:
                document = {"error": "temporarily_unavailable", "error_description": text}
                headers = {**_NO_STORE, "Retry-After": AGAIN}
                return web.json_response(document, status=503, headers=headers, dumps=json_text)
            case _:
                document = {"error": "invalid_request", "error_description": text}
                return web.json_response(document, status=400, headers=_NO_STORE, dumps=json_text)

    async def _take(self, request: web.Request, upstream: ConfiguredUpstream) -> tuple[UpstreamResult, str]:
        token = await _token(request)
        if token is None:
            return UpstreamResult.MALFORMED, (
                f"the body must be {FORM} of at most {_FIELDS} fields with one logout_token, not compressed"
            )
        result = await upstream.verifier.verified(token)
        match result:
            case UnacceptedLogout():
                return result.result, result.description
            case KeysAway():
                return UpstreamResult.KEYS_AWAY, result.text
            case VerifiedLogout():
                return await self._publish(upstream, result)
            case _:
                assert_never(result)

    async def _publish(self, upstream: ConfiguredUpstream, logout: VerifiedLogout) -> tuple[UpstreamResult, str]:
        """Publish the token's claims durably, unless the token was accepted before."""
        access, ending = self._access, _ending(upstream, logout)
        if self._seen.seen(ending.id, access.clock()):
            return UpstreamResult.REPLAYED, ""
        try:
            async with asyncio.timeout(PUBLISH_WITHIN):
                await access.publish(Lane.EVENTS, self._message(upstream, ending))
        except (QueueError, TimeoutError):
            return UpstreamResult.QUEUE_AWAY, "the queue is away; send the token again"
        self._seen.take(ending.id, logout.until)
        return UpstreamResult.ACCEPTED, ""

    def _message(self, upstream: ConfiguredUpstream, ending: EndedUpstream) -> Outgoing:
        """Return the event, or the message that requests a look-up."""
        if upstream.same_sub is not None:
            session = same_session(ending.question, upstream.same_sub)
            return self._access.event_message(ended_here(ending, upstream.iss, session))
        message = Message(
            lane=Lane.EVENTS,
            body=dump_ending(ending),
            tag=None,
            content_type="application/json",
            timestamp=self._access.clock(),
            user_id=upstream.name,
            source=PREFIX + upstream.name,
        )
        return as_sourced(message, self._access.new_id())


def _ending(upstream: ConfiguredUpstream, logout: VerifiedLogout) -> EndedUpstream:
    """Return the end of the token's session. Its id is the same for the same token at every worker.

    The id derives from `jti` and claims: if an upstream reuses a `jti`, no logout is dropped as a duplicate.
    """
    return EndedUpstream(
        upstream=upstream.name,
        question=Question(iss=logout.iss, sub=logout.sub, sid=logout.sid),
        id=ending_id(upstream.name, logout.iss, logout.jti, str(logout.iat), logout.sub, logout.sid),
        ended_at=logout.iat,
    )


async def _token(request: web.Request) -> bytes | None:
    """Return the only `logout_token` of the form, or None."""
    plain = request.headers.get("Content-Encoding", "identity").lower() == "identity"
    if request.content_type != FORM or not plain:
        return None
    try:
        fields = parse_qsl((await request.read()).decode("ascii"), max_num_fields=_FIELDS)
    except (ValueError, web.RequestPayloadError):
        return None
    tokens = [value for name, value in fields if name == "logout_token"]
    return tokens[0].strip().encode("utf-8", "replace") if len(tokens) == 1 else None
