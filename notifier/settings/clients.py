"""Defines the metadata of a client: members of OpenID Connect, and notifier's settings under `notifier`.

Metadata unrelated to logout (`grant_types`, `logo_uri` …) are ignored. An unknown member under `notifier` is an error.
A client that requires an unsupported feature is refused, never notified without it (B23).
"""

import json
import re
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    model_validator,
)

from notifier.model.client import (
    Algorithm,
    Client,
    ContentEncryption,
    FrontChannelWay,
    KeyManagement,
    SubjectMode,
)
from notifier.model.errors import ConfigurationError
from notifier.model.logout_token import RESERVED_CLAIMS, is_identifying_claim
from notifier.model.nearest import suggest
from notifier.model.presets import PRESETS
from notifier.model.printable import stray_character
from notifier.settings.file_paths import find_absence, refuse_file, resolve_file
from notifier.settings.policies import EgressSettings, RetrySettings, TlsSettings
from notifier.settings.secret_text import read_secret
from notifier.settings.values import (
    Count,
    Duration,
    DurationField,
    HoldDuration,
    Origin,
    PositiveDuration,
    Section,
    TextList,
    has_host,
)

MAX_CONCURRENT = Client(iss="", client_id="", backchannel_logout_uri=None).max_concurrent
# A URI has no space, but may have commas. Only the beginning of a run is tried, or many commas take quadratic time.
_URI_SEPARATOR = re.compile(r"(?<![\s,])[\s,]*\s[\s,]*|,(?=[A-Za-z][A-Za-z0-9+.-]*:/)")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
# Headers of the request itself, and those that concern one connection only (RFC 9110 §7.6.1, §11.7).
_RESERVED_HEADERS = frozenset(
    ("host", "expect", "connection", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer",
     "transfer-encoding", "upgrade")
)  # fmt: skip
_HEADER_VALUE = re.compile(r"[!-~]([ \t!-~]*[!-~])?")  # RFC 9110 §5.5, ASCII only


