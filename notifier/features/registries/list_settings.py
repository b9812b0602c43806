"""The settings of registry sources other than Keycloak: Hydra, WSO2, Auth0, authentik, a list at a URL, a database."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from notifier.network.databases.database_url import DatabaseUrl
from notifier.settings.choices import find_choice_errors
from notifier.settings.clients import HeaderName, HeaderValue
from notifier.settings.remote_server import HEADERS, HeaderServerSettings, RemoteServerSettings, server_address
from notifier.settings.secret_text import SecretPath
from notifier.settings.values import Name, Section, WebAddress, is_in_clear, refuse_user

ServerAddress = Annotated[
    WebAddress,
    server_address(
        "/admin/clients", "/api/v2", "/api/v3", "/api/server/v1", instead="give headers: {Authorization: {file: PATH}}"
    ),
]


class HydraSettings(HeaderServerSettings):
    """Ory Hydra's clients, by its admin API."""

    _address: ClassVar[str] = "admin_url"

    admin_url: ServerAddress
    """The address of the admin API, such as http://hydra-admin:4445."""


class Wso2Settings(RemoteServerSettings):
    """WSO2 Identity Server's applications, by its API."""

    gone: ClassVar[Mapping[str, str]] = {
        "recheck": "is gone: it is 10m now",
        **dict.fromkeys(("username", "password_file"), "is gone: give headers: {Authorization: {file: PATH}}"),
    }

    url: ServerAddress
    """The server's address, with its tenant if any: https://is.example.com/t/acme."""
    headers: dict[HeaderName, HeaderValue] | None = Field(None, repr=False, description=HEADERS)

    @model_validator(mode="after")
    def _check_credentials(self) -> Self:
        if "authorization" not in {name.lower() for name in self.headers or ()}:
            raise ValueError("needs headers with Authorization")
        return self


def _check_tenant_url(url: str) -> str:
    if is_in_clear(url):
        raise ValueError("must begin with https://, since our credentials are sent there")
    return url


class Auth0Settings(Section):
    """A tenant's applications, by Auth0's Management API."""

    gone: ClassVar[Mapping[str, str]] = {
        "allow_http": "is gone: Auth0 is reached by https alone",
        "tls": "is gone: Auth0's certificate is verified with the system's authorities (the variable SSL_CERT_FILE)",
    }

    url: Annotated[ServerAddress, AfterValidator(_check_tenant_url)]
    """The tenant's own address, such as https://acme.eu.auth0.com; not a custom domain."""
    client_id: Name = Field(min_length=1)
    """A machine-to-machine application with the scope read:clients."""
    client_secret_file: SecretPath
    """A file with its secret. It is read each time."""


class AuthentikSettings(RemoteServerSettings):
    """authentik's OAuth2 providers, by its API."""

    url: ServerAddress
    """authentik's address, such as https://auth.example.com."""
    token_file: SecretPath
    """A file with an API token. It is read each time."""


class HttpListSettings(HeaderServerSettings):
    """A list of client metadata at an address."""

    url: Annotated[WebAddress, AfterValidator(refuse_user)]
    """The address. JSON: a list of client metadata, or `{clients: […]}`."""


class DuendeTables(Section):
    """The names of the tables, if they differ from Duende's."""

    clients: str = Field("Clients", alias="Clients", min_length=1)
    """The clients."""
    properties: str = Field("ClientProperties", alias="ClientProperties")
    """Their properties. Empty: not read."""
    redirect_uris: str = Field("ClientRedirectUris", alias="ClientRedirectUris")
    """Their redirect URIs. Empty: not read."""


class SqlSettings(Section):
    """A database, by SQLAlchemy. Exactly one of `url` and `url_file` is given, and one of `preset` and `query`."""

    url: DatabaseUrl | None = None
    """`postgresql://…`, `mysql://…`, `mariadb://…`, `mssql://…` or `sqlite:///PATH`."""
    url_file: SecretPath | None = None
    """A file with the URL. It is read each time."""
    preset: Literal["duende"] | None = None
    """The tables of a known server: `duende` (also IdentityServer4)."""
    query: str | None = Field(None, min_length=1)
    """A SELECT whose columns bear the names of client metadata."""
    db_schema: str | None = Field(None, alias="schema", min_length=1)
    """The schema of the preset's tables. Left out: the user's own."""
    tables: DuendeTables | None = None
    """The preset's name of a table → yours."""
    columns: Literal["all", "some"] = "all"
    """`some`: `Clients` is a view that may leave columns and the other tables out."""

    row_security: bool = False
    """PostgreSQL's row-level security decides which clients there are. Else a row that it hides fails the reading."""

    @model_validator(mode="after")
    def _check_alternatives(self) -> Self:
        errors = find_choice_errors(self, ("url", "url_file"), ("preset", "query"))
        if self.query is not None:
            of_presets = {"schema": self.db_schema, "tables": self.tables, "columns": self.columns == "some" or None}
            options = [name for name, value in of_presets.items() if value is not None]
            errors += [f"{name} is for a preset; name the tables in query" for name in options]
        if errors:
            raise ValueError("; ".join(errors))
        return self
