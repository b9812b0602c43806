"""The feature `feed`: publishes the results of deliveries to audit systems."""

from __future__ import annotations

import time

from notifier.configuration.configured_feature import FeaturePart
from notifier.feature import Feature, FeatureContext, FeatureRuntime, late
from notifier.model.ids import new_id


def _run(context: FeatureContext) -> FeatureRuntime:
    from notifier.features.feed.feed import Feed
    from notifier.features.feed.feed_event import feed_message

    outcomes = context.live.current.settings.outcomes
    feed = Feed(include_successes=outcomes == "all", clock=time.time, new_id=new_id)
    if outcomes == "off":
        return FeatureRuntime(families=feed.families)
    lifespan = feed.connect(context.queue.feed_target(feed_message))
    return FeatureRuntime(observe=feed.observe, families=feed.families, lifespan=lifespan)


FEED = Feature(
    name="feed",
    read=lambda settings, _registry, _invalid_sections: FeaturePart(fixed={"outcomes": settings.outcomes}),
    run=_run,
    schemas={"outcome": late("notifier.features.feed.feed_event:feed_schema")},
)
