"""Validate the access tokens of operators who have signed in.

A token is verified once and cached by its SHA-256 until it expires, so that polling verifies no signature.
"""

import hashlib
import time
from collections.abc import Callable

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.features.console.access_token import TYPES, AccessRules, SignIn, check_access_token, find_id_token_error
from notifier.features.console.console_settings import OidcSettings
from notifier.features.console.sign_in_provider import RETRY_SECONDS, SignInProvider
from notifier.model.api_token import ApiToken
from notifier.model.moment import Clock
from notifier.network.http.issuer_documents import DocumentReader
from notifier.network.listeners.authorization import unauthorized
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.tokens.security_event_token import SET_ALGORITHMS, KeysUnavailable
from notifier.tokens.signed_content import SignedClaims, SignedContent, UnverifiedToken, read_unverified_claims

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
        self.provider = SignInProvider(oidc, self._reader, lambda: live.now.settings.template().route.egress, steady)
        types = (*TYPES, "jwt") if oidc.accept_typ_jwt else TYPES
        keys = self.provider.keys
        self._access = SignedContent(keys, SET_ALGORITHMS, types, "the token", typed=True)
        self._identity = SignedContent(keys, SET_ALGORITHMS, ("jwt",), "the ID token")
        self._cached: dict[bytes, ApiToken] = {}

    async def aclose(self) -> None:
        """Close the reader of documents."""
        await self._reader.close()

    async def judge(self, bearer: str) -> ApiToken | None:
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
