"""Verifies Security Event Tokens (RFC 8417) of one transmitter, by the keys that it publishes."""

import base64
import json
from collections.abc import Callable
from typing import Any

import jwt

from notifier.adapters.security_events.transmitter_keys import TransmitterKeys
from notifier.domain.security_event_token import (
    SET_ALGORITHMS,
    KeysAway,
    UnacceptedSet,
    VerifiedSet,
    judge_claims,
    judge_header,
)

LONGEST = 16_384  # bytes of a token: to decode one of 128 KiB, which may be anybody's, held the loop for 20 ms
_LONGEST_HEADER = 4096
_MOST_TRIED = 8  # keys that a token without a kid is tried with
_NO_SET = UnacceptedSet(err="invalid_request", description="the body is no signed JWT in compact form")
_NO_KEY = UnacceptedSet(err="invalid_key", description="the issuer publishes no key that fits kid and alg")
_FORGED = UnacceptedSet(err="authentication_failed", description="the signature is wrong")


class SetVerifier:
    """Verifies tokens of `issuer` for `audience`. `clock` gives epoch seconds."""

    def __init__(self, keys: TransmitterKeys, *, issuer: str, audience: str, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._jws = jwt.PyJWS(algorithms=sorted(SET_ALGORITHMS))

    async def verified(self, token: bytes) -> VerifiedSet | UnacceptedSet | KeysAway:
        """Verify a token. Never raises."""
        token = token.strip()
        if len(token) > LONGEST:
            text = f"the token is larger than {LONGEST // 1024} KiB"
            return UnacceptedSet(err="invalid_request", description=text)
        header = _header(token)
        if header is None:
            return _NO_SET
        if (mistake := judge_header(header)) is not None:
            return mistake
        payload = await self._payload(token, header.get("kid"), header["alg"])
        return self._judge(payload) if isinstance(payload, bytes) else payload

    async def _payload(self, token: bytes, kid: str | None, alg: str) -> bytes | UnacceptedSet | KeysAway:
        """The signed content."""
        for doubted in (False, True):
            keys = await self._keys.fitting(kid, alg, doubted=doubted)
            if isinstance(keys, KeysAway):
                return keys
            if not keys:
                return _FORGED if doubted else _NO_KEY
            for key in keys[:_MOST_TRIED]:
                try:
                    payload: bytes = self._jws.decode_complete(token, key, algorithms=[alg])["payload"]
                except jwt.InvalidSignatureError:
                    continue
                except jwt.PyJWTError:
                    return _NO_SET
                return payload
            if kid is not None and any(key.key_id == kid for key in keys):
                return _FORGED
        return _FORGED

    def _judge(self, payload: bytes) -> VerifiedSet | UnacceptedSet:
        try:
            claims = json.loads(payload.decode(), parse_constant=_refuse)
        except (ValueError, RecursionError):
            return _NO_SET
        if not isinstance(claims, dict):
            return _NO_SET
        mistake = judge_claims(claims, issuer=self._issuer, audience=self._audience, now=self._clock())
        return VerifiedSet(claims=payload) if mistake is None else mistake


def _header(token: bytes) -> dict[str, Any] | None:
    """The JOSE header, not yet proven. None if there is none."""
    first = token.partition(b".")[0]
    if token.count(b".") != 2 or len(first) > _LONGEST_HEADER:
        return None
    try:
        header = json.loads(base64.b64decode(first + b"=" * (-len(first) % 4), b"-_", validate=True))
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
