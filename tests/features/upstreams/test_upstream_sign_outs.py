"""The address that an upstream's page calls by the browser: which calls are copies of one."""

import aiohttp
from aiohttp import web

from notifier.delivery.replacements import to_event_message
from notifier.features.upstreams.upstream import LocalSession, LocalSessions, UpstreamSession
from notifier.features.upstreams.upstream_sign_outs import (
    DUPLICATE_WINDOW_SECONDS,
    SignOutDependencies,
    UpstreamFrontChannel,
    UpstreamSignOutRoutes,
)
from notifier.model.message import Lane, Outgoing
from notifier.model.registry import Registry
from notifier.network.listeners.web_app import web_app
from tests.publishing.serving import serving

OP = "https://op.example.com"


async def test_a_call_is_a_copy_for_ten_minutes_and_not_for_ever() -> None:
    """If a session continues after a forged call, the upstream's own later call is published."""
    now, published = [10 * DUPLICATE_WINDOW_SECONDS], list[str | None]()

    async def look_up(_name: str, asked: UpstreamSession) -> LocalSessions:
        return LocalSessions(iss=OP, sessions=(LocalSession(sub="alice", sid=asked.sid, clients="*"),))

    async def publish(_lane: Lane, message: Outgoing) -> None:
        published.append(message.message_id)

    access = SignOutDependencies(
        find_front_channel=lambda name: UpstreamFrontChannel(name=name, issuer=OP, parents=()),
        look_up=look_up,
        publish=publish,
        event_message=to_event_message,
        page=lambda _iss, _context, _parents: web.Response(),
        registry=lambda: Registry(issuers={}),
        record=lambda _name, _result, _reason: None,
        clock=lambda: now[0],
    )
    async with serving(web_app(UpstreamSignOutRoutes(access).routes())) as listener, aiohttp.ClientSession() as session:

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
