"""The content of a signed token in compact form (RFC 7515), once its signature is verified by published keys."""

import base64
import json
from collections.abc import Collection
from enum import Enum, auto
from typing import Any

import jwt

from notifier.tokens.security_event_token import KeysAway
from notifier.tokens.transmitter_keys import TransmitterKeys

LONGEST = 16_384  # bytes of a token: to decode one of 128 KiB, which may be anybody's, held the loop for 20 ms
_LONGEST_HEADER = 4096


class Unverified(Enum):
    """Why the content of a token is not believed."""

    NO_JWS = auto()
    NO_KEY = auto()
    FORGED = auto()


class SignedContent:
    """Verifies signatures by the keys of one issuer, with public keys of these algorithms alone."""

    def __init__(self, keys: TransmitterKeys, algorithms: Collection[str]) -> None:
        self._keys = keys
        self._jws = jwt.PyJWS(algorithms=sorted(algorithms))

    async def of(self, token: bytes, kid: str | None, alg: str) -> bytes | Unverified | KeysAway:
        """Return the content that was signed. `kid` and `alg` are those of the token's header."""
        for doubted in (False, True):
            keys = await self._keys.fitting(kid, alg, doubted=doubted)
            if isinstance(keys, KeysAway):
                return keys
            if not keys:
                return Unverified.FORGED if doubted else Unverified.NO_KEY
            for key in keys:
                try:
                    payload: bytes = self._jws.decode_complete(token, key, algorithms=[alg])["payload"]
                except jwt.InvalidSignatureError:
                    continue
                except jwt.PyJWTError:
                    return Unverified.NO_JWS
                return payload
            if kid is not None and any(key.key_id == kid for key in keys):
                return Unverified.FORGED
        return Unverified.FORGED


def read_header(token: bytes) -> dict[str, Any] | None:
    """The JOSE header, not yet proven. None if there is none."""
    first = token.partition(b".")[0]
    if token.count(b".") != 2 or len(first) > _LONGEST_HEADER:
        return None
    try:
        header = json.loads(base64.b64decode(first + b"=" * (-len(first) % 4), b"-_", validate=True))
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None


def read_claims(payload: bytes) -> dict[str, Any] | None:
    """The claims of a token. None if they are no JSON object."""
    try:
        claims = json.loads(payload.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
