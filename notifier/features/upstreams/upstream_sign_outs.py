"""Serve `GET /upstreams/{upstream}/frontchannel-logout?iss&sid`: sign-outs by an upstream's page in a browser.

The request proves only that its sender has the `sid` (Front-Channel Logout 1.0 §3). Each client of the session has it,
and anyone can make a browser call the URL. The route is therefore off by default. The session is looked up first, and
nothing is published for an unknown `sid`. The events are durable before the page of clients is returned. After a failed
look-up the response is 503, and the request is not kept, unlike a logout token.
"""

import time
from collections.abc import Callable, Iterable, Iterator

from aiohttp import web

from notifier.feature import Page
from notifier.features.upstreams.configured_upstreams import Upstream
from notifier.features.upstreams.upstream import (
    SessionsUnavailable,
    UpstreamSession,
    UpstreamSessionEnd,
    derive_session_end_id,
    to_local_event,
)
from notifier.features.upstreams.upstream_routes import RETRY_AFTER_SECONDS, PublishOutgoing, RecordResult, publish_all
from notifier.features.upstreams.upstream_token import UpstreamResult, is_plain_text
from notifier.messages.replacements import to_event_message
from notifier.model.front_channel import FrontChannelContext, create_page_context
from notifier.model.moment import Clock
from notifier.model.record import copy_record
from notifier.model.registry import CurrentRegistry
from notifier.model.session_ended import SessionEnded
from notifier.network.listeners.problem import problem_response

FRONT_CHANNEL_PATH = "/upstreams/{upstream}/frontchannel-logout"
DUPLICATE_WINDOW_SECONDS = 600.0  # in which equal requests have the same event ids; later requests may be genuine
_UNKNOWN_TITLE = "There is no such address"  # the same for a disabled and for an unknown upstream


class UpstreamSignOutRoutes:
    """The route that browsers call for upstream providers. `find_upstream` returns None for an unknown upstream."""

    def __init__(
        self,
        find_upstream: Callable[[str], Upstream | None],
        publish: PublishOutgoing,
        record: RecordResult,
        page: Page,
        registry: CurrentRegistry,
        clock: Clock = time.time,
    ) -> None:
        self._find_upstream = find_upstream
        self._publish = publish
        self._record = record
        self._page = page
        self._registry = registry
        self._clock = clock

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the route for the web listener's application."""
        yield web.get(FRONT_CHANNEL_PATH, self.get_sign_out, allow_head=False)

    async def get_sign_out(self, request: web.Request) -> web.Response:
        """Publish the ends of the local sessions, and return the page that requests their front-channel clients."""
        upstream = self._find_upstream(request.match_info["upstream"])
        if upstream is None:
            return problem_response(404, _UNKNOWN_TITLE)
        settings = upstream.settings
        if not settings.front_channel:
            return self._refuse(upstream, UpstreamResult.OFF, 404, _UNKNOWN_TITLE)
        issuers, sids = request.query.getall("iss", []), request.query.getall("sid", [])
        if issuers != [settings.issuer] and not (settings.without_iss == "allow" and not issuers):
            return self._refuse(upstream, UpstreamResult.ISSUER, 400, "iss is missing, or another issuer")
        if len(sids) != 1 or not is_plain_text(sids[0]):
            return self._refuse(upstream, UpstreamResult.MALFORMED, 400, "sid is missing, or is not plain text")
        ended = UpstreamSession(iss=settings.issuer, sub=None, sid=sids[0])
        sessions = await upstream.look_up_for_browser(ended)
        if isinstance(sessions, SessionsUnavailable):
            return self._refuse(upstream, UpstreamResult.SESSIONS_AWAY, 503, "Try again", sessions.text)
        session_end = self._to_session_end(upstream.name, ended)
        events = [to_local_event(session_end, sessions.iss, session) for session in sessions.sessions]
        if not await publish_all(self._publish, map(to_event_message, events)):
            return self._refuse(upstream, UpstreamResult.QUEUE_AWAY, 503, "The queue is unavailable; try again")
        self._record(upstream.name, UpstreamResult.ACCEPTED if events else UpstreamResult.NO_SESSION, "")
        return self._page(sessions.iss, self._merge_contexts(events), settings.framing_origins)

    def _to_session_end(self, upstream: str, ended: UpstreamSession) -> UpstreamSessionEnd:
        """Return the session end, whose id is the same for equal requests within a window, at all workers."""
        now = self._clock()
        window = str(now // DUPLICATE_WINDOW_SECONDS)
        end_id = derive_session_end_id(upstream, ended.iss, None, ended.sid, window)
        return UpstreamSessionEnd(upstream=upstream, upstream_session=ended, id=end_id, ended_at=now)

    def _merge_contexts(self, events: Iterable[SessionEnded]) -> FrontChannelContext | None:
        """Return the page's context for all events; None without a front-channel client.

        A client of several sessions is requested once, with the `sid` of the first.
        """
        registry = self._registry()
        contexts = [context for event in events if (context := create_page_context(event, registry)) is not None]
        if not contexts:
            return None
        clients = dict(contexts[0].clients)
        for context in contexts[1:]:
            for client_id, sid in context.clients:
                clients.setdefault(client_id, sid or context.sid)
        return copy_record(contexts[0], clients=tuple(clients.items()))

    def _refuse(
        self, upstream: Upstream, result: UpstreamResult, status: int, title: str, reason: str = ""
    ) -> web.Response:
        """Record and return a refusal. `reason`: for the log; by default the title."""
        self._record(upstream.name, result, reason or title)
        headers = {"Retry-After": RETRY_AFTER_SECONDS} if status == 503 else None
        return problem_response(status, title, headers=headers)
