"""The sections of features. No other module of the core names features: to delete a feature, delete its lines here.

The module re-exports classes, and does nothing else. The other list of features is `notifier.features.FEATURES`.
"""

from notifier.features.browsers.web_settings import WebSettings
from notifier.features.console.console_settings import ConsoleSettings
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
from notifier.features.sources.source_settings import SourceSettings
from notifier.features.upstreams.upstream_settings import UpstreamSettings

__all__ = [
    "Auth0Settings",
    "AuthentikSettings",
    "AwsKmsSettings",
    "AzureKeySettings",
    "ConsoleSettings",
    "GoogleKmsSettings",
    "HttpListSettings",
    "HydraSettings",
    "KeycloakSettings",
    "SourceSettings",
    "SqlSettings",
    "UpstreamSettings",
    "VaultKeySettings",
    "WebSettings",
    "Wso2Settings",
]
