"""Reads the claims of a signed token in compact form (RFC 7515), once published keys have verified its signature."""

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Protocol

from notifier.model.client import Algorithm
from notifier.model.record import record
from notifier.tokens.jws import is_signed_by
from notifier.tokens.security_event_token import KeysUnavailable
from notifier.tokens.transmitter_keys import MAX_TRIED_KEYS, VerifyingKey

MAX_TOKEN_BYTES = 16_384  # decoding an unauthenticated token of 128 KiB would block the event loop for 20 ms


class TokenFault(Enum):
    """The kind of error for which a token is refused."""

    MALFORMED = auto()
    NO_KEY = auto()
    FORGED = auto()


@record
class UnverifiedToken:
    """The reason why a token is refused. `text` has no secret: any sender of a token receives it."""

    fault: TokenFault
    text: str


@record
class SignedClaims:
    """The claims of a verified token, their JSON (`payload`), and the `alg` of the signature."""

    claims: Mapping[str, Any]
    payload: bytes
    alg: str


class IssuerKeys(Protocol):
    """The published keys of one issuer."""

    async def matching_keys(
        self, kid: str | None, alg: str, *, reread: bool = False, may_wait: Callable[[], bool] = lambda: True
    ) -> tuple[VerifyingKey, ...] | KeysUnavailable:
        """Return the keys that may verify a token with this header. See `TransmitterKeys`."""


class SignedContent:
    """Verifies tokens with the published keys of one issuer. Other algorithms than `algorithms` are refused.

    `types`: the accepted values of `typ`, the first being the recommended one. Most specifications only recommend
    `typ`, so it may be absent, unless `typed`. `title`: the name of a token in messages. `accepts`: returns True for
    claims that will be accepted if the signature is valid. Other tokens do not wait until keys are read again: anybody
    can send tokens with invented kids.
    """

    def __init__(
        self,
        keys: IssuerKeys,
        algorithms: Collection[str],
        types: Sequence[str],
        title: str,
        *,
        typed: bool = False,
        accepts: Callable[[Mapping[str, Any]], bool] = lambda _claims: True,
    ) -> None:
        self._keys = keys
        self._algorithms = sorted(algorithms)
        self._types = types
        self._typed = typed
        self._accepts = accepts
        self._malformed = UnverifiedToken(fault=TokenFault.MALFORMED, text=f"{title} is no signed JWT in compact form")

    async def verify(self, token: bytes) -> SignedClaims | UnverifiedToken | KeysUnavailable:
        """Return the claims of a token with a valid signature, or the reason for a refusal. Never raises."""
        if len(token) > MAX_TOKEN_BYTES:
            text = f"the token is larger than {MAX_TOKEN_BYTES // 1024} KiB"
            return UnverifiedToken(fault=TokenFault.MALFORMED, text=text)
        header = _parse_header(token)
        if header is None:
            return self._malformed
        fault = self._find_header_fault(header)
        if fault is not None:
            return fault
        payload = await self._verify_payload(token, header.get("kid"), header["alg"])
        if not isinstance(payload, bytes):
            return payload
        claims = _parse_claims(payload)
        return self._malformed if claims is None else SignedClaims(claims=claims, payload=payload, alg=header["alg"])

    def _find_header_fault(self, header: Mapping[str, object]) -> UnverifiedToken | None:
        """Return the fault of the JOSE header; None if it is acceptable."""
        typ, alg, text = header.get("typ"), header.get("alg"), None
        is_accepted_typ = isinstance(typ, str) and typ.lower() in self._types
        may_lack_typ = typ is None and not self._typed
        if not is_accepted_typ and not may_lack_typ:
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
        """Return the payload if a published key verifies the signature.

        If no key does, and none has the `kid` of the token, the keys are read again once.
        """
        message, _, signature = token.rpartition(b".")
        tried = 0

        def may_wait() -> bool:
            return self._accepts(read_unverified_claims(token))

        for reread in (False, True):
            keys = await self._keys.matching_keys(kid, alg, reread=reread, may_wait=may_wait)
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
    """Return the unverified claims of a token. Empty if the token is malformed or too long."""
    if len(token) > MAX_TOKEN_BYTES:
        return {}
    _, _, payload_and_signature = token.partition(b".")
    payload, _, _ = payload_and_signature.partition(b".")
    return _parse_claims(_decode(payload)) or {}


_NO_KEY = UnverifiedToken(fault=TokenFault.NO_KEY, text="the issuer publishes no key that fits kid and alg")
_TOO_MANY = UnverifiedToken(
    fault=TokenFault.FORGED,
    text=f"none of the {MAX_TRIED_KEYS} keys that are tried verifies the signature; name the key by kid",
)
_FORGED = UnverifiedToken(fault=TokenFault.FORGED, text="the signature is wrong")


def _parse_header(token: bytes) -> dict[str, Any] | None:
    """Return the unverified JOSE header without null members; None if the token is malformed."""
    if token.count(b".") != 2:
        return None
    try:
        header = json.loads(_decode(token.partition(b".")[0]))
    except (ValueError, RecursionError):
        return None
    return {name: value for name, value in header.items() if value is not None} if isinstance(header, dict) else None


def _decode(part: bytes) -> bytes:
    """Return a decoded part of a token. Empty if the part cannot be decoded."""
    try:
        return base64.b64decode(part + b"=" * (-len(part) % 4), b"-_", validate=True)
    except ValueError:
        return b""


def _parse_claims(payload: bytes) -> dict[str, Any] | None:
    """Return the claims of a token; None if they are not a JSON object."""
    try:
        claims = json.loads(payload.decode(), parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
