"""The feature `browsers`: front-channel logout pages, check-session pages and sign-outs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.feature import Feature, FeatureContext, FeatureRuntime

if TYPE_CHECKING:
    from collections.abc import Iterable

    from notifier.configuration.loading import LoadedConfiguration
    from notifier.features.browsers.web_keys import PagesPart
    from notifier.model.registry import Registry
    from notifier.network.http.issuer_documents import DocumentReader
    from notifier.operators.doctor.doctor import Check
    from notifier.settings.service_settings import Settings


def _read(settings: Settings, registry: Registry, _invalid: frozenset[str]) -> PagesPart:
    from notifier.features.browsers.web_keys import read_pages

    return read_pages(settings, registry)


def _run(context: FeatureContext) -> FeatureRuntime:
    from notifier.features.browsers.front_channel_counts import ClientLabels, FrontChannelCounts
    from notifier.features.browsers.sign_out_routes import EventRequestHandler, SignOutRoutes
    from notifier.features.browsers.web_pages import WebPages

    counts = FrontChannelCounts(context.need(ClientLabels).label)
    web_pages = WebPages(context.live, counts)
    requests = context.need(EventRequestHandler)
    sign_outs = SignOutRoutes(requests, web_pages.keys, web_pages.settings_of, web_pages.supplied)
    return FeatureRuntime(
        api=sign_outs.routes(), pages=web_pages.routes(), families=counts.families, page=web_pages.page_of
    )


def _checks(loaded: LoadedConfiguration, reader: DocumentReader) -> Iterable[Check]:
    from notifier.features.browsers.doctor_pages import page_checks

    return page_checks(loaded.settings, reader)


BROWSERS = Feature(
    name="browsers",
    sections={"web": "notifier.features.browsers.web_settings:WebSettings"},
    needs=(
        "notifier.features.browsers.front_channel_counts:ClientLabels",
        "notifier.features.browsers.sign_out_routes:EventRequestHandler",
    ),
    read=_read,
    run=_run,
    checks=_checks,
)
