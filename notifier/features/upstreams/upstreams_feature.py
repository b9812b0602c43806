"""The feature `upstreams`: sessions end here that ended at an upstream OpenID Provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.feature import Feature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from notifier.configuration.configured_feature import Part
    from notifier.model.documents.sourced import ReadAgain
    from notifier.model.registry import Registry
    from notifier.settings.service_settings import Settings


def _read(settings: Settings, _registry: Registry, unsure: frozenset[str]) -> Part:
    from notifier.configuration.configured_feature import Part
    from notifier.features.upstreams.upstream_issuers import upstream_mistakes, upstream_warnings

    return Part(mistakes=upstream_mistakes(settings, unsure), warnings=upstream_warnings(settings))


def _readers(_settings: Settings | None) -> Mapping[str, ReadAgain]:
    from notifier.features.upstreams.upstream_intake import read_again

    return {"upstream": read_again}


UPSTREAMS = Feature(name="upstreams", read=_read, readers=_readers)
