"""The address that an upstream's page calls by the browser: which calls are copies of one."""

import aiohttp
from aiohttp import web

from notifier.features.upstreams.configured_upstreams import build_upstream
from notifier.features.upstreams.session_lookups import SessionLookups
from notifier.features.upstreams.upstream import LocalSession, UpstreamSession
from notifier.features.upstreams.upstream_settings import UpstreamSettings
from notifier.features.upstreams.upstream_sign_outs import DUPLICATE_WINDOW_SECONDS, UpstreamSignOutRoutes
from notifier.model.message import Lane, MessageDraft
from notifier.model.record import copy_record
from notifier.model.registry import Registry
from notifier.network.http.issuer_document import DocumentIssue
from notifier.network.listeners.web_app import web_app
from tests.publishing.serving import serving

OP = "https://op.example.com"


async def test_a_call_is_a_copy_for_ten_minutes_and_not_for_ever() -> None:
    """If a session continues after a forged call, the upstream's own later call is published."""
    now, published = [10 * DUPLICATE_WINDOW_SECONDS], list[str | None]()

    class Store:
        async def find_sessions(self, upstream_session: UpstreamSession) -> tuple[LocalSession, ...]:
            return (LocalSession(sub="alice", sid=upstream_session.sid, clients="*"),)

    async def publish(_lane: Lane, message: MessageDraft) -> None:
        published.append(message.message_id)

    async def read_keys() -> DocumentIssue:
        raise AssertionError

    resolve = {"http": {"url": "https://login.example.com/sessions"}}
    members = {"issuer": OP, "client_id": "us", "resolve": resolve, "front_channel": True}
    upstream = build_upstream("op", UpstreamSettings.model_validate(members), OP, read_keys)
    upstream = copy_record(upstream, browser_lookups=SessionLookups(Store()))
    routes = UpstreamSignOutRoutes(
        lambda _name: upstream,
        publish,
        lambda _name, _result, _reason: None,
        lambda _iss, _context, _parents: web.Response(),
        lambda: Registry(issuers={}),
        lambda: now[0],
    )
    async with serving(web_app(routes.routes())) as listener, aiohttp.ClientSession() as session:

        async def call(sid: str) -> None:
            url = f"{listener.url}/upstreams/op/frontchannel-logout"
            async with session.get(url, params={"iss": OP, "sid": sid}) as answer:
                assert answer.status == 200

        for sid, passed in (
            ("s1", 0.0),
            ("s1", DUPLICATE_WINDOW_SECONDS - 1),
            ("s2", 0.0),
            ("s1", 1.0),
            ("s1", DUPLICATE_WINDOW_SECONDS),
        ):
            now[0] += passed
            await call(sid)
    assert None not in published
    first, copy, other, later, last = published
    assert first == copy
    assert len({first, other, later, last}) == 4
