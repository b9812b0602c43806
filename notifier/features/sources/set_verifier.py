"""Verifies Security Event Tokens (RFC 8417) of one transmitter, by the keys that it publishes."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from notifier.tokens.security_event_token import (
    SET_ALGORITHMS,
    SET_TYPES,
    KeysAway,
    SetError,
    UnacceptedSet,
    VerifiedSet,
    judge_claims,
)
from notifier.tokens.signed_content import SignedContent, TokenFault, UnverifiedToken
from notifier.tokens.transmitter_keys import TransmitterKeys

_ERRORS: Mapping[TokenFault, SetError] = MappingProxyType(
    {
        TokenFault.MALFORMED: "invalid_request",
        TokenFault.NO_KEY: "invalid_key",
        TokenFault.FORGED: "authentication_failed",
    }
)


class SetVerifier:
    """Verifies tokens of `issuer` for `audience`. `clock` gives epoch seconds."""

    def __init__(self, keys: TransmitterKeys, *, issuer: str, audience: str, clock: Callable[[], float]) -> None:
        self._signed = SignedContent(keys, SET_ALGORITHMS, SET_TYPES, "the body")
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    async def verified(self, token: bytes) -> VerifiedSet | UnacceptedSet | KeysAway:
        """Verify a token. Never raises."""
        content = await self._signed.of(token.strip())
        if isinstance(content, KeysAway):
            return content
        if isinstance(content, UnverifiedToken):
            return UnacceptedSet(err=_ERRORS[content.fault], description=content.text)
        mistake = judge_claims(content.claims, issuer=self._issuer, audience=self._audience, now=self._clock())
        return VerifiedSet(claims=content.payload) if mistake is None else mistake
