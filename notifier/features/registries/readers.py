"""Build the reader of a registry source that is not a file."""

from collections.abc import Callable, Mapping

from notifier.configuration.clients.client_rows import ClientsReader
from notifier.features.registries.auth0 import Auth0Reader
from notifier.features.registries.authentik import AuthentikReader
from notifier.features.registries.http_list import HttpListReader
from notifier.features.registries.hydra import HydraReader
from notifier.features.registries.keycloak_reader import KeycloakReader
from notifier.features.registries.sql_settings import SqlSettings
from notifier.features.registries.wso2 import Wso2Reader
from notifier.model.errors import ConfigurationError, InputIssue
from notifier.settings.registry_settings import RegistrySourceSettings

_READERS: Mapping[str, Callable[[RegistrySourceSettings], ClientsReader]] = {
    "keycloak": KeycloakReader,
    "hydra": HydraReader,
    "http": HttpListReader,
    "wso2": Wso2Reader,
    "auth0": Auth0Reader,
    "authentik": AuthentikReader,
}


def build_reader(source: RegistrySourceSettings) -> ClientsReader:
    """Return the reader of a source. Raises ConfigurationError if its library is not installed."""
    if source.kind != "sql":
        return _READERS[source.kind](source)
    try:
        from notifier.features.registries.sql import SqlReader  # noqa: PLC0415  SQLAlchemy is an extra
    except ModuleNotFoundError as error:
        text = f"needs {error.name}: pip install 'logout-notifier[postgresql]', or [mysql], [mssql] or [sql] (SQLite)"
        raise ConfigurationError([InputIssue(f"registry.sources.{source.source_name}.sql", text)]) from None
    return SqlReader(source.of_kind(SqlSettings), source.timeout)
