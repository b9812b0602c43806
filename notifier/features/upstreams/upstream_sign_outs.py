"""Serve `GET /upstreams/{upstream}/frontchannel-logout?iss&sid`: sign-outs by an upstream's page in a browser.

The request proves only that its sender has the `sid` (Front-Channel Logout 1.0 §3). Each client of the session has it,
and anyone can make a browser call the URL. The route is therefore off by default. The session is looked up first, and
nothing is published for an unknown `sid`. The events are durable before the page of clients is returned. After a failed
look-up the response is 503, and the request is not kept, unlike a logout token.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from notifier.features.upstreams.upstream import (
    LocalSessions,
    SessionsUnavailable,
    UpstreamSession,
    UpstreamSessionEnd,
    derive_session_end_id,
    to_local_event,
)
from notifier.features.upstreams.upstream_routes import PUBLISH_TIMEOUT_SECONDS, RETRY_AFTER_SECONDS
from notifier.features.upstreams.upstream_token import UpstreamResult, is_plain_text
from notifier.model.errors import QueueError
from notifier.model.front_channel import FrontChannelContext, create_page_context
from notifier.model.frozen import replace
from notifier.model.message import Lane, Outgoing
from notifier.model.registry import Registry
from notifier.model.session_ended import SessionEnded
from notifier.network.listeners.problem import problem_response

FRONT_CHANNEL_PATH = "/upstreams/{upstream}/frontchannel-logout"
DUPLICATE_WINDOW_SECONDS = 600.0  # in which equal requests have the same event ids; later requests may be genuine
_UNKNOWN_TITLE = "There is no such address"  # the same for a disabled and for an unknown upstream


class SignOutPage(Protocol):
    """Answers a browser with the page that requests the clients of a context. Pages of `parents` may frame it."""

    def __call__(self, iss: str, context: FrontChannelContext | None, parents: tuple[str, ...], /) -> web.Response: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamFrontChannel:
    """An upstream's front-channel settings. `parents`: the origins that may frame the page.

    `iss_optional`: the request may omit `iss`. `enabled`: browsers may call the address.
    """

    name: str
    issuer: str
    parents: tuple[str, ...]
    iss_optional: bool = False
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOutDependencies:
    """The dependencies of the route. `find_front_channel` and `look_up` return None for an unknown upstream.

    `publish` returns once the message is durable, and raises QueueError. `record` counts a request by result, and logs
    failures.
    """

    find_front_channel: Callable[[str], UpstreamFrontChannel | None]
    look_up: Callable[[str, UpstreamSession], Awaitable[LocalSessions | SessionsUnavailable | None]]
    publish: Callable[[Lane, Outgoing], Awaitable[None]]
    event_message: Callable[[SessionEnded], Outgoing]
    page: SignOutPage
    registry: Callable[[], Registry]
    record: Callable[[str, UpstreamResult, str], None]
    clock: Callable[[], float]


class UpstreamSignOutRoutes:
    """The route that browsers call for upstream providers."""

    def __init__(self, dependencies: SignOutDependencies) -> None:
        self._dependencies = dependencies

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the route for the web listener's application."""
        yield web.get(FRONT_CHANNEL_PATH, self.get_sign_out, allow_head=False)

    async def get_sign_out(self, request: web.Request) -> web.Response:
        """Publish the ends of the local sessions, and return the page that requests their front-channel clients."""
        front_channel = self._dependencies.find_front_channel(request.match_info["upstream"])
        if front_channel is None:
            return problem_response(404, _UNKNOWN_TITLE)
        if not front_channel.enabled:
            return self._refuse(front_channel, UpstreamResult.OFF, 404, _UNKNOWN_TITLE)
        issuers, sids = request.query.getall("iss", []), request.query.getall("sid", [])
        if issuers != [front_channel.issuer] and not (front_channel.iss_optional and not issuers):
            return self._refuse(front_channel, UpstreamResult.ISSUER, 400, "iss is missing, or another issuer")
        if len(sids) != 1 or not is_plain_text(sids[0]):
            return self._refuse(front_channel, UpstreamResult.MALFORMED, 400, "sid is missing, or is not plain text")
        sessions = await self._dependencies.look_up(
            front_channel.name, UpstreamSession(iss=front_channel.issuer, sub=None, sid=sids[0])
        )
        if not isinstance(sessions, LocalSessions):
            text = "" if sessions is None else sessions.text
            return self._refuse(front_channel, UpstreamResult.SESSIONS_AWAY, 503, "Try again", text)
        events = self._to_events(front_channel, sessions, sids[0])
        if not await self._publish(events):
            return self._refuse(front_channel, UpstreamResult.QUEUE_AWAY, 503, "The queue is unavailable; try again")
        result = UpstreamResult.ACCEPTED if events else UpstreamResult.NO_SESSION
        self._dependencies.record(front_channel.name, result, "")
        return self._dependencies.page(sessions.iss, self._merge_contexts(events), front_channel.parents)

    def _to_events(self, front_channel: UpstreamFrontChannel, sessions: LocalSessions, sid: str) -> list[SessionEnded]:
        """Return an event for each session. At all workers, equal requests within a window have the same event ids."""
        now = self._dependencies.clock()
        window = str(now // DUPLICATE_WINDOW_SECONDS)
        session_end = UpstreamSessionEnd(
            upstream=front_channel.name,
            upstream_session=UpstreamSession(iss=front_channel.issuer, sub=None, sid=sid),
            id=derive_session_end_id(front_channel.name, front_channel.issuer, None, sid, window),
            ended_at=now,
        )
        return [to_local_event(session_end, sessions.iss, session) for session in sessions.sessions]

    async def _publish(self, events: Iterable[SessionEnded]) -> bool:
        """Publish the events durably. Return False if the queue is unavailable."""
        dependencies = self._dependencies
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_SECONDS):
                for event in events:
                    await dependencies.publish(Lane.EVENTS, dependencies.event_message(event))
        except (QueueError, TimeoutError):
            return False
        return True

    def _merge_contexts(self, events: Iterable[SessionEnded]) -> FrontChannelContext | None:
        """Return the page's context for all events; None without a front-channel client.

        A client of several sessions is requested once, with the `sid` of the first.
        """
        registry = self._dependencies.registry()
        contexts = [context for event in events if (context := create_page_context(event, registry)) is not None]
        if not contexts:
            return None
        clients = dict(contexts[0].clients)
        for context in contexts[1:]:
            for client_id, sid in context.clients:
                clients.setdefault(client_id, sid or context.sid)
        return replace(contexts[0], clients=tuple(clients.items()))

    def _refuse(
        self, front_channel: UpstreamFrontChannel, result: UpstreamResult, status: int, title: str, reason: str = ""
    ) -> web.Response:
        """Record and return a refusal. `reason`: for the log; by default the title."""
        self._dependencies.record(front_channel.name, result, reason or title)
        headers = {"Retry-After": RETRY_AFTER_SECONDS} if status == 503 else None
        return problem_response(status, title, headers=headers)
