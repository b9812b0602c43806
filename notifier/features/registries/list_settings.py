"""The settings of registry sources that are read over HTTP: Hydra, WSO2, Auth0, authentik, or a list at a URL."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

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
