"""The feature `browsers`: front-channel logout pages, check-session pages and sign-outs."""

from __future__ import annotations

from notifier.feature import Feature, FeatureContext, FeatureRuntime, late


def _run(context: FeatureContext) -> FeatureRuntime:
    from notifier.features.browsers.front_channel_counts import FrontChannelCounts
    from notifier.features.browsers.sign_out_routes import SignOutRoutes
    from notifier.features.browsers.web_pages import WebPages

    counts = FrontChannelCounts(context.label_of)
    web_pages = WebPages(context.live, counts)
    sign_outs = SignOutRoutes(context.requests, web_pages.keys, web_pages.settings_of, web_pages.supplied)
    return FeatureRuntime(
        api=sign_outs.routes(), pages=web_pages.routes(), families=counts.families, page=web_pages.page_of
    )


BROWSERS = Feature(
    name="browsers",
    sections={"web": "notifier.features.browsers.web_settings:WebSettings"},
    read=late("notifier.features.browsers.web_keys:read_pages"),
    run=_run,
    checks=late("notifier.features.browsers.doctor_pages:page_checks"),
)
