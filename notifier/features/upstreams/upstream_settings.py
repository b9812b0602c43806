"""Settings of upstream OpenID Providers: their logout tokens, and how local sessions are found."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from notifier.model.client import Algorithm
from notifier.model.errors import InputIssue
from notifier.model.nearest import explain_unknown_issuer
from notifier.model.origins import origin_of
from notifier.network.databases.database_url import DatabaseUrl
from notifier.network.http.issuer_document import metadata_uri
from notifier.settings.choices import at_most_one, exactly_one, find_choice_errors
from notifier.settings.policies import TlsSettings
from notifier.settings.remote_server import HeaderServerSettings
from notifier.settings.secret_text import SecretPath
from notifier.settings.service_settings import Settings
from notifier.settings.values import (
    DurationField,
    IssuerId,
    ListedNames,
    Origin,
    PublicAddress,
    Section,
    WebAddress,
    check_single_host,
    refuse_user,
)

_SUB_OR_SID = re.compile(r":(sub|sid)\b")


class SameSubSettings(Section):
    """`sub` and `sid` are the same here as at the upstream. All clients of the issuer are notified."""

    prefix: str = Field("", max_length=256)
    """The prefix of the upstream's `sub` here."""


class SessionTableSettings(Section):
    """The names of the tables, if they differ from Duende's."""

    sessions: str = Field("ServerSideSessions", min_length=1)
    """The server-side sessions."""


class SessionsSqlSettings(Section):
    """A database with the sessions. Exactly one of `url` and `url_file`, and one of `preset` and `query`."""

    gone: ClassVar[Mapping[str, str]] = {"timeout": "is gone: it is 5s now"}

    url: DatabaseUrl | None = None
    """`postgresql://…`, `mysql://…`, `mariadb://…`, `mssql://…` or `sqlite:///PATH`."""
    url_file: SecretPath | None = None
    """A file with the URL. It is read each time."""
    preset: Literal["duende"] | None = None
    """`duende`: its server-side sessions, by `sid`. By `sub` alone only with `prefix`."""
    prefix: str | None = Field(None, max_length=256)
    """The prefix of the upstream's `sub` in the preset's table."""
    query: str | None = Field(None, min_length=1)
    """A SELECT with `:iss`, `:sub`, `:sid` (null if unknown). Its columns are `sub`, `sid` and `clients` (JSON, one
    `client_id`, or `*`; all clients if it is left out)."""
    db_schema: str | None = Field(None, alias="schema", min_length=1)
    """The schema of the preset's table."""
    tables: SessionTableSettings | None = None
    """The preset's name of a table → yours."""
    row_security: bool = False
    """PostgreSQL's row-level security decides which sessions there are. Else a row that it hides is a fault."""

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        errors = find_choice_errors(self, ("url", "url_file"), ("preset", "query"))
        if self.query is not None:
            of_presets = {"schema": self.db_schema, "tables": self.tables, "prefix": self.prefix}
            options = [name for name, value in of_presets.items() if value is not None]
            errors += [f"{name} is for a preset; write it into query" for name in options]
            if _SUB_OR_SID.search(self.query) is None:
                errors.append("query must use :sub or :sid; without them it would end everybody's sessions")
        if errors:
            raise ValueError("; ".join(errors))
        return self


class SessionsHttpSettings(HeaderServerSettings):
    """An endpoint of the identity server that finds sessions: `POST {iss, sub, sid}` as JSON."""

    gone: ClassVar[Mapping[str, str]] = {"timeout": "is gone: it is 5s now"}

    url: Annotated[WebAddress, AfterValidator(refuse_user)]
    """The address."""


class ResolveSettings(Section):
    """How local sessions are found. One of the three."""

    same_sub: SameSubSettings | None = None
    """The same `sub` and `sid` as at the upstream."""
    sql: SessionsSqlSettings | None = None
    """Ask a database."""
    http: SessionsHttpSettings | None = None
    """Ask the identity server over HTTP."""

    _check_ways = exactly_one()


