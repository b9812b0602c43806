"""Validate the access tokens (JWT, RFC 9068) of operators who have signed in, and the ID token of a sign-in.

A token is verified once and cached by its SHA-256 until it expires, so that polling verifies no signature. Two rules
are stricter than the RFC: the token must be issued to the console's client, since another application could obtain one
from an operator; and it is accepted for one hour at most, so that the withdrawal of a role takes effect.
"""

import base64
import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeGuard

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.features.console.console_settings import OidcSettings
from notifier.features.console.sign_in_provider import RETRY_SECONDS, SignInProvider
from notifier.model.api_token import ApiToken, Scope
from notifier.model.frozen import frozen
from notifier.model.moment import Clock, is_in_milliseconds
from notifier.network.http.issuer_documents import DocumentReader
from notifier.network.listeners.authorization import unauthorized
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.tokens.security_event_token import SET_ALGORITHMS, KeysUnavailable
from notifier.tokens.signed_content import SignedClaims, SignedContent, UnverifiedToken, read_unverified_claims

MAX_LIFETIME_SECONDS = 3600.0  # seconds from `iat`; tokens of Entra ID live up to 90 minutes
MAX_SKEW_SECONDS = 60.0  # seconds that two clocks may differ
TYPES = ("at+jwt", "application/at+jwt")
ALL_ISSUERS = "*"
_MAX_SUBJECT_CHARS = 255  # characters (OpenID Connect Core 1.0 §2)
_MAX_NAME_CHARS = 64
_SPACE_SEPARATED_CLAIMS = ("scope", "scp")  # (RFC 8693 §4.2)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@frozen
class RejectedToken:
    """Why a token is rejected. `text` is safe to show to anyone. `known`: the user is authenticated."""

    text: str
    known: bool = False


@frozen
class AccessRules:
    """The rules for tokens. `issuers`: the configured issuers. `hashed` returns a user's keyed hash."""

    oidc: OidcSettings
    issuers: frozenset[str]
    hashed: Callable[[str], str]


def check_access_token(
    claims: Mapping[str, object], digest: bytes, rules: AccessRules, now: float
) -> ApiToken | RejectedToken:
    """Return the permissions of a verified token, or why it is rejected. `digest`: its SHA-256."""
    oidc = rules.oidc
    mistake = _find_error(claims, oidc)
    if mistake is not None:
        return RejectedToken(text=mistake)
    iat, exp, nbf = claims.get("iat"), claims.get("exp"), claims.get("nbf", 0)
    if not _number(iat) or not _number(exp) or not _number(nbf):
        return RejectedToken(text="iat and exp must be numbers of seconds, and nbf if it is there")
    if max(iat, nbf) > now + MAX_SKEW_SECONDS:
        return RejectedToken(text=_format_future(iat, nbf))
    until = min(float(exp), iat + MAX_LIFETIME_SECONDS)
    if until + MAX_SKEW_SECONDS <= now:
        return RejectedToken(text="the token has expired")
    roles = _values_at(claims, oidc.scopes_claim)
    scopes: frozenset[Scope] = frozenset(scope for role in roles for scope in oidc.map.get(role, ()))
    if not scopes:
        text = f"nothing in {'.'.join(oidc.scopes_claim)} of your token may do anything here (api.console.oidc.map)"
        return RejectedToken(text=text, known=True)
    issuers = _values_at(claims, oidc.issuers_claim) if oidc.issuers_claim else None
    if issuers is not None:
        issuers = None if ALL_ISSUERS in issuers else issuers & rules.issuers
        if issuers is not None and not issuers:
            text = f"{'.'.join(oidc.issuers_claim)} of your token names no issuer that is configured here"
            return RejectedToken(text=text, known=True)
    return ApiToken(
        name=_user_name(claims, rules), sha256=digest, scopes=scopes, issuers=issuers, expires=until + MAX_SKEW_SECONDS
    )


@frozen
class SignIn:
    """The expected values of a sign-in's ID token: its `nonce`, and the provider's code and access token."""

    nonce: str
    code: str
    access_token: str


