"""The feature `sources`: events come in the words of their own servers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from notifier.feature import Feature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from notifier.features.sources.sources_part import SourcesPart
    from notifier.model.documents.sourced import ReadAgain
    from notifier.model.message import Binding
    from notifier.model.registry import Registry
    from notifier.settings.service_settings import Settings


def _read(settings: Settings, _registry: Registry, unsure: frozenset[str]) -> SourcesPart:
    from notifier.features.sources.sources_part import read_sources

    return read_sources(settings, unsure)


def _bindings(document: Mapping[str, Any]) -> tuple[Binding, ...]:
    from notifier.features.sources.sources_part import bindings_in_document

    return bindings_in_document(document)


def _readers(settings: Settings | None) -> Mapping[str, ReadAgain]:
    from notifier.features.sources.event_sources import compile_sources
    from notifier.features.sources.sourced_intake import read_again
    from notifier.model.documents.sourced import Anew

    if settings is None:
        return {"": lambda message, _only, _now: Anew(message=message)}
    return {"": partial(read_again, compile_sources(settings)[0], settings.queue.max_event)}


SOURCES = Feature(name="sources", read=_read, bindings=_bindings, readers=_readers)
