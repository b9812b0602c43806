"""Build the reader of a registry source that is not a file."""

from functools import partial

from notifier.configuration.clients.client_rows import ClientsReader, ValidatingReader
from notifier.features.registries.auth0 import Auth0Tenant
from notifier.features.registries.authentik import collect_authentik
from notifier.features.registries.http_list import collect_http_list
from notifier.features.registries.hydra import collect_hydra
from notifier.features.registries.keycloak_reader import KeycloakSettings, collect_keycloak
from notifier.features.registries.list_settings import (
    Auth0Settings,
    AuthentikSettings,
    HttpListSettings,
    HydraSettings,
    Wso2Settings,
)
from notifier.features.registries.page_requests import WebReader
from notifier.features.registries.sql_settings import SqlSettings
from notifier.features.registries.wso2 import Wso2Server
from notifier.model.errors import ConfigurationError, InputIssue
from notifier.settings.registry_settings import RegistrySourceSettings


def build_validating_reader(source: RegistrySourceSettings) -> ClientsReader:
    """Return a reader of the source that checks its answers."""
    return ValidatingReader(build_reader(source), source)


def build_reader(source: RegistrySourceSettings) -> ClientsReader:
    """Return the reader of a source. Raises ConfigurationError if its library is not installed."""
    settings, within = getattr(source, source.kind), source.timeout
    match settings:
        case KeycloakSettings():
            return WebReader(partial(collect_keycloak, settings, source.issuer), settings.tls, within)
        case HydraSettings():
            return WebReader(partial(collect_hydra, settings), settings.tls, within)
        case HttpListSettings():
            return WebReader(partial(collect_http_list, settings), settings.tls, within)
        case Wso2Settings():
            return WebReader(Wso2Server(settings).collect, settings.tls, within)
        case Auth0Settings():
            return WebReader(Auth0Tenant(settings).collect, None, within)
        case AuthentikSettings():
            return WebReader(partial(collect_authentik, settings), settings.tls, within)
    try:
        from notifier.features.registries.sql import SqlReader  # noqa: PLC0415  SQLAlchemy is an extra
    except ModuleNotFoundError as error:
        text = f"needs {error.name}: pip install 'logout-notifier[postgresql]', or [mysql], [mssql] or [sql] (SQLite)"
        raise ConfigurationError([InputIssue(f"registry.sources.{source.source_name}.sql", text)]) from None
    return SqlReader(source.of_kind(SqlSettings), within)