def _format_future(iat: float, nbf: float) -> str:
    if is_in_milliseconds(max(iat, nbf)):
        return "iat or nbf is in milliseconds; it must be in seconds"
    return "iat or nbf is in the future; compare the clocks"


def find_id_token_error(content: SignedClaims, sign_in: SignIn, oidc: OidcSettings, now: float) -> str | None:
    """Return the error in a verified ID token, or None (OpenID Connect Core 3.1.3.7, 3.1.3.8, 3.3.2.11).

    Its `sub` is not compared with that of the access token: some providers use two for one user.
    """
    claims = content.claims
    aud, azp = claims.get("aud"), claims.get("azp")
    if claims.get("iss") != oidc.issuer:
        return "iss is another issuer"
    if not has_audience(aud, oidc.client_id):
        return "aud does not name the console (api.console.oidc.client_id)"
    if azp != oidc.client_id and ("azp" in claims or (isinstance(aud, list) and len(aud) > 1)):
        return "azp is another client than the console"
    if claims.get("nonce") != sign_in.nonce:
        return "nonce is another one"
    iat, exp, nbf = claims.get("iat"), claims.get("exp"), claims.get("nbf", 0)
    if not _number(iat) or not _number(exp) or not _number(nbf):
        return "iat and exp must be numbers of seconds, and nbf if it is there"
    if max(iat, nbf) > now + MAX_SKEW_SECONDS:
        return _format_future(iat, nbf)
    if exp + MAX_SKEW_SECONDS <= now:
        return "it has expired; compare the clocks"
    for name, value in (("at_hash", sign_in.access_token), ("c_hash", sign_in.code)):
        if name in claims and claims[name] != half_hash(value, content.alg):
            return f"{name} is that of another {'access token' if name == 'at_hash' else 'code'}"
    return None


def half_hash(value: str, alg: str) -> str:
    """Return the left half of the value's hash in base64url, as `at_hash` and `c_hash` have it.

    The ID token's algorithm determines the hash; Ed25519 uses SHA-512 (RFC 8032 §5.1).
    """
    bits = "512" if alg.startswith("Ed") else alg[2:]
    digest = hashlib.new(f"sha{bits}", value.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).decode().rstrip("=")


def has_audience(aud: object, audience: str) -> bool:
    """Return whether an `aud` contains this audience."""
    return audience in (aud if isinstance(aud, list) else [aud])


def _find_error(claims: Mapping[str, object], oidc: OidcSettings) -> str | None:
    """Return the error in the claims without times. Keycloak and Entra ID write `azp` instead of `client_id`."""
    if claims.get("iss") != oidc.issuer:
        return "iss is another issuer"
    if not has_audience(claims.get("aud"), oidc.audience):
        return "aud does not name this API (api.console.oidc.audience)"
    if "events" in claims:
        return "it has events: a logout token is not an access token"
    if "at_hash" in claims:
        return "it has at_hash: an ID token is not an access token"
    if claims.get("client_id", claims.get("azp")) != oidc.client_id:
        return "client_id, or azp, is another client than the console"
    sub = claims.get("sub")
    if not isinstance(sub, str) or not 0 < len(sub) <= _MAX_SUBJECT_CHARS or _UNPRINTABLE.search(sub):
        return f"sub is missing, or is not a plain text of 1 to {_MAX_SUBJECT_CHARS} characters"
    return None


def _values_at(claims: Mapping[str, object], path: Sequence[str]) -> frozenset[str]:
    """Return the string, or the strings of the list, at this path of claims."""
    value: object = claims
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return frozenset(value.split() if path[-1] in _SPACE_SEPARATED_CLAIMS else (value,))
    return frozenset(each for each in value if isinstance(each, str)) if isinstance(value, list) else frozenset()


def _user_name(claims: Mapping[str, object], rules: AccessRules) -> str:
    """Return the user's name for the audit log, with a hash, since users can choose their names."""
    hashed = "user " + rules.hashed(f"{claims['iss']}#{claims['sub']}")
    name = claims.get(rules.oidc.name_claim) if rules.oidc.name_claim is not None else None
    if not isinstance(name, str) or not name:
        return hashed
    return f"{''.join(char if char.isprintable() else '·' for char in name[:_MAX_NAME_CHARS])} ({hashed})"


