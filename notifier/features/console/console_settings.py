"""The section `api.console`: the pages for operators, which the API listener serves, and how operators sign in."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from notifier.network.http.issuer_document import metadata_uri
from notifier.settings.policies import TlsSettings, TokenKeeperSettings
from notifier.settings.service_settings import Settings
from notifier.settings.values import IssuerId, Name, PublicAddress, Section, TextList, check_single_host, is_in_clear

OperatorScope = Literal["read", "repair"]
"""What somebody in a browser may do. Events are published by programs, which have tokens of the file."""


_SCOPE = r"^openid( [!#-\[\]-~]+)*$"


def _with_openid(scope: str) -> str:
    if not re.fullmatch(_SCOPE, scope):
        raise ValueError("must begin with openid, and have one space between two scopes: openid profile")
    return scope


def _not_in_clear(url: str) -> str:
    if is_in_clear(url):
        raise ValueError("must begin with https://: codes and tokens are sent there")
    return url


class OidcSettings(Section):
    """An OpenID Provider whose users look and act. The API takes its JWT access tokens (RFC 9068)."""

    issuer: Annotated[IssuerId, AfterValidator(check_single_host), AfterValidator(_not_in_clear)]
    """The `iss` of its tokens."""
    client_id: Name = Field(min_length=1, max_length=256)
    """The console there: a public client with code and PKCE. Its redirect URI is the console's address."""
    audience: Name = Field(min_length=1, max_length=256)
    """What the `aud` of its access tokens names for this API."""
    scopes_claim: TextList = Field(min_length=1)
    """The claim with a user's roles or groups, such as `groups`; a list is a path: `[realm_access, roles]`."""
    map: dict[str, frozenset[OperatorScope]] = Field(min_length=1)
    """What each of its values may do: `read`, `repair`. Others mean nothing."""
    issuers_claim: TextList = ()
    """The claim with the issuers of `issuers` that concern a user, or `*`. Left out: all concern everybody."""
    name_claim: str | None = Field(None, min_length=1)
    """The claim that names a user in audit lines, such as `preferred_username`. Left out: a hash does."""
    scope: Annotated[str, AfterValidator(_with_openid)] = Field("openid", json_schema_extra={"pattern": _SCOPE})
    """What the console asks the provider for; it begins with `openid`."""
    accept_typ_jwt: bool = False
    """Take access tokens of `typ: JWT` too, for a provider that cannot write `at+jwt`."""
    discovery: PublicAddress | None = None
    """Its metadata. Left out: `issuer` with `/.well-known/openid-configuration`."""
    tls: TlsSettings | None = None
    """TLS to the provider."""

    @model_validator(mode="after")
    def _no_id_token(self) -> Self:
        if self.accept_typ_jwt and self.audience == self.client_id:
            raise ValueError(
                "audience must not be client_id with accept_typ_jwt: nothing would tell an access token from an ID"
                " token; give the API an audience of its own at the provider"
            )
        return self

    @property
    def metadata(self) -> str:
        """Where its metadata are."""
        return metadata_uri(self.issuer) if self.discovery is None else self.discovery


class ConsoleSettings(TokenKeeperSettings, extra="forbid"):
    """The console: pages for operators, at `/console/` of the API's address."""

    enabled: bool = True
    """Serve it."""
    oidc: OidcSettings | None = None
    """Sign in at an OpenID Provider. Left out: by a token of `tokens_file` alone."""

    @model_validator(mode="after")
    def _served(self) -> Self:
        if self.oidc is not None and not self.enabled:
            raise ValueError("oidc is for a console that is served; remove it, or set enabled to true")
        return self

    @property
    def knows_tokens(self) -> bool:
        """True if access tokens of the provider are taken."""
        return self.oidc is not None


def console_of(settings: Settings) -> ConsoleSettings | None:
    """Return the section; None without an API."""
    return settings.section("api.console", ConsoleSettings)
