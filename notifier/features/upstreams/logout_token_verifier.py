"""Verifies the logout tokens of one upstream OpenID Provider, by the keys that it publishes."""

from collections.abc import Callable

from notifier.features.upstreams.upstream_token import (
    TYPES,
    UnacceptedLogout,
    UpstreamResult,
    UpstreamRules,
    VerifiedLogout,
    judge_logout,
)
from notifier.tokens.security_event_token import KeysAway
from notifier.tokens.signed_content import SignedContent, TokenFault, UnverifiedToken
from notifier.tokens.transmitter_keys import TransmitterKeys


class LogoutTokenVerifier:
    """Verifies tokens by the rules of one upstream. `clock` gives epoch seconds."""

    def __init__(self, keys: TransmitterKeys, rules: UpstreamRules, clock: Callable[[], float]) -> None:
        self._signed = SignedContent(keys, rules.algorithms, TYPES, "logout_token")
        self._rules = rules
        self._clock = clock

    async def verified(self, token: bytes) -> VerifiedLogout | UnacceptedLogout | KeysAway:
        """Verify a token. Never raises."""
        content = await self._signed.of(token)
        if isinstance(content, KeysAway):
            return content
        if isinstance(content, UnverifiedToken):
            malformed = content.fault is TokenFault.MALFORMED
            result = UpstreamResult.MALFORMED if malformed else UpstreamResult.SIGNATURE
            return UnacceptedLogout(result=result, description=content.text)
        return judge_logout(content.claims, self._rules, self._clock())
