"""The feature `browsers`: pages by which a browser asks clients, and clients ask for their session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.feature import Feature

if TYPE_CHECKING:
    from notifier.features.browsers.web_keys import PagesPart
    from notifier.model.registry import Registry
    from notifier.settings.service_settings import Settings


def _read(settings: Settings, registry: Registry, _unsure: frozenset[str]) -> PagesPart:
    from notifier.features.browsers.web_keys import read_pages

    return read_pages(settings, registry)


BROWSERS = Feature(name="browsers", read=_read)
