"""A client (relying party) as registered, including all settings for the delivery of its logouts.

Names from OpenID Connect's client metadata are kept verbatim. Durations are seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from notifier.model.client_channel import BACK_CHANNEL, FRONT_CHANNEL, ClientChannel

OptionT = TypeVar("OptionT")
ClientKey: TypeAlias = tuple[str, str]
"""The key of a client: `iss` and `client_id`."""


class Algorithm(StrEnum):
    """Signature algorithms (RFC 7518 §3.1, RFC 8037, RFC 9864) that a client may register: never `none` or HS* (B23).

    `EdDSA` and `Ed25519` name one algorithm: the second is the name since RFC 9864.
    """

    RS256 = "RS256"
    RS384 = "RS384"
    RS512 = "RS512"
    PS256 = "PS256"
    PS384 = "PS384"
    PS512 = "PS512"
    ES256 = "ES256"
    ES384 = "ES384"
    ES512 = "ES512"
    EDDSA = "EdDSA"
    ED25519 = "Ed25519"


ED25519_NAMES = frozenset({Algorithm.EDDSA, Algorithm.ED25519})
"""The names of the algorithm of Ed25519 keys."""


class KeyManagement(StrEnum):
    """How the content key of an encrypted token is protected (RFC 7518 §4.1): by a public key of the client."""

    RSA_OAEP = "RSA-OAEP"
    RSA_OAEP_256 = "RSA-OAEP-256"
    ECDH_ES = "ECDH-ES"
    ECDH_ES_A128KW = "ECDH-ES+A128KW"
    ECDH_ES_A192KW = "ECDH-ES+A192KW"
    ECDH_ES_A256KW = "ECDH-ES+A256KW"


class ContentEncryption(StrEnum):
    """How the content of a token is encrypted (RFC 7518 §5.1)."""

    A128CBC_HS256 = "A128CBC-HS256"
    A192CBC_HS384 = "A192CBC-HS384"
    A256CBC_HS512 = "A256CBC-HS512"
    A128GCM = "A128GCM"
    A192GCM = "A192GCM"
    A256GCM = "A256GCM"


class SubjectMode(StrEnum):
    """Which of `sub` and `sid` a token carries (B12, R8)."""

    BOTH = "both"
    SID_FIRST = "sid_first"
    SID = "sid"
    SUB = "sub"


class FrontChannelWay(StrEnum):
    """The caller of a `frontchannel_logout_uri`: the user's browser by notifier's page, the worker, or none."""

    BROWSER = "browser"
    SERVER = "server"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenProfile:
    """The content of a client's token. `typ` None omits the header member (R7). `lifetime` is at most 120 s (B29).

    With `audience` None, `aud` is the `client_id` as a string; otherwise a list of the `client_id` and the members of
    `audience` (R5). `requires`: the claim without which the receiver ends no session.
    """

    alg: Algorithm = Algorithm.RS256
    typ: str | None = "logout+jwt"
    subject: SubjectMode = SubjectMode.BOTH
    lifetime: float = 120.0
    claims: Mapping[str, object] = field(default_factory=dict, hash=False)
    reason_claim: str | None = None
    audience: tuple[str, ...] | None = None
    requires: Literal["sub", "sid"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to retry, in seconds: after `base · factor^n`, at most `max_delay`, ± the share `jitter`, until `max_age`.

    `sub_only_max_age` limits deliveries without `sid`. Internal delays count as age only beyond `max_paused`.
    """

    base: float = 2.0
    factor: float = 3.0
    max_delay: float = 3600.0
    jitter: float = 0.25
    max_age: float = 86_400.0
    sub_only_max_age: float = 600.0
    max_paused: float = 604_800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressPolicy:
    """Where a request may go. `allow` and `deny` override the built-in ranges; the narrowest network decides."""

    allow: tuple[IPv4Network | IPv6Network, ...] = ()
    deny: tuple[IPv4Network | IPv6Network, ...] = ()
    allow_http: bool = False
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.allow, self.deny, self.allow_http)))

    def __hash__(self) -> int:
        return self._hash  # hashed three times per attempt; each network costs 1 µs


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsePolicy:
    """Statuses that have a special meaning at this client."""

    success_statuses: frozenset[int] = frozenset()
    retry_statuses: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of a client's TLS connection: trusted authorities, and our certificate and key for mutual TLS."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How requests reach the registered origin of a client. A URI of another origin in an event has no such route.

    `withheld`: why no request may use this route, and the remedy. Such a route has no other settings.
    """

    egress: EgressPolicy = EgressPolicy()
    tls: TlsFiles = TlsFiles()
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # may hold secrets
    withheld: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedKey:
    """A public key of a client's or an issuer's JWK Set (RFC 7517 §4).

    `material`: the members that are the key, such as `n` and `e`. `use`, `alg` and `key_ops` are None if any value is
    allowed. `private`: the owner has published the private key, too.
    """

    kty: str
    material: tuple[tuple[str, str], ...] = field(repr=False)
    kid: str | None = None
    use: str | None = None
    alg: str | None = None
    key_ops: tuple[str, ...] | None = None
    private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKeysSource:
    """A client's `jwks_uri`, and the route to it: the client's route, without its headers."""

    uri: str
    route: Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """How the tokens of a client are encrypted (B16): algorithms, and the client's keys or their source."""

    alg: KeyManagement
    enc: ContentEncryption = ContentEncryption.A128CBC_HS256
    keys: tuple[PublishedKey, ...] | ClientKeysSource


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontChannelClient:
    """A client as registered by Front-Channel Logout 1.0 §2. Its URI is valid for a page (`front_channel.uri_of`)."""

    frontchannel_logout_uri: str
    frontchannel_logout_session_required: bool = False
    way: FrontChannelWay = FrontChannelWay.BROWSER


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One relying party of one issuer. `registered` is False for a client that only an event's inline URI names.

    `follows`: the client, its leader, of which it is a further address. Its tokens are those of its leader.
    `channel` is None if no feature's channel notifies it. `encryption` is None if its tokens are only signed.
    `redirect_origins`: the origins of its redirect URIs, whose pages may check whether its session has changed.
    `off_page`: its registration excludes it from front-channel pages. `options`: members of features in `notifier`.
    """

    iss: str
    client_id: str
    backchannel_logout_uri: str | None
    follows: str | None = None
    backchannel_logout_session_required: bool = False
    channel: ClientChannel | None = None
    front_channel: FrontChannelClient | None = None
    off_page: bool = False
    client_name: str | None = None
    redirect_origins: tuple[str, ...] = ()
    pairwise: bool = False
    preset: str | None = None
    registered: bool = True
    paused: bool = False
    timeout: float = 5.0
    max_concurrent: int = 32
    per_second: float | None = None
    token: TokenProfile = TokenProfile()
    encryption: Encryption | None = None
    retry: RetryPolicy = RetryPolicy()
    response: ResponsePolicy = ResponsePolicy()
    route: Route = Route()
    options: tuple[tuple[str, object], ...] = ()

    def option(self, name: str, kind: type[OptionT]) -> OptionT | None:
        """Return the value of a member of `notifier` that a feature declares; None if it is omitted."""
        value = dict(self.options).get(name)
        assert value is None or isinstance(value, kind), f"{name} is declared as another type"
        return value

    @property
    def issued_id(self) -> str:
        """The `client_id` at the issuer, for which tokens are made: that of its leader, if it follows one."""
        return self.follows or self.client_id

    @property
    def logout_uri(self) -> str | None:
        """The URI that a worker calls: its channel's, the back-channel URI, or a front-channel URI for the worker."""
        if self.channel is not None:
            return self.channel.uri
        if self.backchannel_logout_uri is not None:
            return self.backchannel_logout_uri
        if (front := self.front_channel) is None or front.way is not FrontChannelWay.SERVER:
            return None
        return front.frontchannel_logout_uri

    @property
    def channel_kind(self) -> str:
        """The key of its channel: the kind of its own, `back_channel`, or `front_channel` without such a URI."""
        if self.channel is not None:
            return self.channel.kind
        return FRONT_CHANNEL if self.backchannel_logout_uri is None else BACK_CHANNEL

    @property
    def key(self) -> ClientKey:
        """The key of the client. The same `client_id` at two issuers is two clients."""
        return (self.iss, self.client_id)
