"""Loads the registry for commands that do not query its sources."""

import os
from collections.abc import Sequence
from pathlib import Path

from notifier.configuration.clients.clients_file import load_registry
from notifier.configuration.clients.source_reading import DirectReader
from notifier.configuration.configured_feature import ConfiguredFeature, settings_model
from notifier.model.errors import ConfigurationError
from notifier.model.frozen import frozen
from notifier.model.registry import Registry
from notifier.settings.config_file import load_settings
from notifier.settings.service_settings import Settings


@frozen
class KnownRegistry:
    """The registry as a command knows it, that asks no server. `unread`: sources whose clients it does not know."""

    settings: Settings
    registry: Registry
    unread: Sequence[str]


def load_known_registry(config: Path | None, features: Sequence[ConfiguredFeature]) -> KnownRegistry | None:
    """Return the registry of files and caches; None where no configuration is given, or none that can be read."""
    if config is None:
        return None
    read = DirectReader(None)
    try:
        settings = load_settings(config, os.environ, settings_model(features))
        registry = load_registry(settings, read)
    except ConfigurationError:  # `notifier check` reports it
        return None
    lists = (source.called for source in settings.registry.all_sources if source.file is None)
    unread = tuple(name for name in lists if name not in read.cached)
    return KnownRegistry(settings=settings, registry=registry, unread=unread)
