"""Signs logout tokens with the issuers' keys, each with the key that is due.

A key from a file signs at once, on the event loop. A key at a signer is awaited, and can be used once the signer
has returned its public half.

Issuers are tenants: each look-up starts at the issuer and never leaves it. No text, repr or error shows a private key.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.exceptions import UnsupportedAlgorithm

from notifier.model.client import Algorithm
from notifier.model.errors import InputIssue, InternalFault
from notifier.model.outcome import Cause
from notifier.tokens.external_key import ExternalKey
from notifier.tokens.jws import PrivateKey, compact_signer, message_encoder, to_compact
from notifier.tokens.published_keys import Signing, jwk_of, thumbprint, to_published_jwk
from notifier.tokens.signer import SignerError


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key ready to sign. `public` is its public half as a JWK (RFC 7517) with `kid` and `use`.

    `made_at`: when its file was written, or when its place made it. `setting` is what names it in the configuration.
    """

    key: PrivateKey | ExternalKey = field(repr=False)
    kid: str
    algorithms: frozenset[Algorithm]
    not_before: float | None
    public: Mapping[str, str]
    made_at: float | None = None
    setting: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalKeyEntry:
    """A key of an issuer at a signer. `setting` is its path in the configuration.

    `not_before` in epoch seconds; None means always. `kid` None: the thumbprint.
    """

    external_key: ExternalKey
    setting: str
    not_before: float | None = None
    kid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateKey:
    """A key at a signer that has the `kid` of another key, and so does not sign."""

    iss: str
    key: ExternalKeyEntry
    text: str


