"""The feature `feed`: publishes the results of deliveries to audit systems."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from notifier.feature import Feature, FeatureContext, FeatureRuntime
from notifier.model.ids import new_id

if TYPE_CHECKING:
    from notifier.configuration.configured_feature import FeaturePart
    from notifier.model.registry import Registry
    from notifier.settings.service_settings import Settings


def _read(settings: Settings, _registry: Registry, _invalid: frozenset[str]) -> FeaturePart:
    from notifier.configuration.configured_feature import FeaturePart

    return FeaturePart(fixed={"outcomes": settings.outcomes})


def _run(context: FeatureContext) -> FeatureRuntime:
    from notifier.features.feed.feed import Feed
    from notifier.features.feed.feed_event import feed_message

    outcomes = context.live.current.settings.outcomes
    feed = Feed(include_successes=outcomes == "all", clock=time.time, new_id=new_id)
    if outcomes == "off":
        return FeatureRuntime(families=feed.families)
    lifespan = feed.connect(context.queue.feed_target(feed_message))
    return FeatureRuntime(observe=feed.observe, families=feed.families, lifespan=lifespan)


def _schema() -> dict[str, Any]:
    from notifier.features.feed.feed_event import feed_schema

    return feed_schema()


FEED = Feature(name="feed", read=_read, run=_run, schemas={"outcome": _schema})
