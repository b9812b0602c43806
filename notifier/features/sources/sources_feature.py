"""The feature `sources`: events that other servers publish in their own formats."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from notifier.feature import Feature, FeatureContext, FeatureReport, FeatureRuntime
from notifier.model.defaults import MAX_EVENT
from notifier.model.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from notifier.configuration.loading import LoadedConfiguration
    from notifier.features.sources.sources_part import SourcesPart
    from notifier.model.documents.sourced import ReadAgain
    from notifier.model.message import Binding
    from notifier.model.registry import Registry
    from notifier.network.http.issuer_documents import DocumentReader
    from notifier.operators.doctor.doctor import Check
    from notifier.settings.service_settings import Settings


def _read(settings: Settings, _registry: Registry, invalid_sections: frozenset[str]) -> SourcesPart:
    from notifier.features.sources.sources_part import read_sources

    return read_sources(settings, invalid_sections)


def _bindings(document: Mapping[str, Any]) -> tuple[Binding, ...]:
    from notifier.features.sources.sources_part import bindings_in_document

    return bindings_in_document(document)


def _read_again(settings: Settings | None) -> Mapping[str, ReadAgain]:
    from notifier.features.sources.source_compiler import compile_sources
    from notifier.features.sources.source_intake import read_again
    from notifier.model.documents.sourced import EVENT_SOURCES, RereadMessage

    if settings is None:
        return {EVENT_SOURCES: lambda message, _only, _now: RereadMessage(message=message)}
    return {EVENT_SOURCES: partial(read_again, compile_sources(settings)[0], MAX_EVENT)}


def _run(context: FeatureContext) -> FeatureRuntime:
    from notifier.features.sources.http_sources import HttpSources
    from notifier.features.sources.source_intake import SourceIntake
    from notifier.features.sources.sources_part import SourcesPart
    from notifier.model.documents.sourced import EVENT_SOURCES

    live = context.live
    sources = HttpSources(live, context.queue.publish)
    intake = SourceIntake(lambda: live.current.part(SourcesPart).sources, new_id=new_id, max_event=MAX_EVENT)
    routes = sources.routes
    return FeatureRuntime(
        api=routes.routes(), families=routes.families, readers={EVENT_SOURCES: intake}, lifespan=aclosing(sources)
    )


def _checks(loaded: LoadedConfiguration, reader: DocumentReader) -> Iterable[Check]:
    from notifier.features.sources.doctor_sources import source_checks

    return source_checks(loaded.settings, reader)


def _report(loaded: LoadedConfiguration) -> FeatureReport:
    from notifier.features.sources.source_settings import sources_of, warn_open_exchanges
    from notifier.features.sources.sources_part import SourcesPart

    speakers = {name: list(source.speaks_for) for name, source in loaded.part(SourcesPart).sources.items()}
    return FeatureReport(
        members={"sources": {name: {"speaks_for": issuers} for name, issuers in speakers.items()}},
        lines=[f"source {name}: may end sessions at {', '.join(issuers)}" for name, issuers in speakers.items()],
        warnings=warn_open_exchanges(sources_of(loaded.settings)),
    )


SOURCES = Feature(
    name="sources",
    sections={"sources": "notifier.features.sources.source_settings:SourceSettings"},
    read=_read,
    bindings=_bindings,
    read_again=_read_again,
    run=_run,
    checks=_checks,
    report=_report,
    commands=(
        ("sources", "notifier.features.sources.sources_command",
            "Try what a document of a source becomes."),
    ),
)  # fmt: skip
