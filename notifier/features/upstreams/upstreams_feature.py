"""The feature `upstreams`: ends the local sessions of users who signed out at an upstream OpenID Provider."""

from __future__ import annotations

import time
from contextlib import aclosing

from notifier.feature import Feature, FeatureContext, FeatureRuntime, late
from notifier.model.ids import new_id


def _run(context: FeatureContext) -> FeatureRuntime:
    from notifier.features.upstreams.configured_upstreams import ConfiguredUpstreams
    from notifier.features.upstreams.upstream_intake import UpstreamIntake
    from notifier.features.upstreams.upstream_record import UpstreamRecord
    from notifier.features.upstreams.upstream_routes import UpstreamRoutes
    from notifier.features.upstreams.upstream_sign_outs import UpstreamSignOutRoutes

    record = UpstreamRecord()
    upstreams = ConfiguredUpstreams(context.live, record)
    find, publish, registry = upstreams.find_upstream, context.queue.publish, context.live.registry
    routes = UpstreamRoutes(find, publish, record.on_request)
    sign_outs = UpstreamSignOutRoutes(find, publish, record.on_request, context.page, registry)
    intake = UpstreamIntake(find, registry, clock=time.time, new_id=new_id, observe=context.observe)
    return FeatureRuntime(
        pages=[*routes.routes(), *sign_outs.routes()],
        observe=record.observe,
        families=record.families,
        readers={"upstream": intake},
        lifespan=aclosing(upstreams),
    )


UPSTREAMS = Feature(
    name="upstreams",
    sections={"upstreams": "notifier.features.upstreams.upstream_settings:UpstreamSettings"},
    read=late("notifier.features.upstreams.upstream_issuers:read_upstreams"),
    read_again=lambda _settings: {"upstream": late("notifier.features.upstreams.upstream_intake:read_again")},
    run=_run,
    checks=late("notifier.features.upstreams.doctor_upstreams:upstream_checks"),
    report=late("notifier.features.upstreams.upstream_issuers:report_upstreams"),
    find_remote_issues=late("notifier.features.upstreams.doctor_upstreams:find_remote_issues"),
)
