"""Validate the access tokens (JWT, RFC 9068) of operators who have signed in, and the ID token of a sign-in.

A token is verified once and cached by its SHA-256 until it expires, so that the console's polling needs no signature
check. Two rules are stricter than the RFC. The token must be issued to the console's client, since an operator may give
another application a token. It is accepted for one hour at most, so that a withdrawn role takes effect.
"""

import base64
import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.features.console.console_settings import OidcSettings
from notifier.features.console.sign_in_provider import RETRY_SECONDS, SignInProvider
from notifier.model.moment import Clock, is_in_milliseconds
from notifier.model.record import record
from notifier.model.shared_resources import shared_bound
from notifier.network.http.issuer_documents import DocumentReader
from notifier.network.listeners.authorization import unauthorized
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.settings.api_tokens import ApiToken, Scope
from notifier.tokens.security_event_token import SET_ALGORITHMS, KeysUnavailable, has_audience, is_claim_time
from notifier.tokens.signed_content import SignedClaims, SignedContent, UnverifiedToken, read_unverified_claims

MAX_LIFETIME_SECONDS = 3600.0  # from `iat`; tokens of Entra ID are valid for up to 90 minutes
MAX_SKEW_SECONDS = 60.0  # between the clocks of the provider and this worker
TYPES = ("at+jwt", "application/at+jwt")
ALL_ISSUERS = "*"
_MAX_SUBJECT_CHARS = 255  # OpenID Connect Core 1.0 §2
_MAX_NAME_CHARS = 64
_SPACE_SEPARATED_CLAIMS = ("scope", "scp")  # RFC 8693 §4.2
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@record
class RejectedToken:
    """Why an access token is rejected. `text` contains no secrets.

    `is_authentic`: the token proves the user's identity, but the user has no permissions.
    """

    text: str
    is_authentic: bool = False


@record
class AccessRules:
    """The rules for access tokens. `issuers`: those configured here. `hash_user` returns a user's keyed hash."""

    oidc: OidcSettings
    issuers: frozenset[str]
    hash_user: Callable[[str], str]


def check_access_token(
    claims: Mapping[str, object], digest: bytes, rules: AccessRules, now: float
) -> ApiToken | RejectedToken:
    """Return the permissions of a token whose signature is verified, or why it is rejected. `digest`: its SHA-256."""
    oidc = rules.oidc
    mistake = _find_claims_error(claims, oidc)
    if mistake is not None:
        return RejectedToken(text=mistake)
    iat, exp, nbf = claims.get("iat"), claims.get("exp"), claims.get("nbf", 0)
    if not is_claim_time(iat) or not is_claim_time(exp) or not is_claim_time(nbf):
        return RejectedToken(text="iat and exp must be numbers of seconds, and nbf if it is there")
    if max(iat, nbf) > now + MAX_SKEW_SECONDS:
        return RejectedToken(text=_explain_future(iat, nbf))
    expires = min(float(exp), iat + MAX_LIFETIME_SECONDS) + MAX_SKEW_SECONDS
    if expires <= now:
        return RejectedToken(text="the token has expired")
    roles = _values_at(claims, oidc.scopes_claim)
    scopes: frozenset[Scope] = frozenset(scope for role in roles for scope in oidc.map.get(role, ()))
    if not scopes:
        text = f"nothing in {'.'.join(oidc.scopes_claim)} of your token may do anything here (api.console.oidc.map)"
        return RejectedToken(text=text, is_authentic=True)
    named = _values_at(claims, oidc.issuers_claim) if oidc.issuers_claim else frozenset({ALL_ISSUERS})
    issuers = None if ALL_ISSUERS in named else named & rules.issuers  # None: all issuers
    if issuers is not None and not issuers:
        text = f"{'.'.join(oidc.issuers_claim)} of your token names no issuer that is configured here"
        return RejectedToken(text=text, is_authentic=True)
    name = _format_user_name(claims, rules)
    return ApiToken(name=name, sha256=digest, scopes=scopes, issuers=issuers, expires=expires)


