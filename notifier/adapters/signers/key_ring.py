"""Signs logout tokens with the issuers' keys from files: with the key that is due.

Issuers are tenants: each look-up starts at the issuer and never leaves it. No text, repr or error shows a private key.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.exceptions import UnsupportedAlgorithm

from notifier.adapters.signers.jws import PrivateKey, compact_signer
from notifier.domain.client import Algorithm
from notifier.domain.errors import OurFault
from notifier.domain.outcome import Cause
from notifier.domain.published_keys import Signing


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key ready to sign. `public` is its public half as a JWK (RFC 7517) with `kid` and `use`.

    `made_at`: when its file was written.
    """

    key: PrivateKey = field(repr=False)
    kid: str
    algorithms: frozenset[Algorithm]
    not_before: float | None
    public: Mapping[str, str]
    made_at: float | None = None


class KeyRing:
    """All keys of all issuers. A reload replaces it as a whole. `clock` gives seconds since the epoch."""

    def __init__(self, keys: Mapping[str, Sequence[SigningKey]], clock: Callable[[], float] = time.time) -> None:
        self._keys = {iss: tuple(of_issuer) for iss, of_issuer in keys.items()}
        self._clock = clock
        # The sort is stable: of two keys with the same `not_before` the one listed first signs.
        self._candidates = {
            (iss, alg): sorted((key for key in of_issuer if alg in key.algorithms), key=_start, reverse=True)
            for iss, of_issuer in self._keys.items()
            for alg in Algorithm
        }
        self._signers: dict[tuple[str, Algorithm, str | None, str], Callable[[Mapping[str, object]], str]] = {}

    async def sign(self, iss: str, alg: Algorithm, typ: str | None, claims: Mapping[str, object]) -> str:
        """Return the compact JWS, with `kid` (R1) and, unless None, `typ` (B18, R7). Never yields to the event loop.

        Raises OurFault(cause=signing) if no key of the issuer fits the algorithm and is due, or if signing fails.
        """
        key = self._due(iss, alg)
        if key is None:
            raise OurFault(Cause.SIGNING, self._why_none(iss, alg))
        try:
            signer = self._signers.get((iss, alg, typ, key.kid))
            if signer is None:
                signer = self._signers[iss, alg, typ, key.kid] = compact_signer(key.key, alg, key.kid, typ)
            return signer(claims)
        except (TypeError, ValueError, UnsupportedAlgorithm) as error:
            text = f"signing with key {key.kid!r} of issuer {iss} by {alg} failed ({type(error).__name__})"
            raise OurFault(Cause.SIGNING, text) from error

    def signing(self, iss: str) -> tuple[Signing, ...]:
        """Return what signs for the issuer now, for each algorithm that its keys can do."""
        due = ((alg, self._due(iss, alg)) for alg in Algorithm)
        return tuple(Signing(alg=alg, public=key.public, made_at=key.made_at) for alg, key in due if key is not None)

    def algorithms_of(self, iss: str) -> frozenset[Algorithm]:
        """Return the algorithms of the issuer's keys, including keys that are not due yet."""
        return frozenset[Algorithm]().union(*(key.algorithms for key in self._keys.get(iss, ())))

    def of(self, iss: str) -> tuple[SigningKey, ...]:
        """Return the issuer's keys, in the order of the configuration."""
        return self._keys.get(iss, ())

    def kids(self, iss: str) -> tuple[str, ...]:
        """Return the `kid` of each of the issuer's keys, in the order of the configuration."""
        return tuple(key.kid for key in self._keys.get(iss, ()))

    def jwks(self, iss: str) -> dict[str, list[dict[str, str]]]:
        """Return the public halves as a JWK Set (RFC 7517 §5), with future keys, so that they are published in time.

        `alg` is there only if the key is for one algorithm. A strict receiver would refuse an RSA key published for
        RS256 when it signs by PS256.
        """
        return {"keys": [dict(key.public) for key in self._keys.get(iss, ())]}

    def _due(self, iss: str, alg: Algorithm) -> SigningKey | None:
        for key in self._candidates.get((iss, alg), ()):
            if key.not_before is None or key.not_before <= self._clock():
                return key
        return None

    def _why_none(self, iss: str, alg: Algorithm) -> str:
        candidates = self._candidates.get((iss, alg))
        if not candidates:
            return f"issuer {iss} has no key for {alg}"
        first = datetime.fromtimestamp(_start(candidates[-1]), UTC).isoformat()
        return f"no key of issuer {iss} for {alg} is due before {first}"


def _start(key: SigningKey) -> float:
    return float("-inf") if key.not_before is None else key.not_before