class UpstreamSettings(Section):
    """An OpenID Provider that our users sign in at. It calls `/upstreams/NAME/…` of the listener `web`."""

    issuer: Annotated[IssuerId, AfterValidator(check_single_host)]
    """The `iss` of its tokens."""
    client_id: ListedNames = Field(min_length=1)
    """What we are called there: one or a list. A token's `aud` must name one of them."""
    jwks_uri: PublicAddress | None = None
    """The address of its keys. Left out: from its discovery."""
    discovery: PublicAddress | None = None
    """Its metadata. Left out: `issuer` with `/.well-known/openid-configuration`."""
    tls: TlsSettings | None = None
    """TLS when its metadata and keys are read."""
    algorithms: tuple[Algorithm, ...] | None = Field(None, min_length=1)
    """What its tokens may be signed with. Never `none` or a shared secret. Left out: as its metadata name them in
    `id_token_signing_alg_values_supported`; any of them with `jwks_uri`, or without that member."""
    max_age: Annotated[float, DurationField(above=0.0, most=86_400.0)] = 600.0
    """How old a token may be by its `iat`."""
    iss: IssuerId | None = None
    """Which of `issuers` the sessions are at. Left out: the only one."""
    resolve: ResolveSettings
    """Whose session it is here."""
    front_channel: bool = False
    """Browsers may call its front-channel address: whoever knows a `sid` ends that session."""
    parents: tuple[Origin, ...] = ()
    """Origins beside that of `issuer` whose pages may be above its front-channel page."""
    without_iss: Literal["refuse", "allow"] = "refuse"
    """`allow`: its front-channel calls need no `iss` (Microsoft Entra sends none)."""

    _check_key_source = at_most_one("jwks_uri", "discovery")

    @model_validator(mode="after")
    def _check_front_channel(self) -> Self:
        """Refuse look-ups that cannot distinguish the upstream's sessions, as a browser proves nothing but a `sid`."""
        sql = self.resolve.sql
        if self.front_channel and self.resolve.same_sub is not None:
            reason = "resolve.same_sub: a made-up sid cannot be distinguished from a real one"
        elif self.front_channel and sql is not None and sql.preset is not None:
            reason = f"resolve.sql.preset {sql.preset}: its table does not have the provider of a session"
        else:
            return self
        raise ValueError(f"front_channel cannot be true with {reason}; use resolve.sql.query or resolve.http")

    @property
    def metadata(self) -> str:
        """Return the URL of the metadata."""
        return metadata_uri(self.issuer) if self.discovery is None else self.discovery

    @property
    def framing_origins(self) -> tuple[str, ...]:
        """Return the origins whose pages may frame its front-channel page."""
        return tuple(dict.fromkeys((origin_of(self.issuer) or "", *self.parents)))


def upstreams_of(settings: Settings) -> Mapping[str, UpstreamSettings]:
    """Return the upstreams, by name."""
    return settings.sections("upstreams", UpstreamSettings)


def issuer_or_only(iss: str | None, settings: Settings) -> str | None:
    """Return the issuer of an upstream or relay: `iss`, or the only issuer of the settings; None without both."""
    return next(iter(settings.issuers)) if iss is None and len(settings.issuers) == 1 else iss


def check_issuer(kind: str, name: str, setting: str, iss: str | None, settings: Settings) -> Iterator[InputIssue]:
    """Yield an error unless the issuer is known, and accepts events of this upstream or relay (`kind`)."""
    if iss is None:
        text = f"is required, since there is not exactly one issuer; it is one of {', '.join(settings.issuers)}"
        yield InputIssue(setting, text)
    elif iss not in settings.issuers:
        yield InputIssue(setting, explain_unknown_issuer(iss, settings.issuers))
    elif (publishers := settings.issuers[iss].publishers) is not None and name not in publishers:
        text = f"must name {name} too, or every event of the {kind} {name} becomes a dead letter"
        yield InputIssue(f'issuers["{iss}"].publishers', text)
