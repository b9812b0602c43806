"""The feature `registries`: clients from databases and identity servers."""

from notifier.feature import Feature, late

_KINDS = {
    "sql": "notifier.features.registries.list_settings:SqlSettings",
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
    registry_kinds=dict.fromkeys(_KINDS, late("notifier.features.registries.readers:build_validating_reader")),
)
