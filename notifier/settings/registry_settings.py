"""The registry: where clients are read from."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from notifier.domain.registry import Registry
from notifier.settings.clients import ClientOptions, HeaderName, HeaderValue
from notifier.settings.keycloak_settings import KeycloakSettings
from notifier.settings.policies import TlsSettings
from notifier.settings.sql_settings import SqlSettings
from notifier.settings.values import Duration, ExistingFile, IssuerId, Lasting, Section, WebAddress, from_base


class HydraSettings(Section):
    """Ory Hydra's clients, by its admin API."""

    admin_url: WebAddress = Field(description="The address of the admin API.")
    headers: dict[HeaderName, HeaderValue] | None = Field(None, repr=False, description="Further request headers.")
    tls: TlsSettings | None = Field(None, description="TLS to Hydra.")


class Wso2Settings(Section):
    """WSO2 Identity Server's applications, by its API."""

    url: WebAddress = Field(description="The server's address, with its tenant if any.")
    username: str | None = Field(None, description="A user who may read applications.")
    password_file: ExistingFile | None = Field(None, description="A file with that user's password.")
    headers: dict[HeaderName, HeaderValue] | None = Field(None, repr=False, description="Further request headers.")
    tls: TlsSettings | None = Field(None, description="TLS to WSO2.")


class Auth0Settings(Section):
    """A tenant's applications, by Auth0's Management API."""

    url: WebAddress = Field(description="The tenant's address, such as https://acme.eu.auth0.com.")
    client_id: str = Field(min_length=1, description="A machine-to-machine application with the scope read:clients.")
    client_secret_file: ExistingFile = Field(description="A file with its secret.")
    tls: TlsSettings | None = Field(None, description="TLS to Auth0.")


class AuthentikSettings(Section):
    """authentik's OAuth2 providers, by its API."""

    url: WebAddress = Field(description="authentik's address.")
    token_file: ExistingFile = Field(description="A file with an API token.")
    tls: TlsSettings | None = Field(None, description="TLS to authentik.")


class HttpListSettings(Section):
    """A list of client metadata at an address."""

    url: WebAddress = Field(description="The address.")
    headers: dict[HeaderName, HeaderValue] | None = Field(None, repr=False, description="Further request headers.")
    tls: TlsSettings | None = Field(None, description="TLS to the server.")


KINDS = ("file", "sql", "keycloak", "hydra", "wso2", "auth0", "authentik", "http")


class RegistrySourceSettings(Section):
    """A place that clients are read from. Exactly one kind is given."""

    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_.-]{1,60}$", description="Its name in metrics and logs. Left out: its kind."
    )
    issuer: IssuerId | None = Field(None, description="The issuer of its clients, if it does not say it itself.")
    every: Annotated[float, Lasting(above=0.0, most=600.0)] = Field(60.0, description="How often it is read, ± 10 %.")
    timeout: Annotated[float, Lasting(above=0.0, most=600.0)] = Field(30.0, description="Time for one reading.")
    file: ExistingFile | None = Field(None, description="YAML or JSON: a list of client metadata.")
    sql: SqlSettings | None = Field(None, description="A database.")
    keycloak: KeycloakSettings | None = Field(None, description="A realm of Keycloak.")
    hydra: HydraSettings | None = Field(None, description="Ory Hydra.")
    wso2: Wso2Settings | None = Field(None, description="WSO2 Identity Server.")
    auth0: Auth0Settings | None = Field(None, description="Auth0.")
    authentik: AuthentikSettings | None = Field(None, description="authentik.")
    http: HttpListSettings | None = Field(None, description="A list over HTTP.")

    @property
    def kind(self) -> str:
        """Which kind it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def called(self) -> str:
        """Its name."""
        return self.name or self.kind

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            found = f"; it has {' and '.join(given)}" if given else ""
            raise ValueError(f"needs one of {', '.join(KINDS)}{found}")
        return self


class RegistrySettings(Section):
    """The clients."""

    file: ExistingFile | None = Field(None, description="YAML or JSON: a list of client metadata.")
    sources: tuple[RegistrySourceSettings, ...] = Field(
        (), description="Where clients are read from. A later one overrides an earlier one, member by member."
    )
    defaults: dict[IssuerId, ClientOptions] = Field({}, description="Settings for each client of an issuer.")
    cache: Annotated[Path, AfterValidator(from_base)] | None = Field(
        None, description="A folder for the last good answer of each source. Workers start with it if a source is away."
    )
    inline: Literal["allow", "deny"] = Field("allow", description="Whether an event may say how to reach a client.")
    grace: Duration = Field(Registry().grace, description="How long a delivery waits for an unknown client or issuer.")

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.file is not None and self.sources:
            raise ValueError("file and sources are both given; write the file as the last of sources")
        names = [source.called for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are called {twice[0]}; give each a name of its own")
        return self

    @property
    def all_sources(self) -> tuple[RegistrySourceSettings, ...]:
        """The sources, in the order in which they are laid over one another. `file` alone means one."""
        return self.sources if self.file is None else (RegistrySourceSettings(file=self.file),)
