"""The feature `upstreams`: ends sessions by logout tokens of upstream OpenID Providers and of relayed servers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from notifier.feature import Feature, FeatureContext, FeatureRuntime, late
from notifier.model.ids import new_id

if TYPE_CHECKING:
    from notifier.features.upstreams.configured_relays import ConfiguredRelays
    from notifier.features.upstreams.configured_upstreams import ConfiguredUpstreams


@asynccontextmanager
async def _run_both(upstreams: ConfiguredUpstreams, relays: ConfiguredRelays) -> AsyncIterator[None]:
    async with aclosing(upstreams), relays.running():
        yield


def _run(context: FeatureContext) -> FeatureRuntime:
    from aiohttp import web

    from notifier.features.upstreams.configured_relays import ConfiguredRelays
    from notifier.features.upstreams.configured_upstreams import ConfiguredUpstreams
    from notifier.features.upstreams.relay_routes import MAX_TOKENS, MAX_TOKENS_OF_RELAY, RelayRoutes
    from notifier.features.upstreams.upstream_intake import UpstreamIntake
    from notifier.features.upstreams.upstream_record import UpstreamRecord
    from notifier.features.upstreams.upstream_routes import BACK_CHANNEL_PATH, LogoutTokenRoute
    from notifier.features.upstreams.upstream_sign_outs import UpstreamSignOutRoutes
    from notifier.features.upstreams.upstream_token import SeenTokens
    from notifier.network.listeners.throttle import RequestSlots

    record, seen = UpstreamRecord(), SeenTokens()
    upstreams, relays = ConfiguredUpstreams(context.live, record), ConfiguredRelays(context.live, record)
    find, publish, registry = upstreams.find_upstream, context.queue.publish, context.live.registry
    context.queue.side_channel.share_updates(seen.next_update, seen.on_update, "seen-tokens")
    context.once.add_senders(lambda: (*upstreams.names(), *relays.names()))
    tokens = LogoutTokenRoute(find, context.once, record.on_request, seen)
    slots = RequestSlots(MAX_TOKENS, MAX_TOKENS_OF_RELAY, "")
    relayed = LogoutTokenRoute(relays.find_relay, context.once, record.on_request, seen, slots)
    relay_routes = RelayRoutes(relays.find_relay, relayed, record.on_jwks)
    sign_outs = UpstreamSignOutRoutes(find, publish, record.on_request, context.page, registry)
    intake = UpstreamIntake(find, registry, clock=time.time, new_id=new_id, observe=context.observe)
    return FeatureRuntime(
        pages=[web.post(BACK_CHANNEL_PATH, tokens.post_logout), *sign_outs.routes(), *relay_routes.routes()],
        observe=record.observe,
        families=record.families,
        readers={"upstream": intake},
        lifespan=_run_both(upstreams, relays),
        relays=relays.states,
        stays_ready=relays.are_served,
    )


UPSTREAMS = Feature(
    name="upstreams",
    sections={
        "upstreams": "notifier.features.upstreams.upstream_settings:UpstreamSettings",
        "relays": "notifier.features.upstreams.relay_settings:RelaySettings",
    },
    read=late("notifier.features.upstreams.upstream_issuers:read_upstreams"),
    read_again=lambda _settings: {"upstream": late("notifier.features.upstreams.upstream_intake:read_again")},
    run=_run,
    checks=late("notifier.features.upstreams.doctor_upstreams:upstream_checks"),
    report=late("notifier.features.upstreams.upstream_issuers:report_upstreams"),
    find_remote_issues=late("notifier.features.upstreams.doctor_upstreams:find_remote_issues"),
)
