"""Reads the JWK Set of a client (RFC 7517), and chooses the key that its tokens are encrypted to.

The set is the client's word. What is not public is dropped; a key that is weak, or slow to compute with, is refused.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from notifier.model.client import ClientKeysPlace, EncryptionKey, KeyManagement
from notifier.model.printable import excerpt
from notifier.tokens.foreign_keys import MOST_KEYS, rsa_fault

_MATERIAL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
)
_CURVES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"EC": ("P-256", "P-384", "P-521"), "OKP": ("X25519", "X448")}
)
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "k")
_OPERATIONS = frozenset({"encrypt", "wrapKey", "deriveKey", "deriveBits"})
_NAMED = 5  # keys in a text
_KID = 60  # characters of it in a text


def read_client_keys(document: object) -> tuple[EncryptionKey, ...] | str:
    """The keys of a JWK Set, or why it is not one. Of each key only what is public, and needed, is kept."""
    if not isinstance(document, Mapping) or not isinstance(document.get("keys"), list | tuple):
        return 'is no JWK Set: it must be a JSON object with a list "keys"'
    return tuple(_key(jwk) for jwk in document["keys"][:MOST_KEYS] if isinstance(jwk, Mapping))


def public_jwks(document: object) -> dict[str, object]:
    """The JWK Set without its secrets, certificates and other members; empty if it is none."""
    keys = read_client_keys(document)
    return {} if isinstance(keys, str) else {"keys": [as_jwk(key) for key in keys]}


def as_jwk(key: EncryptionKey) -> dict[str, object]:
    """The key as a JWK. That it was published with its private half is kept, and that half is not."""
    named = {"kid": key.kid, "use": key.use, "alg": key.alg}
    found: dict[str, object] = {"kty": key.kty, **{name: text for name, text in named.items() if text is not None}}
    if key.key_ops is not None:
        found["key_ops"] = list(key.key_ops)
    return found | dict(key.material) | ({"d": ""} if key.private else {})


def encryption_key(keys: Iterable[EncryptionKey], alg: KeyManagement) -> EncryptionKey | str:
    """The key to encrypt to by this algorithm, or why there is none. One that is meant for it comes before others."""
    faults = []
    fitting = []
    for key in keys:
        if (fault := _unfit(key, alg)) is None:
            fitting.append(key)
        else:
            faults.append(f"{_name(key)} {fault}")
    if fitting:
        return max(fitting, key=lambda key: (key.use == "enc", key.alg == alg))
    if not faults:
        return f"has no key, and {alg} needs one"
    more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
    return f"has no key for {alg}: {'; '.join(faults[:_NAMED])}{more}"


def without_key(where: ClientKeysPlace | tuple[EncryptionKey, ...], why: str) -> str:
    """Say why a client's tokens cannot be encrypted. `why` begins with a verb."""
    named = f"its jwks_uri {where.uri}" if isinstance(where, ClientKeysPlace) else "its jwks"
    return f"its tokens must be encrypted, and {named} {why}"


def _key(jwk: Mapping[str, object]) -> EncryptionKey:
    kty, operations = str(jwk.get("kty")), jwk.get("key_ops")
    members = ((name, jwk.get(name)) for name in _MATERIAL.get(kty, ()))
    return EncryptionKey(
        kty=kty,
        material=tuple((name, value) for name, value in members if isinstance(value, str)),
        kid=_text(jwk.get("kid")),
        use=_text(jwk.get("use")),
        alg=_text(jwk.get("alg")),
        key_ops=tuple(map(str, operations)) if isinstance(operations, list | tuple) else None,
        private=any(name in jwk for name in _PRIVATE),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _name(key: EncryptionKey) -> str:
    return "a key without kid" if key.kid is None else f"key {excerpt(key.kid, _KID)!r}"


def _unfit(key: EncryptionKey, alg: KeyManagement) -> str | None:
    """Why the key cannot be used for this algorithm, None if it can."""
    if (key.kty == "RSA") is not alg.startswith("RSA") or key.kty not in _MATERIAL:
        return f"is of the type {excerpt(key.kty, _KID)}"
    if key.use not in (None, "enc"):
        return f'has "use": "{excerpt(key.use or "", _KID)}"'
    if key.key_ops is not None and not _OPERATIONS.intersection(key.key_ops):
        return 'has "key_ops" that do not encrypt'
    if key.alg not in (None, alg):
        return f"is for {excerpt(key.alg or '', _KID)}"
    if key.private:
        return "is published with its private half: everybody can read what it encrypts"
    members = dict(key.material)
    if len(members) < len(_MATERIAL[key.kty]):
        return "lacks members"
    if key.kty == "RSA":
        return rsa_fault(members)
    return None if members["crv"] in _CURVES[key.kty] else f"is on the curve {excerpt(members['crv'], _KID)}"
