"""Declares a signer: an HSM, a key service, anything that returns signatures and keeps the private key.

`ExternalKey` wraps each signer: it bounds time and number, verifies every signature, pauses after a fault, and counts.
So a signer does none of this: it sends one request, without its own time limit or retry.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from notifier.model.client import Algorithm
from notifier.model.errors import NotifierError
from notifier.tokens.jws import PublicKey


class SignatureResult(StrEnum):
    """The result of a request to a signer, and the metric label."""

    OK = "ok"
    SLOW = "slow"  # nothing within 2 s
    AWAY = "away"  # it cannot sign now: throttled, sealed, crashed, not reached
    WRONG = "wrong"  # it will not sign until an operator corrects it: no such key, no permission, a wrong PIN
    UNVERIFIED = "unverified"  # the public key does not verify what it signed


SignatureObserver: TypeAlias = Callable[[str, SignatureResult, float], None]
"""Receives the kind of signer, its result, and the seconds that it took."""


class SignerError(NotifierError):
    """A request to a signer failed. The text has the reason and the remedy.

    The text has no secret, and no time or number that changes, since texts are compared. `result` is WRONG if the fault
    stays until an operator corrects it, else AWAY. `wait`: seconds until the next request, if the signer returned them.
    """

    def __init__(self, text: str, result: SignatureResult = SignatureResult.AWAY, wait: float | None = None) -> None:
        super().__init__(text)
        self.result = result
        self.wait = wait


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicHalf:
    """The public half of a key, as its signer returns it.

    `lacking`: algorithms that suit such a key and this signer does not permit, with the reason. `made_at`: seconds
    since the epoch at which the key was made.
    """

    key: PublicKey
    lacking: Mapping[Algorithm, str] = field(default_factory=dict)
    made_at: float | None = None


class SignerBackend(Protocol):
    """One key where it is kept. Each request names its version, so that a new version never signs by itself."""

    async def public(self) -> PublicHalf:
        """Fetch the public half. Raises SignerError."""

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        """Sign the bytes, and return the signature as JWS has it: raw, an ECDSA one as r‖s (RFC 7518 §3.4).

        Raises SignerError. If it is cancelled, which is how its time ends, what it began must not disturb the next.
        """

    async def close(self) -> None:
        """Release all resources. A later request opens them again."""


_SIZES = {Algorithm.ES256: 32, Algorithm.ES384: 48, Algorithm.ES512: 66}


def to_raw_ecdsa(alg: Algorithm, der: bytes) -> bytes:
    """Return the signature without its DER. Raises SignerError if it is none of this curve."""
    try:
        r, s = decode_dss_signature(der)
        return r.to_bytes(_SIZES[alg]) + s.to_bytes(_SIZES[alg])
    except (ValueError, OverflowError):
        raise SignerError("the signature is not DER of this key's curve") from None
