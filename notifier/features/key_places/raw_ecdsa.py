"""Turns ECDSA signatures in DER, as some places make them, into those of JWS: r‖s, padded (RFC 7518 §3.4)."""

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from notifier.model.client import Algorithm
from notifier.tokens.key_place import PlaceFault

_SIZES = {Algorithm.ES256: 32, Algorithm.ES384: 48, Algorithm.ES512: 66}


def raw_ecdsa(alg: Algorithm, der: bytes) -> bytes:
    """Return the signature without its DER. Raises PlaceFault if it is none of this curve."""
    try:
        r, s = decode_dss_signature(der)
        return r.to_bytes(_SIZES[alg]) + s.to_bytes(_SIZES[alg])
    except (ValueError, OverflowError):
        raise PlaceFault("the signature is no DER of this key's curve") from None
