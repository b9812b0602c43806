"""Defines the setting `notifier.channel` of a client: another message than a logout token, its address and subject."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ModelWrapValidatorHandler, model_validator

from notifier.features.channels.channel_presets import EVENT_PRESETS, REVOCATION_PRESETS, ChannelPreset
from notifier.features.channels.signed_channel import FORMATS, names_in, parse_rule
from notifier.model.client import Client, FrontChannelWay
from notifier.model.client_channel import ClientChannel
from notifier.model.egress import check_uri, find_uri_issue
from notifier.model.errors import ConfigurationError
from notifier.model.nearest import suggest
from notifier.settings.choices import exactly_one
from notifier.settings.clients import ClientOptions, TokenOptions
from notifier.settings.feature_sections import ChannelKindSection, ChannelSection
from notifier.settings.file_paths import ExistingFile, check_usable
from notifier.settings.secret_text import read_secret
from notifier.settings.values import (
    ListedNames,
    Section,
)

_NO_CANARY = "a receiver may not expect an unknown user: Okta's own workshop ends with an error that stops its process"
_METADATA_CANARY = "the command `metadata` replaces the metadata that the receiver had from the OpenID Provider"

_UNUSED_MEMBERS = {
    "backchannel_logout_uri": "for both, let another client with the channel follow this one",
    "backchannel_logout_session_required": "",
    "id_token_encrypted_response_alg": "its requests are signed, not encrypted",
}


def _check_uri(value: str) -> str:
    if (mistake := find_uri_issue(value)) is not None:
        raise ValueError(mistake)
    return value


def _name_way(value: object) -> object:
    if isinstance(value, dict | ProofSettings):
        return value
    if value not in ("jwt", "headers"):
        raise ValueError("must be jwt, headers, or {endpoint, client_id, client_secret, scope}")
    return {"way": value}


def _refuse_text(value: object) -> object:
    if isinstance(value, str):
        raise ValueError(  # noqa: TRY004  pydantic reports this type
            "must be {file: PATH}: a secret is read from a file, never from the configuration"
        )
    return value


def _find_secret_mistake(path: Path) -> str | None:
    try:
        read_secret(path)
    except ConfigurationError as error:
        return f"{path} {error.mistakes[0].text}"
    return None


ChannelUri = Annotated[str, AfterValidator(_check_uri)]
FilledText = Annotated[str, Field(min_length=1)]
SubjectSetting = Annotated[
    dict[str, str],
    BeforeValidator(
        lambda value: dict(parse_rule(value)),
        json_schema_input_type=Literal["iss_sub", "email", "opaque"] | dict[str, str],
    ),
]


class SecretFilePath(Section):
    """A secret that is read from a file at each use."""

    file: Annotated[ExistingFile, check_usable(_find_secret_mistake)]
    """The file."""


class ProofSettings(Section):
    """The proof of a request: a word, or a token endpoint and our credentials there."""

    way: Literal["jwt", "headers"] | None = None
    """The word, if no access token is fetched."""
    endpoint: ChannelUri | None = None
    """The token endpoint, for client credentials (RFC 6749 §4.4)."""
    client_id: FilledText | None = None
    """Our name there."""
    client_secret: Annotated[SecretFilePath, BeforeValidator(_refuse_text)] | None = Field(None, repr=False)
    """Our secret there."""
    scope: FilledText | None = None
    """The scope to request."""

    @model_validator(mode="after")
    def _check_completeness(self) -> Self:
        missing = [name for name in ("endpoint", "client_id", "client_secret") if getattr(self, name) is None]
        if self.way is None and missing:
            raise ValueError(f"needs {' and '.join(missing)} for an access token; without one, write jwt or headers")
        if self.way is not None and self.model_fields_set != {"way"}:
            raise ValueError("must be jwt, headers, or {endpoint, client_id, client_secret, scope}, without way")
        return self

    @property
    def secret_file(self) -> Path | None:
        """The file with our secret at the token endpoint."""
        return None if self.client_secret is None else self.client_secret.file


class _KindSection(ChannelKindSection):
    """The settings of one kind of channel."""

    presets: ClassVar[Mapping[str, ChannelPreset]] = {}

    uri: ChannelUri
    """Where to POST. Only a file may set it, and no event replaces it."""
    sessions: bool = False
    """Notify it also if only one session ended. All sessions of the user end there."""

    @model_validator(mode="wrap")
    @classmethod
    def _apply_preset(cls, data: object, make: ModelWrapValidatorHandler[Self]) -> Self:
        name = data.get("preset") if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(name, str):
            return make(data)
        if name not in cls.presets:
            raise ValueError(f"there is no preset {name!r} for this channel; {suggest(name, cls.presets)}")
        preset = cls.presets[name]
        members: dict[str, Any] = {**preset.members, **data}
        if isinstance(members.get("proof"), dict):
            members["proof"] = {**preset.proof, **members["proof"]}
        elif preset.needs_access_token:
            raise ValueError(f"preset {name} needs proof: {{endpoint, client_id, client_secret}}, for an access token")
        made = make(members)
        made._of_preset = preset.members.keys() - data.keys()  # noqa: SLF001  of an object of this class
        return made


class SecurityEventSettings(_KindSection):
    """A pushed security event token (RFC 8935) with CAEP's session-revoked."""

    presets: ClassVar[Mapping[str, ChannelPreset]] = EVENT_PRESETS

    preset: Literal["google_workspace", "caep_dev"] | None = None
    """A known receiver, by name. Its settings apply where none is given here."""
    subject: SubjectSetting = Field(default_factory=lambda: dict(FORMATS["iss_sub"]))
    """How the receiver knows the user: iss_sub, email, opaque, or an identifier with {iss}, {sub}, {email}."""
    audience: ListedNames | None = Field(None, min_length=1)
    """The `aud` of the token, one or a list. Default: the address."""
    session: bool = True
    """Name the session that ended, beside the user."""
    subject_in_event: bool = False
    """Name the user within the event, too."""
    stream_id: FilledText | None = None
    """The receiver's stream. The doctor's canary is then its verification event."""

    @model_validator(mode="after")
    def _check_sessions(self) -> Self:
        if self.session and self.sessions:
            raise ValueError("has sessions: true, but its event names the session and ends no other; remove sessions")
        return self


