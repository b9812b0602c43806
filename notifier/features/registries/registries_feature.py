"""The feature `registries`: clients that come from databases and from the servers that know them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.feature import Feature

if TYPE_CHECKING:
    from notifier.configuration.clients.client_rows import ClientsReader
    from notifier.settings.registry_settings import RegistrySourceSettings


def _reader(source: RegistrySourceSettings) -> ClientsReader:
    from notifier.features.registries.readers import build_believed

    return build_believed(source)


_KINDS = ("sql", "keycloak", "hydra", "http", "wso2", "auth0", "authentik")
REGISTRIES = Feature(name="registries", registry_kinds=dict.fromkeys(_KINDS, _reader))
