"""The feature `upstreams`: ends the local sessions of users who signed out at an upstream OpenID Provider."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from notifier.feature import Feature, FeatureContext, FeatureReport, FeatureRuntime
from notifier.model.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from notifier.configuration.configured_feature import FeaturePart
    from notifier.configuration.loading import LoadedConfiguration
    from notifier.model.documents.sourced import ReadAgain
    from notifier.model.errors import InputIssue
    from notifier.model.registry import Registry
    from notifier.network.http.issuer_documents import DocumentReader
    from notifier.operators.doctor.doctor import Check
    from notifier.settings.service_settings import Settings


def _read(settings: Settings, _registry: Registry, invalid_sections: frozenset[str]) -> FeaturePart:
    from notifier.configuration.configured_feature import FeaturePart
    from notifier.features.upstreams.upstream_issuers import check_upstreams, upstream_warnings

    return FeaturePart(mistakes=check_upstreams(settings, invalid_sections), warnings=upstream_warnings(settings))


def _read_again(_settings: Settings | None) -> Mapping[str, ReadAgain]:
    from notifier.features.upstreams.upstream_intake import read_again

    return {"upstream": read_again}


def _run(context: FeatureContext) -> FeatureRuntime:
    from notifier.features.upstreams.configured_upstreams import ConfiguredUpstreams
    from notifier.features.upstreams.upstream_intake import FactObserver, UpstreamIntake
    from notifier.features.upstreams.upstream_record import UpstreamRecord
    from notifier.features.upstreams.upstream_routes import UpstreamRoutes
    from notifier.features.upstreams.upstream_sign_outs import SignOutPage, UpstreamSignOutRoutes

    record, observe = UpstreamRecord(), context.need(FactObserver)
    upstreams = ConfiguredUpstreams(context.live, record)
    find, publish, registry = upstreams.find_upstream, context.queue.publish, context.live.registry
    routes = UpstreamRoutes(find, publish, record.on_request)
    sign_outs = UpstreamSignOutRoutes(find, publish, record.on_request, context.need(SignOutPage), registry)
    intake = UpstreamIntake(find, registry, clock=time.time, new_id=new_id, observe=observe)
    return FeatureRuntime(
        pages=[*routes.routes(), *sign_outs.routes()],
        observe=record.observe,
        families=record.families,
        readers={"upstream": intake},
        lifespan=aclosing(upstreams),
    )


def _checks(loaded: LoadedConfiguration, reader: DocumentReader) -> Iterable[Check]:
    from notifier.features.upstreams.doctor_upstreams import upstream_checks

    return upstream_checks(loaded.settings, reader)


def _report(loaded: LoadedConfiguration) -> FeatureReport:
    from notifier.features.upstreams.upstream_issuers import report_upstreams

    return report_upstreams(loaded.settings)


def _find_remote_issues(loaded: LoadedConfiguration) -> Sequence[InputIssue]:
    from notifier.features.upstreams.upstream_settings import upstreams_of

    if all(upstream.resolve.sql is None for upstream in upstreams_of(loaded.settings).values()):
        return ()
    import asyncio

    from notifier.features.upstreams.doctor_upstreams import check_session_databases

    return asyncio.run(check_session_databases(loaded.settings))


UPSTREAMS = Feature(
    name="upstreams",
    sections={"upstreams": "notifier.features.upstreams.upstream_settings:UpstreamSettings"},
    needs=(
        "notifier.features.upstreams.upstream_intake:FactObserver",
        "notifier.features.upstreams.upstream_sign_outs:SignOutPage",
    ),
    read=_read,
    read_again=_read_again,
    run=_run,
    checks=_checks,
    report=_report,
    find_remote_issues=_find_remote_issues,
)
