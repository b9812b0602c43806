"""Declares what a place of keys can do: an HSM, a key service, anything that lets signatures out and no private key.

`PlacedKey` is the frame around each place: it bounds time and number, verifies every signature, stops asking for a
while after a fault, and counts. So a place does none of this: it asks once, without a time limit or a retry of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from notifier.model.client import Algorithm
from notifier.model.errors import NotifierError
from notifier.tokens.jws import PublicKey
from notifier.tokens.signature import SignatureResult


class PlaceFault(NotifierError):  # noqa: N818  the name says whose fault it is
    """A place did not do what it was asked. The text says why, and what to do.

    The text has no secret, and no time or number that changes, since texts are compared. `result` is WRONG if the fault
    stays until somebody corrects something, else AWAY. `wait`: seconds after which the place
    wants to be asked again, if it said so.
    """

    def __init__(self, text: str, result: SignatureResult = SignatureResult.AWAY, wait: float | None = None) -> None:
        super().__init__(text)
        self.result = result
        self.wait = wait


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicHalf:
    """The public half of a key, as its place tells it.

    `lacking`: algorithms that such a key could do and this place does not let it, with the reason. `made_at`: seconds
    since the epoch at which the key was made. `newer`: a later version that the place has, such as "version 4"; empty
    if there is none. `newer_key` is that one's public half.
    """

    key: PublicKey
    lacking: Mapping[Algorithm, str] = field(default_factory=dict)
    made_at: float | None = None
    newer: str = ""
    newer_key: PublicKey | None = None


class SigningPlace(Protocol):
    """One key where it is kept. Each request names its version, so that a new version never signs by itself."""

    async def public(self) -> PublicHalf:
        """Fetch the public half. Raises PlaceFault."""

    async def sign(self, alg: Algorithm, message: bytes) -> bytes:
        """Sign the bytes, and return the signature as JWS has it: raw, an ECDSA one as r‖s (RFC 7518 §3.4).

        Raises PlaceFault. If it is cancelled, which is how its time ends, what it began must not disturb the next.
        """

    async def close(self) -> None:
        """Give up all that it holds. It may be asked again afterwards, and opens anew."""
