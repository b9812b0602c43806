"""Encrypts a signed token to a client's public key: a JWS in a JWE (RFC 7516 §7.1, RFC 7519 §5.2), by joserfc.

joserfc refuses what it does not recommend, unless told otherwise, and headers that it does not know, such as the `iss`
of B17. It knows more of RFC 7518 than clients may ask for: `KeyManagement` and `ContentEncryption` are the limit.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwe import JWERegistry
from joserfc.jwk import ECKey, OKPKey, RSAKey

from notifier.model.client import ContentEncryption, KeyManagement, PublishedKey

Encrypt = Callable[[str, str | None, str], str]
"""Makes a JWE of a JWS, with this `typ` (None: without) and `iss`. Raises ValueError."""

_KINDS: Mapping[str, type[RSAKey | ECKey | OKPKey]] = MappingProxyType({"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey})


def compact_encrypter(key: PublishedKey, alg: KeyManagement, enc: ContentEncryption) -> Encrypt:
    """Return a function that encrypts to this key. Raises ValueError if it is no key."""
    registry = JWERegistry(algorithms=[alg, enc], strict_check_header=False)
    named = {} if key.kid is None else {"kid": key.kid}
    try:
        # Without `use` and `key_ops`, which were looked at: of the latter joserfc takes `encrypt` alone.
        public = _KINDS[key.kty].import_key({"kty": key.kty, **dict(key.material)})
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"is no {key.kty} key ({type(error).__name__})") from error

    def encrypt(token: str, typ: str | None, iss: str) -> str:
        typed = {} if typ is None else {"typ": typ}
        header = {"alg": str(alg), "enc": str(enc), "cty": "JWT", **typed, **named, "iss": iss}
        try:
            return jwe.encrypt_compact(header, token, public, registry=registry)
        except (JoseError, TypeError) as error:
            raise ValueError(f"cannot be encrypted to ({type(error).__name__})") from error

    return encrypt