def _number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


MAX_TOKEN_CHARS = 8000  # the API accepts no longer header line
MAX_CACHED_TOKENS = 1000  # a few hundred bytes each


class SignInTokens:
    """Caches validated tokens. `live` has egress and issuers; `hashed` returns a user's hash for the audit log."""

    def __init__(
        self,
        oidc: OidcSettings,
        live: LiveConfiguration,
        hashed: Callable[[str], str],
        clock: Clock = time.time,
        steady: Clock = time.monotonic,
    ) -> None:
        self.oidc = oidc
        self._live = live
        self._hashed = hashed
        self._clock = clock
        self._reader = DocumentReader()
        self.provider = SignInProvider(
            oidc, self._reader, lambda: live.current.settings.template().route.egress, steady
        )
        types = (*TYPES, "jwt") if oidc.accept_typ_jwt else TYPES
        keys = self.provider.keys
        self._access = SignedContent(keys, SET_ALGORITHMS, types, "the token", typed=True)
        self._identity = SignedContent(keys, SET_ALGORITHMS, ("jwt",), "the ID token")
        self._cached: dict[bytes, ApiToken] = {}

    async def aclose(self) -> None:
        """Close the reader of documents."""
        await self._reader.close()

    async def authenticate_bearer(self, bearer: str) -> ApiToken | None:
        """Return the permissions of an access token; None if it is not a JWT. Raises Refusal (401, 403, 503)."""
        if bearer.count(".") != 2:
            return None
        raw = bearer.encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(raw).digest()
        if (cached := self._cached.get(digest)) is not None:
            return cached
        if len(raw) > MAX_TOKEN_CHARS:
            raise unauthorized(
                f"The token is not accepted: it has more than {MAX_TOKEN_CHARS:,} bytes; have the provider put less"
                " in it"
            )
        if read_unverified_claims(raw).get("iss") != self.oidc.issuer:  # before a key is requested
            raise unauthorized("The token is not accepted: iss is another issuer")
        content = await self._access.verify(raw)
        if isinstance(content, KeysUnavailable):
            raise _keys_unavailable()
        if isinstance(content, UnverifiedToken):
            raise unauthorized(f"The token is not accepted: {content.text}")
        rules = AccessRules(oidc=self.oidc, issuers=frozenset(self._live.registry().issuers), hashed=self._hashed)
        token = check_access_token(content.claims, digest, rules, self._clock())
        if isinstance(token, ApiToken):
            self._cache_token(token)
            return token
        if token.known:
            challenge = {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}
            raise Refusal(problem_response(403, f"You are signed in, but {token.text}", headers=challenge))
        raise unauthorized(f"The token is not accepted: {token.text}")

    async def refuse_identity(self, id_token: str, sign_in: SignIn) -> None:
        """Raise Refusal (401, 503) unless it is the ID token of this sign-in."""
        content = await self._identity.verify(id_token.encode("utf-8", "surrogatepass"))
        if isinstance(content, KeysUnavailable):
            raise _keys_unavailable()
        if isinstance(content, SignedClaims):
            mistake = find_id_token_error(content, sign_in, self.oidc, self._clock())
            if mistake is None:
                return
        else:
            mistake = content.text
        raise Refusal(problem_response(401, f"The ID token is not that of this sign-in: {mistake}. Sign in again"))

    def _cache_token(self, token: ApiToken) -> None:
        """Cache a token. At the limit, drop expired tokens, then the oldest."""
        if len(self._cached) >= MAX_CACHED_TOKENS:
            now = self._clock()
            self._cached = {digest: cached for digest, cached in self._cached.items() if (cached.expires or 0.0) > now}
            while len(self._cached) >= MAX_CACHED_TOKENS:
                del self._cached[next(iter(self._cached))]
        self._cached[token.sha256] = token


def _keys_unavailable() -> Refusal:
    title = "The keys of the provider at which you signed in cannot be read; try again soon"
    return Refusal(problem_response(503, title, headers={"Retry-After": f"{RETRY_SECONDS:.0f}"}))
