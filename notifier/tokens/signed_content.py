"""Reads the claims of a signed token in compact form (RFC 7515), once published keys have verified its signature."""

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from enum import Enum, auto
from typing import Any

from notifier.model.client import Algorithm
from notifier.model.frozen import frozen
from notifier.tokens.jws import is_signed_by
from notifier.tokens.security_event_token import KeysUnavailable
from notifier.tokens.transmitter_keys import MAX_TRIED_KEYS, TransmitterKeys

MAX_TOKEN_CHARS = 16_384  # bytes of a token: to decode one of 128 KiB, which may be anybody's, held the loop for 20 ms


class TokenFault(Enum):
    """Why a token is not believed."""

    MALFORMED = auto()
    NO_KEY = auto()
    FORGED = auto()


@frozen
class UnverifiedToken:
    """A token that is not believed. `text` is safe to show to strangers."""

    fault: TokenFault
    text: str


@frozen
class SignedClaims:
    """The signed claims, the JSON of them, and the `alg` of the signature."""

    claims: Mapping[str, Any]
    payload: bytes
    alg: str


class SignedContent:
    """Verifies signatures by the keys of one issuer, with public keys of these algorithms alone.

    `types`: what `typ` may be, the first as it should be. It may be absent, as most specifications only recommend it,
    unless it is `typed`. `title`: how a text names a token.
    """

    def __init__(
        self,
        keys: TransmitterKeys,
        algorithms: Collection[str],
        types: Sequence[str],
        title: str,
        *,
        typed: bool = False,
    ) -> None:
        self._keys = keys
        self._algorithms = sorted(algorithms)
        self._types = types
        self._typed = typed
        self._malformed = UnverifiedToken(fault=TokenFault.MALFORMED, text=f"{title} is no signed JWT in compact form")

    async def verify(self, token: bytes) -> SignedClaims | UnverifiedToken | KeysUnavailable:
        """Return the signed claims, or the reason against them. Never raises."""
        if len(token) > MAX_TOKEN_CHARS:
            text = f"the token is larger than {MAX_TOKEN_CHARS // 1024} KiB"
            return UnverifiedToken(fault=TokenFault.MALFORMED, text=text)
        header = _header(token)
        if header is None:
            return self._malformed
        if (fault := self._check_header(header)) is not None:
            return fault
        payload = await self._verify_payload(token, header.get("kid"), header["alg"])
        if not isinstance(payload, bytes):
            return payload
        claims = _claims(payload)
        return self._malformed if claims is None else SignedClaims(claims=claims, payload=payload, alg=header["alg"])

    def _check_header(self, header: Mapping[str, object]) -> UnverifiedToken | None:
        """Return what is wrong with the JOSE header; None if nothing is."""
        typ, alg, text = header.get("typ"), header.get("alg"), None
        if (typ is not None or self._typed) and (not isinstance(typ, str) or typ.lower() not in self._types):
            text = f"typ is not {self._types[0]}"
        elif "crit" in header:
            text = "crit names extensions, and none is understood"
        elif not isinstance(header.get("kid", ""), str):
            text = "kid is not a text"
        elif alg not in self._algorithms:
            return UnverifiedToken(fault=TokenFault.FORGED, text=f"alg is none of {', '.join(self._algorithms)}")
        return None if text is None else UnverifiedToken(fault=TokenFault.MALFORMED, text=text)

    async def _verify_payload(
        self, token: bytes, kid: str | None, alg: str
    ) -> bytes | UnverifiedToken | KeysUnavailable:
        """Return the payload if a key verifies the signature. If none does, try the key set once more, reread."""
        message, _, signature = token.rpartition(b".")
        tried = 0
        for reread in (False, True):
            keys = await self._keys.matching_keys(kid, alg, reread=reread)
            if isinstance(keys, KeysUnavailable):
                return keys
            if not keys:
                break
            tried = len(keys)
            if any(is_signed_by(key.key, Algorithm(alg), message, _decode(signature)) for key in keys):
                return _decode(message.partition(b".")[2])
            if kid is not None and any(key.kid == kid for key in keys):
                return _FORGED
        if tried == 0:
            return _NO_KEY
        return _FORGED if tried < MAX_TRIED_KEYS else _TOO_MANY


def read_unverified_claims(token: bytes) -> Mapping[str, Any]:
    """Return the unverified claims of a token. Empty if it cannot be read."""
    _, _, rest = token.partition(b".")
    payload = b"" if len(token) > MAX_TOKEN_CHARS else rest.partition(b".")[0]
    return _claims(_decode(payload)) or {}


_NO_KEY = UnverifiedToken(fault=TokenFault.NO_KEY, text="the issuer publishes no key that fits kid and alg")
_TOO_MANY = UnverifiedToken(
    fault=TokenFault.FORGED,
    text=f"none of the {MAX_TRIED_KEYS} keys that are tried verifies the signature; name the key by kid",
)
_FORGED = UnverifiedToken(fault=TokenFault.FORGED, text="the signature is wrong")


def _header(token: bytes) -> dict[str, Any] | None:
    """Return the JOSE header, not yet proven. None if there is none."""
    first = token.partition(b".")[0]
    if token.count(b".") != 2:
        return None
    try:
        header = json.loads(_decode(first))
    except (ValueError, RecursionError):
        return None
    return {name: value for name, value in header.items() if value is not None} if isinstance(header, dict) else None


def _decode(part: bytes) -> bytes:
    """Decode a part of a token. Empty if it is not base64url."""
    try:
        return base64.b64decode(part + b"=" * (-len(part) % 4), b"-_", validate=True)
    except ValueError:
        return b""


def _claims(payload: bytes) -> dict[str, Any] | None:
    """Return the claims of a token. None if they are not a JSON object."""
    try:
        claims = json.loads(payload.decode(), parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
