"""Finds the secret files of all clients' channels, and channels that contradict each other."""

from collections.abc import Iterator
from pathlib import Path

from notifier.configuration.configured_feature import FeaturePart
from notifier.features.channels.channel_settings import GlobalTokenRevocationSettings, SecurityEventSettings
from notifier.model.client import Client
from notifier.model.errors import InputIssue
from notifier.model.origins import origin_of
from notifier.model.registry import Registry
from notifier.settings.service_settings import Settings


def read_channels(_settings: Settings, registry: Registry, _invalid_sections: frozenset[str]) -> FeaturePart:
    """Return the secret files of channels, and the warnings about them."""
    return FeaturePart(warnings=find_shared_audiences(registry), secrets=dict(secret_files_of(registry)))


def secret_files_of(registry: Registry) -> Iterator[tuple[str, Path]]:
    """Yield the setting and the path of each file with a secret for a token endpoint."""
    for client, settings in _channels_in(registry):
        if isinstance(settings, GlobalTokenRevocationSettings) and settings.proof.secret_file is not None:
            setting = f"client {client.client_id!r}: notifier.channel.global_token_revocation.proof.client_secret"
            yield setting, settings.proof.secret_file


def find_shared_audiences(registry: Registry) -> list[InputIssue]:
    """Return a warning for each client with an audience that another client has at another origin.

    Followers are addresses of their leader, and one origin is one receiver, such as the preset google_workspace.
    """
    first_of: dict[tuple[str, str], tuple[Client, SecurityEventSettings]] = {}
    warnings: dict[str, str] = {}
    for client, settings in _channels_in(registry):
        if not isinstance(settings, SecurityEventSettings):
            continue
        for audience in settings.audience or (settings.uri,):
            first, its = first_of.setdefault((client.iss, audience), (client, settings))
            if first.issued_id != client.issued_id and origin_of(its.uri) != origin_of(settings.uri):
                text = f"is {audience!r}, as of client {first.client_id!r}: both receivers accept a token for either;"
                path = f"client {client.client_id!r}: notifier.channel.security_event.audience"
                warnings[path] = f"{text} give each its own, or let one follow the other if they are one client"
    return [InputIssue(path, text) for path, text in warnings.items()]


def _channels_in(registry: Registry) -> Iterator[tuple[Client, object]]:
    """Yield each client with a channel, and the channel's settings."""
    for clients in registry.clients.values():
        for client in clients.values():
            if client.channel is not None:
                yield client, client.channel.settings