class KeyRing:
    """All keys of all issuers. A reload replaces it as a whole. `clock` gives seconds since the epoch."""

    def __init__(
        self, keys: Mapping[str, Sequence[SigningKey | ExternalKeyEntry]], clock: Callable[[], float] = time.time
    ) -> None:
        self._all = {iss: tuple(of_issuer) for iss, of_issuer in keys.items()}
        self._clock = clock
        self.update()

    def update(self) -> None:
        """Update the candidates with the present public halves of keys at signers."""
        self._duplicates: list[DuplicateKey] = []
        self._keys = {iss: tuple(self._distinct_keys(iss)) for iss in self._all}
        # The sort is stable: of two keys with the same `not_before` the one listed first signs.
        self._candidates = {
            (iss, alg): sorted((key for key in of_issuer if alg in key.algorithms), key=_starts_at, reverse=True)
            for iss, of_issuer in self._keys.items()
            for alg in Algorithm
        }
        self._signers: dict[tuple[str, Algorithm, str | None, str], Callable[[Mapping[str, object]], str]] = {}
        self._unsigned: dict[tuple[str, Algorithm, str | None], Callable[[Mapping[str, object]], bytes]] = {}

    async def check(self) -> list[InputIssue]:
        """Check each key at a signer once. Return the faults, by the setting that names the key."""
        external_key = dict.fromkeys(key.external_key for _, key in self.external_keys())
        await asyncio.gather(*(key.check() for key in external_key))
        self.update()
        faults = ((key.setting, key.external_key.fault) for _, key in self.external_keys())
        return [
            *(InputIssue(setting, fault.text) for setting, fault in faults if fault is not None),
            *(InputIssue(duplicate.key.setting, duplicate.text) for duplicate in self._duplicates),
        ]

    async def close(self) -> None:
        """Close the keys at signers."""
        await asyncio.gather(*(key.external_key.close() for _, key in self.external_keys()))

    async def sign(self, iss: str, alg: Algorithm, typ: str | None, claims: Mapping[str, object]) -> str:
        """Return the compact JWS, with `kid` (R1) and, unless None, `typ` (B18, R7).

        A key from a file never yields to the event loop. Raises InternalFault(cause=signing) if no key of the issuer
        fits the algorithm and is due, or if signing fails.
        """
        key = self._due(iss, alg)
        if key is None:
            raise InternalFault(Cause.SIGNING, self._reason_without_key(iss, alg))
        try:
            signer = self._signers.get((iss, alg, typ, key.kid))
            if signer is None:
                if isinstance(key.key, ExternalKey):
                    return await self._sign_externally(key.key, (key.kid, alg, typ), claims)
                signer = self._signers[iss, alg, typ, key.kid] = compact_signer(key.key, alg, key.kid, typ)
            return signer(claims)
        except SignerError as fault:
            raise InternalFault(
                Cause.SIGNING, f"key {key.kid!r} of issuer {iss} ({_signer_name(key)}): {fault}"
            ) from fault
        except (TypeError, ValueError, UnsupportedAlgorithm) as error:
            text = f"signing with key {key.kid!r} of issuer {iss} by {alg} failed ({type(error).__name__})"
            raise InternalFault(Cause.SIGNING, text) from error

    async def _sign_externally(
        self, external_key: ExternalKey, header: tuple[str, Algorithm, str | None], claims: Mapping[str, object]
    ) -> str:
        kid, alg, typ = header
        part = self._unsigned.get(header)
        if part is None:
            part = self._unsigned[header] = message_encoder(alg, kid, typ)
        message = part(claims)
        return to_compact(message, await external_key.sign(alg, message))

    def current_keys(self, iss: str) -> tuple[Signing, ...]:
        """Return what signs for the issuer now, for each algorithm that its keys can do."""
        due = ((alg, self._due(iss, alg)) for alg in Algorithm)
        return tuple(Signing(alg=alg, public=key.public, made_at=key.made_at) for alg, key in due if key is not None)

    def future_keys(self, iss: str) -> tuple[Signing, ...]:
        """Return what is to sign for the issuer later: each key that is not due yet, with each of its algorithms."""
        return tuple(
            Signing(alg=alg, public=key.public, made_at=key.made_at)
            for key in self._keys.get(iss, ())
            if key.not_before is not None and key.not_before > self._clock()
            for alg in sorted(key.algorithms)
        )

    def algorithms_of(self, iss: str) -> frozenset[Algorithm]:
        """Return the algorithms of the issuer's keys, including keys that are not due yet."""
        return frozenset[Algorithm]().union(*(key.algorithms for key in self._keys.get(iss, ())))

    def keys_of(self, iss: str) -> tuple[SigningKey, ...]:
        """Return the issuer's keys that are known, in the order of the configuration."""
        return self._keys.get(iss, ())

    def external_keys(self) -> Iterator[tuple[str, ExternalKeyEntry]]:
        """Return each key at a signer, with its issuer."""
        for iss, of_issuer in self._all.items():
            yield from ((iss, key) for key in of_issuer if isinstance(key, ExternalKeyEntry))

    def signatures_per_second(self, iss: str) -> float:
        """Return the signatures a second of the slowest of the issuer's keys at signers."""
        return min(
            (key.external_key.signatures_per_second for key_iss, key in self.external_keys() if key_iss == iss),
            default=float("inf"),
        )

    def duplicates(self) -> tuple[DuplicateKey, ...]:
        """Return the keys whose `kid` another key has, as far as their signers have returned it."""
        return tuple(self._duplicates)

    def kids(self, iss: str) -> tuple[str, ...]:
        """Return the `kid` of each of the issuer's keys, in the order of the configuration."""
        return tuple(key.kid for key in self._keys.get(iss, ()))

    def jwks(self, iss: str) -> dict[str, list[dict[str, str]]]:
        """Return the public halves as a JWK Set (RFC 7517 §5), with future keys, so that they are published in time.

        `alg` is there only if the key is for one algorithm. A strict receiver would refuse an RSA key published for
        RS256 when it signs by PS256.
        """
        return {"keys": [dict(key.public) for key in self._keys.get(iss, ())]}

    def _distinct_keys(self, iss: str) -> Iterator[SigningKey]:
        """Yield the known keys. Of two with the same `kid`, yield that of a file, or else the first."""
        settings = {key.kid: key.setting for key in self._all[iss] if isinstance(key, SigningKey)}
        for entry in self._all[iss]:
            key = _to_signing_key(entry)
            if key is None:
                continue
            if isinstance(entry, ExternalKeyEntry) and key.kid in settings:
                text = f"has the same kid {key.kid!r} as {settings[key.kid]}; each key of an issuer needs its own"
                self._duplicates.append(DuplicateKey(iss=iss, key=entry, text=text))
                continue
            settings.setdefault(key.kid, key.setting)
            yield key

    def _due(self, iss: str, alg: Algorithm) -> SigningKey | None:
        for key in self._candidates.get((iss, alg), ()):
            if key.not_before is None or key.not_before <= self._clock():
                return key
        return None

    def _reason_without_key(self, iss: str, alg: Algorithm) -> str:
        candidates = self._candidates.get((iss, alg))
        if not candidates:
            others = [key.external_key for key in self._all.get(iss, ()) if isinstance(key, ExternalKeyEntry)]
            reasons = [why for key in others if (why := _reason_against(key, alg)) is not None]
            return "; ".join([f"issuer {iss} has no key for {alg}", *reasons])
        first = datetime.fromtimestamp(_starts_at(candidates[-1]), UTC).isoformat()
        return f"no key of issuer {iss} for {alg} is due before {first}"


def _to_signing_key(key: SigningKey | ExternalKeyEntry) -> SigningKey | None:
    """Return the usable key. None if its signer has not returned the public half yet."""
    if isinstance(key, SigningKey):
        return key
    half = key.external_key.half
    if half is None:
        return None
    jwk, algorithms = jwk_of(half.key), key.external_key.algorithms
    kid = key.kid or thumbprint(jwk)
    return SigningKey(
        key=key.external_key,
        kid=kid,
        algorithms=algorithms,
        not_before=key.not_before,
        public=to_published_jwk(jwk, kid, algorithms),
        made_at=half.made_at,
        setting=key.setting,
    )


def _signer_name(key: SigningKey) -> str:
    return key.key.name if isinstance(key.key, ExternalKey) else "file"


def _reason_against(external_key: ExternalKey, alg: Algorithm) -> str | None:
    """Return why a key at a signer does not sign by this algorithm, if the key suits it."""
    if external_key.half is None:
        return (
            f"{external_key.name} is not known yet"
            if external_key.fault is None
            else f"{external_key.name}: {external_key.fault.text}"
        )
    lacking = external_key.half.lacking.get(alg)
    return None if lacking is None else f"{external_key.name}: {lacking}"


def _starts_at(key: SigningKey) -> float:
    return float("-inf") if key.not_before is None else key.not_before
