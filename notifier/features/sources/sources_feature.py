"""The feature `sources`: events that other servers publish in their own formats."""

from __future__ import annotations

from contextlib import aclosing

from notifier.feature import Feature, FeatureContext, FeatureRuntime, late
from notifier.model.defaults import MAX_EVENT
from notifier.model.ids import new_id


def _run(context: FeatureContext) -> FeatureRuntime:
    from notifier.features.sources.http_sources import HttpSources
    from notifier.features.sources.source_intake import SourceIntake
    from notifier.features.sources.source_settings import sources_of
    from notifier.features.sources.sources_part import SourcesPart
    from notifier.model.documents.sourced import EVENT_SOURCES

    live = context.live
    sources = HttpSources(live, context.queue.publish, once=context.once)
    intake = SourceIntake(
        lambda: live.current.part(SourcesPart).sources, new_id=new_id, max_event=MAX_EVENT, observe=context.observe
    )
    routes = sources.routes
    return FeatureRuntime(
        api=routes.routes(),
        families=routes.families,
        readers={EVENT_SOURCES: intake},
        list_sources=lambda: sources_of(live.current.settings),
        lifespan=aclosing(sources),
    )


SOURCES = Feature(
    name="sources",
    sections={"sources": "notifier.features.sources.source_settings:SourceSettings"},
    read=late("notifier.features.sources.sources_part:read_sources"),
    bindings=late("notifier.features.sources.sources_part:bindings_in_document"),
    read_again=late("notifier.features.sources.source_intake:readers_of"),
    run=_run,
    checks=late("notifier.features.sources.doctor_sources:source_checks"),
    report=late("notifier.features.sources.sources_part:report_sources"),
    commands=(
        ("sources", "notifier.features.sources.sources_command",
            "Try what a document of a source becomes."),
    ),
)  # fmt: skip
