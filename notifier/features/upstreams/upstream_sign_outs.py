"""Serve `GET /upstreams/{upstream}/frontchannel-logout?iss&sid`: sign-outs by an upstream's page in a browser.

Its only secret is the `sid` (Front-Channel Logout 1.0 §3): every client of the session has it, and anybody can make a
browser call the address. So it is off by default, for upstreams without an alternative. The session is looked up
first; for an unknown `sid` nothing is published. The events are durable before the page of clients is returned. If
the look-up fails, the answer is 503, and unlike a logout token the request is not kept.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from notifier.features.upstreams.upstream import (
    EndedUpstream,
    LocalSessions,
    Question,
    SessionsAway,
    ended_here,
    ending_id,
)
from notifier.features.upstreams.upstream_routes import AGAIN, PUBLISH_WITHIN
from notifier.features.upstreams.upstream_token import UpstreamResult, named
from notifier.model.errors import QueueError
from notifier.model.front_channel import FrontChannelContext, page_context
from notifier.model.message import Lane, Outgoing
from notifier.model.registry import Registry
from notifier.model.session_ended import SessionEnded
from notifier.network.listeners.problem import problem

FRONT_CHANNEL = "/upstreams/{upstream}/frontchannel-logout"
COPIES = 600.0  # seconds for which an equal request counts as a duplicate; a later one may be genuine
_UNKNOWN = "There is no such address"  # does not reveal which upstreams are configured


class SignOutPage(Protocol):
    """Answers a browser with the page that requests the clients of a context. Pages of `parents` may frame it."""

    def __call__(self, iss: str, context: FrontChannelContext | None, parents: tuple[str, ...], /) -> web.Response: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamFrame:
    """An upstream's front-channel settings. `parents`: the origins that may frame the page.

    `without_iss`: the request may omit `iss`. `on`: browsers may call the address.
    """

    name: str
    issuer: str
    parents: tuple[str, ...]
    without_iss: bool = False
    on: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOutAccess:
    """What the route needs. `frame` returns the upstream of a name, or None."""

    frame: Callable[[str], UpstreamFrame | None]
    look_up: Callable[[str, Question], Awaitable[LocalSessions | SessionsAway | None]]
    publish: Callable[[Lane, Outgoing], Awaitable[None]]
    event_message: Callable[[SessionEnded], Outgoing]
    page: SignOutPage
    registry: Callable[[], Registry]
    record: Callable[[str, UpstreamResult, str], None]
    clock: Callable[[], float]


class UpstreamSignOuts:
    """The route that browsers call for upstream providers."""

    def __init__(self, access: SignOutAccess) -> None:
        self._access = access

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the route for the web listener's application."""
        yield web.get(FRONT_CHANNEL, self.get_sign_out, allow_head=False)

    async def get_sign_out(self, request: web.Request) -> web.Response:
        """End the local sessions, and return the page that requests their clients' front-channel addresses."""
        frame = self._access.frame(request.match_info["upstream"])
        if frame is None:
            return problem(404, _UNKNOWN)
        if not frame.on:
            return self._refused(frame, UpstreamResult.OFF, 404, _UNKNOWN)
        issuers, sids = request.query.getall("iss", []), request.query.getall("sid", [])
        if issuers != [frame.issuer] and not (frame.without_iss and not issuers):
            return self._refused(frame, UpstreamResult.ISSUER, 400, "iss is missing, or another issuer")
        if len(sids) != 1 or not named(sids[0]):
            return self._refused(frame, UpstreamResult.MALFORMED, 400, "sid is missing, or is no plain text")
        sessions = await self._access.look_up(frame.name, Question(iss=frame.issuer, sub=None, sid=sids[0]))
        if not isinstance(sessions, LocalSessions):
            text = "" if sessions is None else sessions.text
            return self._refused(frame, UpstreamResult.SESSIONS_AWAY, 503, "Try again", text)
        events = self._events(frame, sessions, sids[0])
        if not await self._published(events):
            return self._refused(frame, UpstreamResult.QUEUE_AWAY, 503, "The queue is away; try again")
        self._access.record(frame.name, UpstreamResult.ACCEPTED if events else UpstreamResult.NO_SESSION, "")
        return self._access.page(sessions.iss, self._context(events), frame.parents)

    def _events(self, frame: UpstreamFrame, sessions: LocalSessions, sid: str) -> list[SessionEnded]:
        """Return the events, with equal ids for equal requests within COPIES seconds at every worker."""
        now = self._access.clock()
        ending = EndedUpstream(
            upstream=frame.name,
            question=Question(iss=frame.issuer, sub=None, sid=sid),
            id=ending_id(frame.name, frame.issuer, None, sid, str(now // COPIES)),
            ended_at=now,
        )
        return [ended_here(ending, sessions.iss, session) for session in sessions.sessions]

    async def _published(self, events: Iterable[SessionEnded]) -> bool:
        access = self._access
        try:
            async with asyncio.timeout(PUBLISH_WITHIN):
                for event in events:
                    await access.publish(Lane.EVENTS, access.event_message(event))
        except (QueueError, TimeoutError):
            return False
        return True

    def _context(self, events: Iterable[SessionEnded]) -> FrontChannelContext | None:
        """Return one context for all sessions. A client of a further session is requested once, with that `sid`."""
        whole: FrontChannelContext | None = None
        for event in events:
            part = page_context(event, self._access.registry())
            if part is None:
                continue
            if whole is None:
                whole = part
                continue
            known = {client_id for client_id, _ in whole.clients}
            more = tuple((name, own or part.sid) for name, own in part.clients if name not in known)
            whole = FrontChannelContext(iss=whole.iss, sid=whole.sid, clients=whole.clients + more)
        return whole

    def _refused(
        self, frame: UpstreamFrame, result: UpstreamResult, status: int, title: str, reason: str = ""
    ) -> web.Response:
        self._access.record(frame.name, result, reason or title)
        return problem(status, title, headers={"Retry-After": AGAIN} if status == 503 else None)