class GlobalTokenRevocationSettings(_KindSection):
    """Global Token Revocation: all sessions and refresh tokens of a user end."""

    presets: ClassVar[Mapping[str, ChannelPreset]] = REVOCATION_PRESETS

    preset: Literal["auth0", "okta_app", "okta_org", "janssen"] | None = None
    """A known receiver, by name. Its settings apply where none is given here."""
    subject: SubjectSetting = Field(default_factory=lambda: dict(FORMATS["iss_sub"]))
    """How the receiver knows the user: iss_sub, email, opaque, or an identifier with {iss}, {sub}, {email}."""
    member: Literal["sub_id", "subject"] = "sub_id"
    """The body's member with the user: `subject` until draft 02."""
    proof: Annotated[
        ProofSettings, BeforeValidator(_name_way, json_schema_input_type=Literal["jwt", "headers"] | ProofSettings)
    ] = ProofSettings(way="jwt")
    """jwt: a signed JWT for this address. headers: only `notifier.headers`. Or how an access token is fetched."""
    not_before: bool = False
    """The JWT has `nbf`, too."""


class CommandSettings(_KindSection):
    """OpenID Provider Commands: `invalidate` ends all sessions and tokens of an account."""

    tenant: FilledText
    """The tenant of its accounts at this issuer."""


