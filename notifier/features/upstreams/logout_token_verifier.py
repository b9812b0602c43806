"""Verifies the logout tokens of one upstream OpenID Provider, by the keys that it publishes."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from notifier.features.upstreams.upstream_token import (
    UnacceptedLogout,
    UpstreamResult,
    UpstreamRules,
    VerifiedLogout,
    judge_logout,
    judge_logout_header,
)
from notifier.tokens.security_event_token import KeysAway
from notifier.tokens.signed_content import LONGEST, SignedContent, Unverified, read_claims, read_header
from notifier.tokens.transmitter_keys import TransmitterKeys

_NO_TOKEN = UnacceptedLogout(
    result=UpstreamResult.MALFORMED, description="logout_token is no signed JWT in compact form"
)
_UNVERIFIED: Mapping[Unverified, UnacceptedLogout] = MappingProxyType(
    {
        Unverified.NO_JWS: _NO_TOKEN,
        Unverified.NO_KEY: UnacceptedLogout(
            result=UpstreamResult.SIGNATURE, description="the issuer publishes no key that fits kid and alg"
        ),
        Unverified.FORGED: UnacceptedLogout(result=UpstreamResult.SIGNATURE, description="the signature is wrong"),
    }
)


class LogoutTokenVerifier:
    """Verifies tokens by the rules of one upstream. `clock` gives epoch seconds."""

    def __init__(self, keys: TransmitterKeys, rules: UpstreamRules, clock: Callable[[], float]) -> None:
        self._signed = SignedContent(keys, rules.algorithms)
        self._rules = rules
        self._clock = clock

    async def verified(self, token: bytes) -> VerifiedLogout | UnacceptedLogout | KeysAway:
        """Verify a token. Never raises."""
        header = read_header(token) if len(token) <= LONGEST else None
        if header is None:
            return _NO_TOKEN
        if (mistake := judge_logout_header(header, self._rules)) is not None:
            return mistake
        payload = await self._signed.of(token, header.get("kid"), header["alg"])
        if isinstance(payload, Unverified):
            return _UNVERIFIED[payload]
        if isinstance(payload, KeysAway):
            return payload
        claims = read_claims(payload)
        return _NO_TOKEN if claims is None else judge_logout(claims, self._rules, self._clock())