@record
class SignIn:
    """The values to which the ID token of a sign-in must belong: the nonce, the code and the access token."""

    nonce: str
    code: str
    access_token: str


def _explain_future(iat: float, nbf: float) -> str:
    """Return the error of a token that is valid only in the future."""
    if is_in_milliseconds(max(iat, nbf)):
        return "iat or nbf is in milliseconds; it must be in seconds"
    return "iat or nbf is in the future; compare the clocks"


def find_id_token_error(content: SignedClaims, sign_in: SignIn, oidc: OidcSettings, now: float) -> str | None:
    """Return the error in a verified ID token, or None (OpenID Connect Core 3.1.3.7, 3.1.3.8, 3.3.2.11).

    The `sub` may differ from that of the access token: some providers use two identifiers for a user.
    """
    claims = content.claims
    aud, azp = claims.get("aud"), claims.get("azp")
    if claims.get("iss") != oidc.issuer:
        return "iss is another issuer"
    if not has_audience(aud, {oidc.client_id}):
        return "aud does not name the console (api.console.oidc.client_id)"
    has_several_audiences = isinstance(aud, list) and len(aud) > 1
    requires_azp = "azp" in claims or has_several_audiences
    if requires_azp and azp != oidc.client_id:
        return "azp is another client than the console"
    if claims.get("nonce") != sign_in.nonce:
        return "nonce is another one"
    iat, exp, nbf = claims.get("iat"), claims.get("exp"), claims.get("nbf", 0)
    if not is_claim_time(iat) or not is_claim_time(exp) or not is_claim_time(nbf):
        return "iat and exp must be numbers of seconds, and nbf if it is there"
    if max(iat, nbf) > now + MAX_SKEW_SECONDS:
        return _explain_future(iat, nbf)
    if exp + MAX_SKEW_SECONDS <= now:
        return "it has expired; compare the clocks"
    if "at_hash" in claims and claims["at_hash"] != half_hash(sign_in.access_token, content.alg):
        return "at_hash is that of another access token"
    if "c_hash" in claims and claims["c_hash"] != half_hash(sign_in.code, content.alg):
        return "c_hash is that of another code"
    return None


def half_hash(value: str, alg: str) -> str:
    """Return the value for `at_hash` or `c_hash`: the left half of a hash in base64url.

    The ID token's `alg` determines the hash function: ES256 has SHA-256, Ed25519 has SHA-512 (RFC 8032 §5.1).
    """
    bits = "512" if alg.startswith("Ed") else alg[2:]
    digest = hashlib.new(f"sha{bits}", value.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).decode().rstrip("=")


def _find_claims_error(claims: Mapping[str, object], oidc: OidcSettings) -> str | None:
    """Return the error in the claims of an access token, except for its times; None if they are right.

    Keycloak and Entra ID write `azp` instead of `client_id`.
    """
    if claims.get("iss") != oidc.issuer:
        return "iss is another issuer"
    if not has_audience(claims.get("aud"), {oidc.audience}):
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
    """Return the values of the claim at this path: a string, the strings of a list, or the parts of a scope."""
    value: object = claims
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return frozenset(value.split() if path[-1] in _SPACE_SEPARATED_CLAIMS else (value,))
    if isinstance(value, list):
        return frozenset(item for item in value if isinstance(item, str))
    return frozenset()


def _format_user_name(claims: Mapping[str, object], rules: AccessRules) -> str:
    """Return the user's name for the audit log, with a keyed hash, since users may choose their names."""
    hashed = "user " + rules.hash_user(f"{claims['iss']}#{claims['sub']}")
    name = claims.get(rules.oidc.name_claim) if rules.oidc.name_claim is not None else None
    if not isinstance(name, str) or not name:
        return hashed
    printable_name = "".join(char if char.isprintable() else "·" for char in name[:_MAX_NAME_CHARS])
    return f"{printable_name} ({hashed})"


MAX_TOKEN_CHARS = 8000  # the API's limit for a header line is little more
MAX_CACHED_TOKENS = shared_bound(1000)  # a few hundred bytes each