class ChannelSettings(ChannelSection):
    """How a client is notified instead of by logout tokens: exactly one kind."""

    security_event: SecurityEventSettings | None = None
    """A pushed security event token."""
    global_token_revocation: GlobalTokenRevocationSettings | None = None
    """Global Token Revocation."""
    command: CommandSettings | None = None
    """OpenID Provider Commands."""

    _check_kind = exactly_one()

    def to_channel(self) -> ClientChannel:
        """Return the channel as the pipeline uses it."""
        kind = next(kind for kind in type(self).model_fields if getattr(self, kind) is not None)
        settings = self.security_event or self.global_token_revocation or self.command
        assert settings is not None
        named = {"sub"} if isinstance(settings, CommandSettings) else set(names_in(settings.subject))
        names_session = isinstance(settings, SecurityEventSettings) and settings.session
        canary_risk = _METADATA_CANARY if isinstance(settings, CommandSettings) else ""
        proof = ""
        if isinstance(settings, GlobalTokenRevocationSettings):
            canary_risk, proof = _NO_CANARY, settings.proof.way or "access_token"
        return ClientChannel(
            kind=kind, uri=settings.uri, member=f"notifier.channel.{kind}.uri", settings=settings,
            needs_sub="sub" in named, needs_email="email" in named, names_session=names_session,
            ends_all=not names_session and not settings.sessions, signed=proof in ("", "jwt"), canary_risk=canary_risk,
        )  # fmt: skip

    def find_errors(self, client: Client, options: ClientOptions) -> Iterator[tuple[str, str]]:
        """Yield each setting of the client that contradicts its channel, and its error."""
        if options.front_channel is FrontChannelWay.SERVER:
            yield (
                "notifier.front_channel",
                "is server, but the client has a channel; remove one of the two",
            )
        if self.command is not None:
            for name in TokenOptions.model_fields:
                if getattr(options, name) is not None:
                    yield f"notifier.{name}", "must not stand beside channel.command, whose tokens have fixed claims"
        if self.security_event is not None and client.iss in (self.security_event.audience or ()):
            text = "must name the receiver, not the issuer: the token would pass at other services"
            yield "notifier.channel.security_event.audience", text
        if self.global_token_revocation is not None:
            yield from _find_proof_errors(self.global_token_revocation.proof, client)

    def find_warnings(self, client: Client, row: object) -> Iterator[tuple[str, str]]:
        """Yield each setting that is permitted but not advisable, and its warning. `row`: the client as written."""
        section = row.get("notifier") if isinstance(row, Mapping) else None
        written: Mapping[str, Any] = section if isinstance(section, Mapping) else {}
        headers = written.get("headers")
        for name in _find_clear_secrets(headers if isinstance(headers, Mapping) else {}, self._is_proved_by_headers):
            yield f"notifier.headers.{name}", "is written in clear text: put it in a file, and write {file: PATH}"
        text = "has no effect: the client is notified by its channel, not by logout tokens"
        members = row if isinstance(row, Mapping) else {}
        for name, why in _UNUSED_MEMBERS.items():
            if members.get(name):
                yield name, f"{text}; {why}" if why else text
        unused_options = ("preset", *(() if self.command is not None else TokenOptions.model_fields))
        for name in (name for name in unused_options if written.get(name) is not None):
            yield f"notifier.{name}", text
        if client.pairwise and client.channel is not None and client.channel.needs_email:
            text = "names the user by e-mail address, which links the user of a pairwise client to other clients"
            yield f"notifier.channel.{client.channel.kind}.subject", text

    @property
    def _is_proved_by_headers(self) -> bool:
        return self.global_token_revocation is not None and self.global_token_revocation.proof.way == "headers"


class ChannelOptions(Section):
    """The member of a client's `notifier` that the feature declares."""

    channel: ChannelSettings | None = None
    """How it is notified instead of by logout tokens. Its `backchannel_logout_uri` is then not used."""


def _find_clear_secrets(headers: Mapping[str, Any], is_proof: bool) -> Iterator[str]:  # noqa: FBT001
    """Yield each header in clear text that may be a secret. `is_proof`: only the headers prove the request.

    With a proof by headers one of them must be a secret: if none is read from a file, each in clear text may be it.
    """
    clear = [name for name, value in headers.items() if isinstance(value, str)]
    if is_proof and len(clear) == len(headers):
        yield from clear
    else:
        yield from (name for name in clear if name.lower() == "authorization")


def _find_proof_errors(proof: ProofSettings, client: Client) -> Iterator[tuple[str, str]]:
    names = [name.lower() for name, _ in client.route.headers]
    if proof.way != "headers" and "authorization" in names:
        text = "has Authorization, which the proof of its channel sets; remove it, or write proof: headers"
        yield "notifier.headers", text
    if proof.way == "headers" and not names and client.route.withheld is None:
        text = "is headers, and notifier.headers has none; the receiver would accept such a request from anybody"
        yield "notifier.channel.global_token_revocation.proof", text
    if proof.endpoint is not None and (text := check_uri(proof.endpoint, client.route.egress) or "") != "":
        yield "notifier.channel.global_token_revocation.proof.endpoint", text
