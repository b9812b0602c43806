"""Loads the registry for commands on messages, from files and caches, without a query of registry sources.

If such a command finds no messages for a client that is unknown, it exits with 1: the client ID may be mistyped.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from notifier.configuration.clients.clients_file import load_registry
from notifier.configuration.clients.source_reading import DirectReader
from notifier.configuration.configured_feature import ConfiguredFeature, settings_model
from notifier.model.client import Client, ClientKey
from notifier.model.errors import ConfigurationError
from notifier.model.nearest import suggest_client
from notifier.model.printable import printable
from notifier.model.record import record
from notifier.model.registry import Registry
from notifier.network.http.issuer_document import find_only_issuer
from notifier.operators.terminal.output import say
from notifier.settings.config_file import PartialSettings, load_settings
from notifier.settings.service_settings import Settings


@record
class KnownRegistry:
    """The registry from files and caches. `unread` has the sources without a cache, whose clients are missing."""

    settings: Settings
    registry: Registry
    unread: Sequence[str]


@record
class NamedClient:
    """The client that a command names by its ID or an alias. `client`: None if the registry, as known, lacks it.

    Without a registry that can be read, `known` is None and `registry` is empty.
    """

    key: ClientKey
    client: Client | None
    registry: Registry
    known: KnownRegistry | None


def load_known_registry(config: Path | None, features: Sequence[ConfiguredFeature]) -> KnownRegistry | None:
    """Return the registry from files and caches; None without a configuration that can be read."""
    if config is None:
        return None
    reader = DirectReader(None)
    try:
        settings = load_settings(config, os.environ, settings_model(features))
        registry = load_registry(settings, reader)
    except ConfigurationError:  # `notifier check` reports it
        return None
    remote_sources = (source.source_name for source in settings.registry.all_sources if source.file is None)
    unread = tuple(name for name in remote_sources if name not in reader.cached)
    return KnownRegistry(settings=settings, registry=registry, unread=unread)


def find_client(
    part: PartialSettings, config: Path | None, features: Sequence[ConfiguredFeature], members: Mapping[str, Any]
) -> NamedClient:
    """Return the client that the command's options name. Raises BadParameter if the issuer is missing.

    Without `iss` it is the only issuer of the configuration; issuers of test sign-outs do not count.
    """
    if (iss := members.get("iss") or find_only_issuer(part.issuers)) is None:
        text = f": there are {', '.join(sorted(part.issuers))}" if part.issuers else ", whose client it is"
        raise typer.BadParameter(f"give the issuer{text}", param_hint="--iss")
    known = load_known_registry(config, features)
    registry = Registry() if known is None else known.registry
    client = registry.resolve(iss, members["client_id"], None)
    key = (iss, members["client_id"]) if client is None else client.key
    return NamedClient(key=key, client=client, registry=registry, known=known)


def end_if_unknown(
    config: Path | None, features: Sequence[ConfiguredFeature], client_id: str | None, iss: str | None
) -> None:
    """Exit with 1 if the registry does not have the client. `client_id`: None if the command selects no client.

    Return if that is uncertain: the configuration cannot be read, a registry source has no cache, or events may contain
    the addresses of unregistered clients.
    """
    if client_id is not None:
        end_if_missing(load_known_registry(config, features), client_id, iss)


def end_if_missing(
    known: KnownRegistry | None, client_id: str, iss: str | None, *, registered_only: bool = False
) -> None:
    """Do the same for a registry that is loaded. `registered_only`: the client must be in it, and be usable."""
    if known is None:
        return
    settings, registry = known.settings, known.registry
    issuers = tuple(settings.issuers) if iss is None else (iss,)
    if any(registry.resolve(issuer, client_id, None) is not None for issuer in issuers):
        return
    for reason in filter(None, (registry.why_left_out(issuer, client_id) for issuer in issuers)):
        if registered_only:
            say(printable(f"notifier: {client_id} is left out of the registry: {reason}"), err=True)
            raise typer.Exit(1)
        return
    hints = (suggest_client(issuer, client_id, registry) for issuer in issuers)
    text = next(
        (hint.text for hint in hints if hint is not None), "`notifier clients list` lists the registered clients"
    )
    say(printable(f"notifier: unknown client {client_id}: the registry does not have it; {text}"), err=True)
    if known.unread:
        say(f"the clients of {', '.join(known.unread)} are unknown to this command", err=True)
    elif registered_only or not _accepts_inline_addresses(settings, issuers):
        raise typer.Exit(1)


def _accepts_inline_addresses(settings: Settings, issuers: tuple[str, ...]) -> bool:
    """Return True if some publisher may send addresses in events, so that unregistered clients are notified."""
    if settings.registry.inline != "publishers":
        return settings.registry.inline == "allow"
    # Publishers are identified by API tokens, or by `publishers` of the issuer.
    has_api_publishers = settings.api is not None and settings.api.tokens_file is not None
    return has_api_publishers or any(iss in settings.issuers and settings.issuers[iss].publishers for iss in issuers)
