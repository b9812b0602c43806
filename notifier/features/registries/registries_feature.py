"""The feature `registries`: clients from databases and identity servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.feature import Feature

if TYPE_CHECKING:
    from notifier.configuration.clients.client_rows import ClientsReader
    from notifier.settings.registry_settings import RegistrySourceSettings


def _build_reader(source: RegistrySourceSettings) -> ClientsReader:
    from notifier.configuration.clients.client_rows import ValidatingReader
    from notifier.features.registries.readers import build_reader

    return ValidatingReader(build_reader(source), source)


_KINDS = {
    "sql": "notifier.features.registries.sql_settings:SqlSettings",
    "keycloak": "notifier.features.registries.keycloak_reader:KeycloakSettings",
    "hydra": "notifier.features.registries.list_settings:HydraSettings",
    "http": "notifier.features.registries.list_settings:HttpListSettings",
    "wso2": "notifier.features.registries.list_settings:Wso2Settings",
    "auth0": "notifier.features.registries.list_settings:Auth0Settings",
    "authentik": "notifier.features.registries.list_settings:AuthentikSettings",
}
REGISTRIES = Feature(
    name="registries",
    sections={f"registry.sources.{kind}": section for kind, section in _KINDS.items()},
    registry_kinds=dict.fromkeys(_KINDS, _build_reader),
)
