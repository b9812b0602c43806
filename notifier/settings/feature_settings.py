"""The settings of kinds of registry sources and of key places. No other module of the core names features.

The module re-exports classes, and does nothing else. The other list of features is `notifier.features.FEATURES`.
"""

from notifier.features.key_places.cloud_key_settings import AwsKmsSettings, AzureKeySettings, GoogleKmsSettings
from notifier.features.key_places.vault_settings import VaultKeySettings
from notifier.features.registries.keycloak_settings import KeycloakSettings
from notifier.features.registries.list_settings import (
    Auth0Settings,
    AuthentikSettings,
    HttpListSettings,
    HydraSettings,
    Wso2Settings,
)
from notifier.features.registries.sql_settings import SqlSettings

__all__ = [
    "Auth0Settings",
    "AuthentikSettings",
    "AwsKmsSettings",
    "AzureKeySettings",
    "GoogleKmsSettings",
    "HttpListSettings",
    "HydraSettings",
    "KeycloakSettings",
    "SqlSettings",
    "VaultKeySettings",
    "Wso2Settings",
]
