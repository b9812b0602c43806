"""Signs logout tokens with the issuers' keys. Of the keys whose `not_before` has passed, the latest signs.

A key from a file signs at once, on the event loop. A signature of an external key (in an HSM or key service, the
signer) is awaited. An external key can be used once the signer has returned its public half.

Issuers are tenants: each lookup is by issuer, so that no issuer can use the key of another. No text, repr or error
shows a private key.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm

from notifier.model.client import Algorithm
from notifier.model.errors import InputIssue, InternalFault
from notifier.model.moment import format_moment_for_people
from notifier.model.outcome import Cause
from notifier.tokens.external_key import ExternalKey
from notifier.tokens.jws import PrivateKey, compact_signer, message_encoder, to_compact
from notifier.tokens.published_keys import Signing, jwk_of, thumbprint, to_published_jwk
from notifier.tokens.signer import SignerError


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key ready to sign. `public`: the public half as a JWK (RFC 7517) with `kid` and `use`.

    `made_at`: when the key's file was written, or when the signer made the key. `setting`: its path in the
    configuration. Times are epoch seconds.
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
    """The entry of an external key in the configuration. `setting`: the path of the entry.

    The key signs from `not_before` (epoch seconds), or always if it is None. If `kid` is None, it is the thumbprint.
    """

    external_key: ExternalKey
    setting: str
    not_before: float | None = None
    kid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateKey:
    """An external key that does not sign, because it has the `kid` of another key."""

    iss: str
    key: ExternalKeyEntry
    text: str


class KeyRing:
    """The keys of all issuers. A reload replaces the whole ring. `clock` returns epoch seconds."""

    def __init__(
        self, keys: Mapping[str, Sequence[SigningKey | ExternalKeyEntry]], clock: Callable[[], float] = time.time
    ) -> None:
        self._all = {iss: tuple(issuer_keys) for iss, issuer_keys in keys.items()}
        self._clock = clock
        self.update()

    def update(self) -> None:
        """Make all keys with a known public half ready to sign. Call it when an external key has got its half."""
        self._duplicates: list[DuplicateKey] = []
        self._keys = {iss: tuple(self._distinct_keys(iss)) for iss in self._all}
        # The sort is stable: of two keys with the same `not_before`, the key listed first signs.
        self._candidates = {
            (iss, alg): sorted((key for key in issuer_keys if alg in key.algorithms), key=_starts_at, reverse=True)
            for iss, issuer_keys in self._keys.items()
            for alg in Algorithm
        }
        self._signers: dict[tuple[str, Algorithm, str | None, str], Callable[[Mapping[str, object]], str]] = {}
        self._encoders: dict[tuple[str, Algorithm, str | None], Callable[[Mapping[str, object]], bytes]] = {}

    async def check(self) -> list[InputIssue]:
        """Check each external key once, for a command. Return the faults and duplicates, by the key's setting."""
        external_keys = dict.fromkeys(entry.external_key for _, entry in self.external_keys())
        await asyncio.gather(*(key.check() for key in external_keys))
        self.update()
        faults = ((entry.setting, entry.external_key.fault) for _, entry in self.external_keys())
        return [
            *(InputIssue(setting, fault.text) for setting, fault in faults if fault is not None),
            *(InputIssue(duplicate.key.setting, duplicate.text) for duplicate in self._duplicates),
        ]

    async def close(self) -> None:
        """Close the external keys."""
        await asyncio.gather(*(entry.external_key.close() for _, entry in self.external_keys()))

    async def sign(self, iss: str, alg: Algorithm, typ: str | None, claims: Mapping[str, object]) -> str:
        """Return the claims as a compact JWS. The header has `kid` (R1) and, unless None, `typ` (B18, R7).

        With a key from a file it never yields to the event loop. Raises InternalFault(cause=signing) if the issuer has
        no current key for the algorithm, or if signing fails.
        """
        key = self._current_key(iss, alg)
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
        encode = self._encoders.get(header)
        if encode is None:
            encode = self._encoders[header] = message_encoder(alg, kid, typ)
        message = encode(claims)
        return to_compact(message, await external_key.sign(alg, message))

    def can_sign(self, iss: str, alg: Algorithm) -> bool:
        """Return True if the issuer has a current key for the algorithm, which does not fail."""
        key = self._current_key(iss, alg)
        return key is not None and not (isinstance(key.key, ExternalKey) and key.key.fault is not None)

    def current_keys(self, iss: str) -> tuple[Signing, ...]:
        """Return the keys that sign for the issuer now, one for each algorithm that its keys support."""
        keys = ((alg, self._current_key(iss, alg)) for alg in Algorithm)
        return tuple(Signing(alg=alg, public=key.public, made_at=key.made_at) for alg, key in keys if key is not None)

    def future_keys(self, iss: str) -> tuple[Signing, ...]:
        """Return the keys that will sign for the issuer later, one entry for each algorithm of each key."""
        return tuple(
            Signing(alg=alg, public=key.public, made_at=key.made_at)
            for key in self._keys.get(iss, ())
            if key.not_before is not None and key.not_before > self._clock()
            for alg in sorted(key.algorithms)
        )

    def algorithms_of(self, iss: str) -> frozenset[Algorithm]:
        """Return the algorithms of the issuer's keys, including future keys."""
        return frozenset[Algorithm]().union(*(key.algorithms for key in self._keys.get(iss, ())))

    def keys_of(self, iss: str) -> tuple[SigningKey, ...]:
        """Return the issuer's keys whose public half is known, in the order of the configuration."""
        return self._keys.get(iss, ())

    def external_keys(self) -> Iterator[tuple[str, ExternalKeyEntry]]:
        """Yield each external key, with its issuer."""
        for iss, entries in self._all.items():
            yield from ((iss, entry) for entry in entries if isinstance(entry, ExternalKeyEntry))

    def signatures_per_second(self, iss: str) -> float:
        """Return the signatures per second of the issuer's slowest external key; infinite without external keys."""
        rates = (entry.external_key.signatures_per_second for owner, entry in self.external_keys() if owner == iss)
        return min(rates, default=float("inf"))

    def duplicates(self) -> tuple[DuplicateKey, ...]:
        """Return the external keys that do not sign, because another key has their `kid`."""
        return tuple(self._duplicates)

    def kids(self, iss: str) -> tuple[str, ...]:
        """Return the `kid` of each of the issuer's keys, in the order of the configuration."""
        return tuple(key.kid for key in self._keys.get(iss, ()))

    def jwks(self, iss: str) -> dict[str, list[dict[str, str]]]:
        """Return the public halves as a JWK Set (RFC 7517 §5). It has future keys, so that they are published in time.

        A key has the member `alg` only if it is for one algorithm. A strict receiver would refuse an RSA key published
        for RS256 when the key signs by PS256.
        """
        return {"keys": [dict(key.public) for key in self._keys.get(iss, ())]}

    def _distinct_keys(self, iss: str) -> Iterator[SigningKey]:
        """Yield the keys whose public half is known, and record duplicates.

        Of two keys with the same `kid`, the key of a file is yielded, or the first of two external keys.
        """
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

    def _current_key(self, iss: str, alg: Algorithm) -> SigningKey | None:
        for key in self._candidates.get((iss, alg), ()):
            if key.not_before is None or key.not_before <= self._clock():
                return key
        return None

    def _reason_without_key(self, iss: str, alg: Algorithm) -> str:
        candidates = self._candidates.get((iss, alg))
        if not candidates:
            entries = [entry for entry in self._all.get(iss, ()) if isinstance(entry, ExternalKeyEntry)]
            reasons = [_reason_against(entry.external_key, alg) for entry in entries]
            return "; ".join([f"issuer {iss} has no key for {alg}", *filter(None, reasons)])
        first = format_moment_for_people(_starts_at(candidates[-1]))
        return f"no key of issuer {iss} for {alg} is due before {first}"


def _to_signing_key(key: SigningKey | ExternalKeyEntry) -> SigningKey | None:
    """Return the key ready to sign; None if its signer has not returned the public half yet."""
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
    """Return why an external key does not sign by this algorithm; None if the key is of another type."""
    if external_key.half is None:
        if external_key.fault is None:
            return f"{external_key.name} is not known yet"
        return f"{external_key.name}: {external_key.fault.text}"
    lacking = external_key.half.lacking.get(alg)
    return None if lacking is None else f"{external_key.name}: {lacking}"


def _starts_at(key: SigningKey) -> float:
    return float("-inf") if key.not_before is None else key.not_before
