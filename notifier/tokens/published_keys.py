"""Describes public keys, and checks whether an issuer's JWK Set (RFC 7517) has the signing key.

A receiver selects the key by `kid`. Therefore the same `kid` with other key material, another algorithm or another use
has the same effect as a missing key. The module is free of I/O. Thumbprints are those of RFC 7638.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, SECP521R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from notifier.model.client import ED25519_NAMES, Algorithm, PublishedKey
from notifier.tokens.foreign_keys import MATERIAL, decode_number

MIN_RSA_BITS = 2048  # RFC 7518 §3.3, §3.5

_RSA = frozenset(alg for alg in Algorithm if alg.startswith(("RS", "PS")))
_CURVES: Mapping[str, Algorithm] = {
    SECP256R1.name: Algorithm.ES256,
    SECP384R1.name: Algorithm.ES384,
    SECP521R1.name: Algorithm.ES512,
}
_REQUIRED_MEMBERS = ("crv", "e", "kty", "n", "x", "y")  # of a public key: RFC 7638 §3.2, RFC 8037 §2


def algorithms_of(key: object) -> frozenset[Algorithm]:
    """Return the algorithms that a public key supports. Empty for a key that is too short, or of another type."""
    match key:
        case RSAPublicKey():
            return _RSA if key.key_size >= MIN_RSA_BITS else frozenset()
        case EllipticCurvePublicKey() if key.curve.name in _CURVES:
            return frozenset({_CURVES[key.curve.name]})
        case Ed25519PublicKey():
            return ED25519_NAMES
    return frozenset()


def jwk_of(key: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey) -> dict[str, str]:
    """Return the key as a JWK with the required members only."""
    jwk: Mapping[str, str]
    match key:
        case RSAPublicKey():
            jwk = RSAAlgorithm.to_jwk(key, as_dict=True)
        case EllipticCurvePublicKey():
            jwk = ECAlgorithm.to_jwk(key, as_dict=True)
        case _:
            jwk = OKPAlgorithm.to_jwk(key, as_dict=True)
    return {name: jwk[name] for name in _REQUIRED_MEMBERS if name in jwk}


def to_published_jwk(jwk: Mapping[str, str], kid: str, algorithms: frozenset[Algorithm]) -> dict[str, str]:
    """Return the JWK as it is published. It has the member `alg` only if the key is for exactly one algorithm."""
    alg = {"alg": next(iter(algorithms)).value} if len(algorithms) == 1 else {}
    return {**jwk, "kid": kid, "use": "sig", **alg}


def thumbprint(jwk: Mapping[str, str]) -> str:
    """Return the SHA-256 thumbprint (RFC 7638 §3) of a public JWK. Optional members have no effect."""
    required = {name: jwk[name] for name in _REQUIRED_MEMBERS if name in jwk}
    canonical = json.dumps(required, separators=(",", ":"), sort_keys=True).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """A key that signs with `alg`. `public`: the public half as a JWK, with `kid`.

    `made_at`: when the key's file was written (epoch seconds). No receiver has known the key for longer.
    """

    alg: Algorithm
    public: Mapping[str, str]
    made_at: float | None = None


def _material(jwk: Mapping[str, object]) -> tuple[str, ...]:
    """Return the members that identify the key. Numbers are decoded, since some issuers write leading zeros."""
    kty = str(jwk.get("kty"))
    return (kty, *(_normalize(name, jwk.get(name)) for name in MATERIAL.get(kty, ())))


def _normalize(name: str, value: object) -> str:
    number = None if name == "crv" else decode_number(value)
    return str(value) if number is None else number.hex()


def find_publication_fault(public: Mapping[str, str], alg: str, published: tuple[PublishedKey, ...]) -> str | None:
    """Return why receivers with this set cannot verify signatures of the key by `alg`; None if they can.

    `public`: the public half of the key, with `kid`. `published`: the keys of the set.
    """
    kid = public["kid"]
    material = _material(public)
    copies = [key for key in published if _material({"kty": key.kty, **dict(key.material)}) == material]
    named_copies = [key for key in copies if key.kid == kid]
    if not any(key.kid == kid for key in published):
        if copies:
            return f"the key is published, but under the kid {copies[0].kid!r}: set keys[].kid to that"
        return "the key is not published"
    if not named_copies:
        return "another key is published under this kid: receivers verify by the wrong one"
    first = named_copies[0]
    if all(key.use not in (None, "sig") for key in named_copies):
        return f'the key is published with "use": "{first.use}", and receivers skip it: it must be "sig", or left out'
    if all(key.key_ops is not None and "verify" not in key.key_ops for key in named_copies):
        return 'the key is published with "key_ops" that lack "verify": add it, or leave key_ops out'
    if all(key.alg not in (None, alg) for key in named_copies):
        return f'the key is published with "alg": "{first.alg}", but it signs by {alg}: receivers may refuse it'
    return None


def find_publication_faults(keys: Iterable[Signing], published: tuple[PublishedKey, ...]) -> dict[str, str | None]:
    """Return for each key, by `kid`, why receivers with this set cannot verify its signatures; None if they can."""
    faults: dict[str, str | None] = {}
    for key in keys:
        kid, fault = key.public["kid"], find_publication_fault(key.public, key.alg, published)
        # An RSA key can sign with six algorithms. If the set names one of them, the key counts as published.
        if fault is None or faults.get(kid, fault) is not None:
            faults[kid] = fault
    return faults