def _split_uris(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(uri for text in texts for uri in _URI_SEPARATOR.split(text) if uri)


class SecretFile(Section):
    """A value that is read from a file."""

    file: str


def _check_preset(value: str) -> str:
    if value not in PRESETS:
        raise ValueError(f"there is no preset {value!r}; {suggest(value.lower().replace('-', '_'), PRESETS)}")
    return value


def _parse_audience(value: object) -> object:
    """Return an empty tuple for the text `list`: `aud` is a list, without further audiences."""
    return () if value == "list" else value


_PLACEHOLDER = "https://unusable.invalid"
"""Stands for the secret of an unusable file while other files are checked. It is valid as a header and as a proxy."""


def _read_secret(value: object, info: ValidationInfo) -> object:
    """Return the text, or the content of the file in `{file: …}` without its final line break."""
    if not isinstance(value, dict):
        return value
    if value.keys() != {"file"} or not isinstance(value["file"], str):
        raise ValueError("must be a text, or {file: PATH}")
    path = resolve_file(Path(value["file"]), info)
    try:
        if (absence := find_absence(path)) is None:
            return read_secret(path)
    except ConfigurationError as error:
        absence = f"{path} {error.mistakes[0].text}"
    refuse_file(path, absence, info)
    return _PLACEHOLDER


def _check_proxy(value: str) -> str:
    if not has_host(value, "http", "https"):
        text = "must be the URL of a proxy, such as http://proxy.example.com:3128"
        if "@" in value and "@" not in re.split("[/?#]", value.partition("://")[2])[0]:
            text = "has @, /, ? or # in a user name or password; write %40, %2F, %3F or %23"
        raise ValueError(stray_character(value) or text)
    if urlsplit(value).password == "":
        raise ValueError("has an empty password; remove the colon, or give the password")
    return value


def _check_claim_name(name: str) -> str:
    if name in RESERVED_CLAIMS:
        raise ValueError(f"the claim {name} belongs to the specification; choose another name")
    if is_identifying_claim(name):
        raise ValueError(
            f"the claim {name} identifies a user or grants access; a logout token must not contain it: remove it"
        )
    return name


def _check_header_name(name: str) -> str:
    if _TOKEN.fullmatch(name) is None:
        raise ValueError("is not a valid name of a header")
    if name.lower() in _RESERVED_HEADERS or name.lower().startswith("content-"):
        raise ValueError(f"the header {name} belongs to the request itself; choose another")
    return name


def _check_header_value(value: str) -> str:
    if _HEADER_VALUE.fullmatch(value) is None:
        raise ValueError("must be one line of printable ASCII, not empty, without blanks at its ends")
    return value


Secret = BeforeValidator(_read_secret, json_schema_input_type=str | SecretFile)


def _check_claim_value(value: JsonValue) -> JsonValue:
    """Return the value of a claim. Raises ValueError if a nested member identifies a user or grants access."""
    if isinstance(value, list):
        for item in value:
            _check_claim_value(item)
    elif isinstance(value, dict):
        for member in value.values():
            _check_claim_value(member)
        for name in value:
            if is_identifying_claim(name):  # within a value, a reserved name does no harm
                _check_claim_name(name)
    return value


def _check_finite(value: JsonValue) -> JsonValue:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValueError("has a number that JSON cannot write: infinity or NaN") from None
    return value


ClaimName = Annotated[str, AfterValidator(_check_claim_name)]
HeaderName = Annotated[str, AfterValidator(_check_header_name)]
HeaderValue = Annotated[str, Secret, AfterValidator(_check_header_value)]
Status = Annotated[int, Field(ge=200, le=599)]
PresetName = Annotated[str, AfterValidator(_check_preset), Field(json_schema_extra={"enum": list(PRESETS)})]
Audience = Annotated[
    Literal["string"] | tuple[str, ...],
    BeforeValidator(_parse_audience, json_schema_input_type=Literal["string", "list"] | list[str]),
]


class TokenOptions(Section):
    """The settings of a client's logout tokens. A further address of the client takes them from it."""

    typ: Literal["logout+jwt", "JWT", "none"] | None = None
    """The token's `typ` header. `none` leaves it out."""
    subject: SubjectMode | None = None
    """Which of sub and sid the token carries."""
    audience: Audience | None = None
    """The form of `aud`: `string`, the client_id (the default); `list`, a list with it; or the names that follow it in
    that list (R5)."""
    lifetime: Annotated[float, DurationField(above=0.0, most=120.0)] | None = None
    """How long a token is valid: two minutes at most (B29)."""
    claims: (
        dict[ClaimName, Annotated[JsonValue, AfterValidator(_check_finite), AfterValidator(_check_claim_value)]] | None
    ) = None
    """Further claims, the same in every token."""
    reason_claim: ClaimName | None = None
    """The claim that holds the event's reason."""


class ClientOptions(TokenOptions):
    """notifier's settings of a client. Members that are left out have the service's values."""

    of_features = MappingProxyType({"channel": "channels"})
    not_in_defaults = ("follows", "channel")

    preset: PresetName | None = None
    """A known receiver, by name. Its settings apply where none is given here."""
    timeout: HoldDuration | None = None
    """Time limit of a whole attempt."""
    max_concurrent: Count | None = Field(
        None, description=f"Attempts at a time, over all workers. Default {MAX_CONCURRENT}."
    )
    per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Attempts a second, over all workers."""
    paused: bool = False
    """Attempt nothing. Deliveries wait."""
    max_age: PositiveDuration | None = None
    """How long a delivery lives, attempted or not."""
    sub_only_max_age: Duration | None = None
    """The same for a token without sid."""
    retry: RetrySettings | None = None
    """The waits between attempts."""
    egress: EgressSettings | None = None
    """Where its URI may lead. Replaces `egress` member by member."""
    tls: TlsSettings | None = None
    """TLS to the client."""
    proxy: Annotated[str, Secret, AfterValidator(_check_proxy)] | None = Field(None, repr=False)
    """URL of a proxy. It looks names up, so egress judges only what the URI says."""
    headers: dict[HeaderName, HeaderValue] | None = Field(None, repr=False)
    """Further request headers."""
    follows: Annotated[str, Field(min_length=1)] | None = None
    """The client of which this entry is a further address, such as that of another region."""
    origins: tuple[Origin, ...] | None = Field(None, min_length=1)
    """Where its headers, certificate, proxy and wider egress may go, beside its address in a file."""
    success_statuses: frozenset[Status] | None = None
    """Further statuses that count as delivered."""
    retry_statuses: frozenset[Status] | None = None
    """Further statuses that are retried."""
    front_channel: FrontChannelWay | None = None
    """Who calls `frontchannel_logout_uri`: `browser`, by the front-channel page (the default); `server`, the worker, if
    iss and sid suffice the client; `off`, nobody."""

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.reason_claim is not None and self.reason_claim in (self.claims or {}):
            raise ValueError(f"reason_claim and claims both name {self.reason_claim}")
        if both := (self.success_statuses or frozenset()) & (self.retry_statuses or frozenset()):
            raise ValueError(f"{min(both)} is in success_statuses and in retry_statuses")
        names = [name.lower() for name in self.headers or ()]
        if len(set(names)) < len(names):
            raise ValueError("headers names a header twice; upper and lower case make no difference")
        return self


class ClientMetadata(BaseModel):
    """One client. Members of OpenID Connect's client metadata that are not listed here are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, defer_build=True)

    client_id: Annotated[str, Field(min_length=1, description="As registered at the issuer.")]
    issuer: TextList | None = Field(None, min_length=1)
    """One, a list, or "*" for all. May be left out if there is only one issuer."""
    backchannel_logout_uri: str | None = None
    """Where to POST. Left out: the client is skipped."""
    backchannel_logout_session_required: bool | None = None
    """Each token must have a sid (B7)."""
    id_token_signed_response_alg: Algorithm | None = None
    """Default RS256 (B23)."""
    id_token_encrypted_response_alg: KeyManagement | None = None
    """Its tokens are encrypted, to its key in `jwks` or `jwks_uri` (B16)."""
    id_token_encrypted_response_enc: ContentEncryption | None = None
    """How their content is encrypted. Default A128CBC-HS256."""
    jwks: object = Field(None, repr=False)
    """Its public keys, as a JWK Set. It comes before `jwks_uri`."""
    jwks_uri: str | None = None
    """Where its public keys are. Read as `egress` allows."""
    subject_type: Literal["public", "pairwise"] | None = None
    """A pairwise client never gets the event's own sub, only that of its entry."""
    frontchannel_logout_uri: str | None = None
    """What the user's browser calls. https, no fragment."""
    frontchannel_logout_session_required: bool | None = None
    """Each call must have iss and sid (F4)."""
    redirect_uris: Annotated[TextList, AfterValidator(_split_uris)] | None = None
    """A list, or one text with several. `frontchannel_logout_uri` must have the origin of one of them (F1)."""
    client_name: str | None = None
    """What people call it."""
    notifier: ClientOptions | None = None
    """notifier's own settings."""
