"""Defines the port of a signer: an HSM or key service, which returns signatures and keeps the private key.

`ExternalKey` calls the signer. It limits the time and number of requests, verifies every signature, pauses after a
fault, and counts results. Therefore an implementation only sends one request, without a time limit or retry.
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
    """The result of a request to a signer. It is also the metric label."""

    OK = "ok"
    SLOW = "slow"  # no answer within the time limit
    AWAY = "away"  # the signer cannot sign now: throttled, sealed, crashed or unreachable
    WRONG = "wrong"  # an operator must correct the cause: no such key, no permission, a wrong PIN
    UNVERIFIED = "unverified"  # the public key does not verify the signature


SignatureObserver: TypeAlias = Callable[[str, SignatureResult, float], None]
"""Receives the kind of signer, the result of a request, and its duration in seconds."""


class SignerError(NotifierError):
    """A request to a signer failed. The text has the reason and the remedy.

    The text has no secret. It has no time or other changing number, because each changed text is
    logged. `wait`: seconds until the next request, if the signer has returned them.
    """

    def __init__(self, text: str, result: SignatureResult = SignatureResult.AWAY, wait: float | None = None) -> None:
        super().__init__(text)
        self.result = result
        self.wait = wait


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicHalf:
    """The public half of a key, as its signer returns it.

    `lacking`: the algorithms that suit the key, but that the signer does not permit, with the reasons. `made_at`: when
    the key was made (epoch seconds).
    """

    key: PublicKey
    lacking: Mapping[Algorithm, str] = field(default_factory=dict)
    made_at: float | None = None


class SignerBackend(Protocol):
    """One key at a signer. Each request names the version of the key, so that a new version never signs unasked."""

    async def public(self) -> PublicHalf:
        """Fetch the public half. Raises SignerError."""

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        """Sign the bytes, and return the signature in the form of JWS: for ECDSA r‖s (RFC 7518 §3.4).

        Raises SignerError. At the time limit it is cancelled, and must leave no state that disturbs the next request.
        """

    async def close(self) -> None:
        """Release all resources. A later request opens them again."""


_NUMBER_BYTES = {Algorithm.ES256: 32, Algorithm.ES384: 48, Algorithm.ES512: 66}  # of r and of s


def to_raw_ecdsa(alg: Algorithm, der: bytes) -> bytes:
    """Return a DER signature as r‖s. Raises SignerError if it is not a signature of the algorithm's curve."""
    try:
        r, s = decode_dss_signature(der)
        return r.to_bytes(_NUMBER_BYTES[alg]) + s.to_bytes(_NUMBER_BYTES[alg])
    except (ValueError, OverflowError):
        raise SignerError("the signature is not DER of this key's curve") from None
