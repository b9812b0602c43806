"""Describes public keys: their algorithms, and the JWK (RFC 7517) and thumbprint (RFC 7638) to publish."""

import base64
import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, SECP521R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from notifier.model.client import ED25519_NAMES, Algorithm

MIN_RSA_BITS = 2048  # RFC 7518 §3.3, §3.5

_RSA = frozenset(alg for alg in Algorithm if alg.startswith(("RS", "PS")))
_CURVES: Mapping[str, Algorithm] = MappingProxyType(
    {SECP256R1.name: Algorithm.ES256, SECP384R1.name: Algorithm.ES384, SECP521R1.name: Algorithm.ES512}
)
_THUMBPRINTED = ("crv", "e", "kty", "n", "x", "y")  # the members of a public key: RFC 7638 §3.2, RFC 8037 §2


def algorithms_of(key: object) -> frozenset[Algorithm]:
    """Return the algorithms of such a key; none if it cannot be used, or is too short."""
    match key:
        case RSAPublicKey():
            return _RSA if key.key_size >= MIN_RSA_BITS else frozenset()
        case EllipticCurvePublicKey() if key.curve.name in _CURVES:
            return frozenset({_CURVES[key.curve.name]})
        case Ed25519PublicKey():
            return ED25519_NAMES
    return frozenset()


def jwk_of(key: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey) -> dict[str, str]:
    """Return the required members of its JWK."""
    jwk: Mapping[str, str]
    match key:
        case RSAPublicKey():
            jwk = RSAAlgorithm.to_jwk(key, as_dict=True)
        case EllipticCurvePublicKey():
            jwk = ECAlgorithm.to_jwk(key, as_dict=True)
        case _:
            jwk = OKPAlgorithm.to_jwk(key, as_dict=True)
    return {name: jwk[name] for name in _THUMBPRINTED if name in jwk}


def published(jwk: Mapping[str, str], kid: str, algorithms: frozenset[Algorithm]) -> dict[str, str]:
    """Return the JWK as it is published. `alg` is there only if the key is for one algorithm, by one name."""
    named = {"alg": next(iter(algorithms)).value} if len(algorithms) == 1 else {}
    return {**jwk, "kid": kid, "use": "sig", **named}


def thumbprint(jwk: Mapping[str, str]) -> str:
    """Return the SHA-256 thumbprint (RFC 7638 §3) of a public JWK, whatever optional members it has."""
    required = {name: jwk[name] for name in _THUMBPRINTED if name in jwk}
    canonical = json.dumps(required, separators=(",", ":"), sort_keys=True).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
