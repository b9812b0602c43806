"""Verifies Security Event Tokens (RFC 8417) of one transmitter, by the keys that it publishes."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from notifier.tokens.security_event_token import (
    SET_ALGORITHMS,
    KeysAway,
    UnacceptedSet,
    VerifiedSet,
    judge_claims,
    judge_header,
)
from notifier.tokens.signed_content import LONGEST, SignedContent, Unverified, read_claims, read_header
from notifier.tokens.transmitter_keys import TransmitterKeys

_NO_SET = UnacceptedSet(err="invalid_request", description="the body is no signed JWT in compact form")
_UNVERIFIED: Mapping[Unverified, UnacceptedSet] = MappingProxyType(
    {
        Unverified.NO_JWS: _NO_SET,
        Unverified.NO_KEY: UnacceptedSet(
            err="invalid_key", description="the issuer publishes no key that fits kid and alg"
        ),
        Unverified.FORGED: UnacceptedSet(err="authentication_failed", description="the signature is wrong"),
    }
)


class SetVerifier:
    """Verifies tokens of `issuer` for `audience`. `clock` gives epoch seconds."""

    def __init__(self, keys: TransmitterKeys, *, issuer: str, audience: str, clock: Callable[[], float]) -> None:
        self._signed = SignedContent(keys, SET_ALGORITHMS)
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    async def verified(self, token: bytes) -> VerifiedSet | UnacceptedSet | KeysAway:
        """Verify a token. Never raises."""
        token = token.strip()
        if len(token) > LONGEST:
            text = f"the token is larger than {LONGEST // 1024} KiB"
            return UnacceptedSet(err="invalid_request", description=text)
        header = read_header(token)
        if header is None:
            return _NO_SET
        if (mistake := judge_header(header)) is not None:
            return mistake
        payload = await self._signed.of(token, header.get("kid"), header["alg"])
        if isinstance(payload, Unverified):
            return _UNVERIFIED[payload]
        return payload if isinstance(payload, KeysAway) else self._judge(payload)

    def _judge(self, payload: bytes) -> VerifiedSet | UnacceptedSet:
        claims = read_claims(payload)
        if claims is None:
            return _NO_SET
        mistake = judge_claims(claims, issuer=self._issuer, audience=self._audience, now=self._clock())
        return VerifiedSet(claims=payload) if mistake is None else mistake
