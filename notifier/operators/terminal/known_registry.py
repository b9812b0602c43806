"""Loads the registry for commands that do not query its sources.

A command that found nothing for an unknown client ends with 1, so that a typing error does not look like good news.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import typer

from notifier.configuration.clients.clients_file import load_registry
from notifier.configuration.clients.source_reading import DirectReader
from notifier.configuration.configured_feature import ConfiguredFeature, settings_model
from notifier.model.errors import ConfigurationError
from notifier.model.frozen import frozen
from notifier.model.nearest import suggest_client
from notifier.model.printable import printable
from notifier.model.registry import Registry
from notifier.operators.terminal.output import say
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
    lists = (source.source_name for source in settings.registry.all_sources if source.file is None)
    unread = tuple(name for name in lists if name not in read.cached)
    return KnownRegistry(settings=settings, registry=registry, unread=unread)


def end_if_unknown(
    config: Path | None, features: Sequence[ConfiguredFeature], client_id: str | None, iss: str | None
) -> None:
    """Exit with 1 if the client is not in the registry.

    Returns if events may register clients inline, if clients of a source are unknown here, or if the configuration
    cannot be read.
    """
    if client_id is None or (known := load_known_registry(config, features)) is None:
        return
    settings, registry = known.settings, known.registry
    issuers = tuple(settings.issuers) if iss is None else (iss,)
    if any(_is_registered(registry, issuer, client_id) for issuer in issuers):
        return
    hints = (suggest_client(issuer, client_id, registry) for issuer in issuers)
    text = next((hint.text for hint in hints if hint is not None), "`notifier clients` lists those of the registry")
    say(printable(f"notifier: unknown client {client_id}: the registry does not have it; {text}"), err=True)
    if known.unread:
        say(f"the clients of {', '.join(known.unread)} are unknown to this command", err=True)
    elif not _events_bring_clients(settings, issuers):
        raise typer.Exit(1)


def _is_registered(registry: Registry, iss: str, client_id: str) -> bool:
    """Return True if the registry has the client under a name or alias, or skipped it because of an error."""
    return registry.resolve(iss, client_id, None) is not None or registry.why_left_out(iss, client_id) is not None


def _events_bring_clients(settings: Settings, issuers: tuple[str, ...]) -> bool:
    """Return True if an event's inline address may count, so that unregistered clients can be notified."""
    if settings.registry.inline != "publishers":
        return settings.registry.inline == "allow"
    vouched = settings.api is not None and settings.api.tokens_file is not None
    return vouched or any(iss in settings.issuers and settings.issuers[iss].publishers for iss in issuers)
