"""Builds the reader of a registry source. Each kind is imported only where it is used: some need extra libraries."""

from typing import Protocol

from notifier.domain.client_rows import SourceAnswer
from notifier.domain.errors import ConfigurationError, Mistake
from notifier.settings.registry_settings import RegistrySourceSettings


class ClientsReader(Protocol):
    """Reads all clients of one source, as often as it is asked."""

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """Return what the source holds now; `last` itself (the same object) if the source says that nothing changed.

        It runs in a thread and an event loop of its own, so it may block, and it ends by itself within the source's
        `timeout`. Secrets are read from their files each time. Raises SourceFault.
        """


def build_reader(source: RegistrySourceSettings) -> ClientsReader:
    """Return the reader of a source that is not a file."""
    match source.kind:
        case "sql":
            return _sql_reader(source)
        case "keycloak":
            from notifier.adapters.registries.keycloak_reader import KeycloakReader  # noqa: PLC0415

            return KeycloakReader(source)
        case "hydra":
            from notifier.adapters.registries.hydra import HydraReader  # noqa: PLC0415

            return HydraReader(source)
        case "http":
            from notifier.adapters.registries.http_list import HttpListReader  # noqa: PLC0415

            return HttpListReader(source)
        case "wso2":
            from notifier.adapters.registries.wso2 import Wso2Reader  # noqa: PLC0415

            return Wso2Reader(source)
        case "auth0":
            from notifier.adapters.registries.auth0 import Auth0Reader  # noqa: PLC0415

            return Auth0Reader(source)
        case "authentik":
            from notifier.adapters.registries.authentik import AuthentikReader  # noqa: PLC0415

            return AuthentikReader(source)
        case kind:
            raise ValueError(f"a source of kind {kind} has no reader")


def _sql_reader(source: RegistrySourceSettings) -> ClientsReader:
    try:
        from notifier.adapters.registries.sql import SqlReader  # noqa: PLC0415  SQLAlchemy is an extra
    except ModuleNotFoundError as error:
        text = f"needs {error.name}: pip install 'notifier[postgresql]', or [mysql], [mssql] or [sql] (SQLite)"
        raise ConfigurationError([Mistake(f"registry.sources.{source.called}.sql", text)]) from None
    assert source.sql is not None
    return SqlReader(source.sql, source.timeout, max_answer=source.max_answer)
