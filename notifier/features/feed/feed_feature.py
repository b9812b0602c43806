"""The feature `feed`: audit systems hear the fates of deliveries, and the report counts them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from notifier.feature import Feature, Given, Running
from notifier.model.ids import new_id

if TYPE_CHECKING:
    from notifier.configuration.configured_feature import Part
    from notifier.model.registry import Registry
    from notifier.settings.service_settings import Settings


def _read(settings: Settings, _registry: Registry, _unsure: frozenset[str]) -> Part:
    from notifier.configuration.configured_feature import Part

    return Part(fixed={"outcomes": settings.outcomes})


def _run(given: Given) -> Running:
    from notifier.features.feed.feed import Feed
    from notifier.features.feed.feed_event import feed_message

    outcomes = given.live.now.settings.outcomes
    feed = Feed(everything=outcomes == "all", clock=time.time, new_id=new_id)
    if outcomes == "off":
        return Running(families=feed.families)
    within = feed.running(given.queue.feed_target(feed_message))
    return Running(observe=feed.observe, families=feed.families, within=within)


def _schema() -> dict[str, Any]:
    from notifier.features.feed.feed_event import feed_schema

    return feed_schema()


FEED = Feature(
    name="feed",
    read=_read,
    run=_run,
    commands=(
        ("report", "notifier.features.feed.report_command",
            "Show what share of logouts arrived at each client, how soon, and what went wrong."),
        ("collect", "notifier.features.feed.collect_command",
            "Read outcomes from RabbitMQ into a file for `report`, until SIGTERM or SIGINT."),
    ),
    schemas={"outcome": _schema},
)  # fmt: skip
