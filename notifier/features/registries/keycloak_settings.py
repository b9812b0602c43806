"""A realm of Keycloak as a registry source: what an operator says of it."""

from typing import Annotated, Self
from urllib.parse import quote

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from notifier.model.client import Algorithm
from notifier.settings.asked_server import AskedServer, server_address
from notifier.settings.clients import algorithm
from notifier.settings.secret_text import SecretPath, SecretText
from notifier.settings.values import Name, WebAddress


def _realm(name: str) -> str:
    if "/" in name:
        raise ValueError("must be the realm's name alone, such as demo")
    return name


class KeycloakSettings(AskedServer):
    """The clients of one realm, by Keycloak's Admin API. One of `client_secret` and `client_secret_file` is given."""

    url: Annotated[
        WebAddress, server_address("/realms", "/admin", instead="client_id and client_secret_file are for that")
    ]
    """Keycloak's address, with its path if any, such as https://kc.example.com."""
    realm: Annotated[str, Field(min_length=1), AfterValidator(_realm)]
    """The realm's name."""
    client_id: Name = Field(min_length=1)
    """A client of the realm with a service account that has the role view-clients of realm-management."""
    client_secret: SecretText | None = None
    """Its secret."""
    client_secret_file: SecretPath | None = None
    """A file with its secret. It is read each time."""
    default_algorithm: Annotated[Algorithm, BeforeValidator(algorithm)] = Algorithm.RS256
    """The realm's default signature algorithm, which clients without one of their own have."""

    @property
    def own_issuer(self) -> str:
        """The realm's issuer, whose clients these are."""
        return f"{self.url}/realms/{quote(self.realm, safe='')}"

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if (self.client_secret is None) == (self.client_secret_file is None):
            both = "; it has both" if self.client_secret is not None else ""
            raise ValueError(f"needs client_secret or client_secret_file{both}")
        return self
