"""The section `api.console`: pages for operators on the API listener, and how operators sign in."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from notifier.network.http.issuer_document import metadata_uri
from notifier.settings.policies import TlsSettings, TokenKeeperSettings
from notifier.settings.service_settings import Settings
from notifier.settings.values import IssuerId, Name, PublicAddress, Section, TextList, check_single_host, is_in_clear

OperatorScope = Literal["read", "repair"]
"""The permissions that a user in a browser can have. To publish events, a program needs a token of `tokens_file`."""


_SCOPE = r"^openid( [!#-\[\]-~]+)*$"


def _check_scope(scope: str) -> str:
    if not re.fullmatch(_SCOPE, scope):
        raise ValueError("must begin with openid, and have one space between two scopes: openid profile")
    return scope


def _check_https(url: str) -> str:
    if is_in_clear(url):
        raise ValueError("must begin with https://: codes and tokens are sent there")
    return url


class OidcSettings(Section):
    """An OpenID Provider at which operators sign in. The API accepts its JWT access tokens (RFC 9068)."""

    issuer: Annotated[IssuerId, AfterValidator(check_single_host), AfterValidator(_check_https)]
    """The `iss` of its tokens."""
    client_id: Name = Field(min_length=1, max_length=256)
    """The console's client at the provider: public, with code and PKCE. Its redirect URI is the console's address."""
    audience: Name = Field(min_length=1, max_length=256)
    """The value for this API in the `aud` of its access tokens."""
    scopes_claim: TextList = Field(min_length=1)
    """The claim with a user's roles or groups, such as `groups`; a list is a path: `[realm_access, roles]`."""
    map: dict[str, frozenset[OperatorScope]] = Field(min_length=1)
    """The permissions of each value of that claim: `read`, `repair`. Other values have none."""
    issuers_claim: TextList = ()
    """The claim with the issuers that a user may access, or `*`. Default: every user may access all issuers."""
    name_claim: str | None = Field(None, min_length=1)
    """The claim with the user's name for the audit log, such as `preferred_username`. Default: only a hash."""
    scope: Annotated[str, AfterValidator(_check_scope)] = Field("openid", json_schema_extra={"pattern": _SCOPE})
    """The scope that the console requests from the provider; it begins with `openid`."""
    accept_typ_jwt: bool = False
    """Also accept access tokens with `typ: JWT`, for a provider that does not support `at+jwt`."""
    discovery: PublicAddress | None = None
    """The address of its metadata. Default: `issuer` with `/.well-known/openid-configuration`."""
    tls: TlsSettings | None = None
    """TLS to the provider."""

    @model_validator(mode="after")
    def _check_audience(self) -> Self:
        if self.accept_typ_jwt and self.audience == self.client_id:
            raise ValueError(
                "audience must not be client_id with accept_typ_jwt: access tokens and ID tokens could not be"
                " distinguished; give the API a separate audience at the provider"
            )
        return self

    @property
    def metadata(self) -> str:
        """Return the address of the provider's metadata."""
        return metadata_uri(self.issuer) if self.discovery is None else self.discovery


class ConsoleSettings(TokenKeeperSettings, extra="forbid"):
    """The console: pages for operators, at `/console/` on the API listener."""

    enabled: bool = True
    """Serve the console."""
    oidc: OidcSettings | None = None
    """Sign in at an OpenID Provider. Default: only with a token of `tokens_file`."""

    @model_validator(mode="after")
    def _check_enabled(self) -> Self:
        if self.oidc is not None and not self.enabled:
            raise ValueError("oidc is for a console that is served; remove it, or set enabled to true")
        return self

    @property
    def knows_tokens(self) -> bool:
        """Return whether the API accepts access tokens of a provider."""
        return self.oidc is not None


def console_of(settings: Settings) -> ConsoleSettings | None:
    """Return the section `api.console`; None without a section `api`."""
    return settings.section("api.console", ConsoleSettings)