class SignInTokens:
    """Validates tokens of operators, and caches valid access tokens.

    `hash_user` returns a user's keyed hash for the audit log. `monotonic` is a clock that never jumps.
    """

    def __init__(
        self,
        oidc: OidcSettings,
        live: LiveConfiguration,
        hash_user: Callable[[str], str],
        clock: Clock = time.time,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self.oidc = oidc
        self._live = live
        self._hash_user = hash_user
        self._clock = clock
        self._reader = DocumentReader()
        self.provider = SignInProvider(
            oidc, self._reader, lambda: live.current.settings.template().route.egress, monotonic
        )
        types = (*TYPES, "jwt") if oidc.accept_typ_jwt else TYPES
        keys = self.provider.keys
        self._access_verifier = SignedContent(
            keys,
            SET_ALGORITHMS,
            types,
            "the token",
            typed=True,
            accepts=lambda claims: _is_authentic(self._check_access_token(claims, b"")),
        )
        self._identity_verifier = SignedContent(keys, SET_ALGORITHMS, ("jwt",), "the ID token")
        self._cache: dict[bytes, ApiToken] = {}

    async def aclose(self) -> None:
        """Close the reader of documents."""
        await self._reader.close()

    async def authenticate_bearer(self, bearer: str) -> ApiToken | None:
        """Return the permissions of an access token; None if it is not a JWT. Raises Refusal (401, 403, 503)."""
        if bearer.count(".") != 2:
            return None
        raw = bearer.encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(raw).digest()
        cached = self._cache.get(digest)
        if cached is not None:  # the caller refuses it after `expires`
            return cached
        if len(raw) > MAX_TOKEN_CHARS:
            raise unauthorized(
                f"The token is not accepted: it has more than {MAX_TOKEN_CHARS:,} bytes; have the provider put less"
                " in it"
            )
        if read_unverified_claims(raw).get("iss") != self.oidc.issuer:  # before keys are read
            raise unauthorized("The token is not accepted: iss is another issuer")
        content = await self._access_verifier.verify(raw)
        if isinstance(content, KeysUnavailable):
            raise _keys_unavailable()
        if isinstance(content, UnverifiedToken):
            raise unauthorized(f"The token is not accepted: {content.text}")
        token = self._check_access_token(content.claims, digest)
        if isinstance(token, ApiToken):
            self._cache_token(token)
            return token
        if token.is_authentic:
            challenge = {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}
            raise Refusal(problem_response(403, f"You are signed in, but {token.text}", headers=challenge))
        raise unauthorized(f"The token is not accepted: {token.text}")

    def _check_access_token(self, claims: Mapping[str, Any], digest: bytes) -> ApiToken | RejectedToken:
        rules = AccessRules(oidc=self.oidc, issuers=frozenset(self._live.registry().issuers), hash_user=self._hash_user)
        return check_access_token(claims, digest, rules, self._clock())

    async def check_id_token(self, id_token: str, sign_in: SignIn) -> None:
        """Raise Refusal (401, 503) unless the ID token is valid and belongs to the sign-in."""
        content = await self._identity_verifier.verify(id_token.encode("utf-8", "surrogatepass"))
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
        """Cache a token. At the limit, drop the expired tokens, and then the oldest."""
        if len(self._cache) >= MAX_CACHED_TOKENS:
            now = self._clock()
            self._cache = {
                digest: cached
                for digest, cached in self._cache.items()
                if cached.expires is not None and cached.expires > now
            }
            while len(self._cache) >= MAX_CACHED_TOKENS:
                del self._cache[next(iter(self._cache))]
        self._cache[token.sha256] = token


def _is_authentic(token: ApiToken | RejectedToken) -> bool:
    return isinstance(token, ApiToken) or token.is_authentic


def _keys_unavailable() -> Refusal:
    title = "The keys of the provider at which you signed in cannot be read; try again soon"
    return Refusal(problem_response(503, title, headers={"Retry-After": f"{RETRY_SECONDS:.0f}"}))
