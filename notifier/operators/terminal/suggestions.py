"""Hints at what an unknown client or issuer most likely meant, by the present registry, for commands that list them."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from notifier.configuration.clients.clients_file import load_registry
from notifier.configuration.clients.source_reading import DirectReader
from notifier.configuration.configured_feature import ConfiguredFeature, settings_model
from notifier.model.errors import ConfigurationError
from notifier.model.frozen import frozen
from notifier.model.nearest import UNKNOWN_REASONS, suggest_name
from notifier.model.printable import printable
from notifier.model.registry import Registry
from notifier.operators.terminal.output import say
from notifier.settings.config_file import load_settings
from notifier.settings.service_settings import Settings

_MAX_NAMES = 20  # hints of one list


def make_suggester(
    config: Path | None, features: Sequence[ConfiguredFeature], *, known: str
) -> Callable[[str, str], str | None]:
    """Return the function that suggests a name for an issuer and client. `known`: the text for a name registered since.

    Sources that are not files are not asked; their caches are read instead.
    """
    known_here = load_known_registry(config, features)
    if known_here is None:
        return lambda _iss, _client_id: None
    registry = known_here.registry
    return lambda iss, client_id: _find_hint(registry, iss, client_id, known)


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


def print_suggestions(
    config: Path | None, features: Sequence[ConfiguredFeature], listed: Sequence[tuple[str, str, str]], *, known: str
) -> None:
    """Print a hint for each of the first few unknown names of a list, by reason, issuer and client."""
    unknown = [(iss, client_id) for reason, iss, client_id in listed if reason in UNKNOWN_REASONS][:_MAX_NAMES]
    if not unknown:
        return
    hint_for = make_suggester(config, features, known=known)
    for iss, client_id in unknown:
        if hint := hint_for(iss, client_id):
            say(printable(f"{client_id or iss}: {hint}"))


def _find_hint(registry: Registry, iss: str, client_id: str, known: str) -> str | None:
    hint = suggest_name(iss, client_id, registry, if_registered=known)
    return None if hint is None else hint.text
