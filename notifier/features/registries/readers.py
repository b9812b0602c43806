"""Builds the reader of a registry source. Each kind is imported only where it is used: some need extra libraries."""

from notifier.configuration.clients.client_rows import ClientsReader
from notifier.model.errors import ConfigurationError, Mistake
from notifier.settings.registry_settings import RegistrySourceSettings


def build_reader(source: RegistrySourceSettings) -> ClientsReader:
    """Return the reader of a source that is not a file."""
    match source.kind:
        case "sql":
            return _sql_reader(source)
        case "keycloak":
            from notifier.features.registries.keycloak_reader import KeycloakReader  # noqa: PLC0415

            return KeycloakReader(source)
        case "hydra":
            from notifier.features.registries.hydra import HydraReader  # noqa: PLC0415

            return HydraReader(source)
        case "http":
            from notifier.features.registries.http_list import HttpListReader  # noqa: PLC0415

            return HttpListReader(source)
        case "wso2":
            from notifier.features.registries.wso2 import Wso2Reader  # noqa: PLC0415

            return Wso2Reader(source)
        case "auth0":
            from notifier.features.registries.auth0 import Auth0Reader  # noqa: PLC0415

            return Auth0Reader(source)
        case "authentik":
            from notifier.features.registries.authentik import AuthentikReader  # noqa: PLC0415

            return AuthentikReader(source)
        case kind:
            raise ValueError(f"a source of kind {kind} has no reader")


def _sql_reader(source: RegistrySourceSettings) -> ClientsReader:
    try:
        from notifier.features.registries.sql import SqlReader  # noqa: PLC0415  SQLAlchemy is an extra
    except ModuleNotFoundError as error:
        text = f"needs {error.name}: pip install 'notifier[postgresql]', or [mysql], [mssql] or [sql] (SQLite)"
        raise ConfigurationError([Mistake(f"registry.sources.{source.called}.sql", text)]) from None
    assert source.sql is not None
    return SqlReader(source.sql, source.timeout, max_answer=source.max_answer)
