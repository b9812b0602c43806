"""Reads the JWK Set of a client (RFC 7517), and chooses the key that its tokens are encrypted to.

The client decides what is in the set. Members that are not public are dropped; a key that is weak, or slow to compute
with, is refused.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from notifier.model.client import ClientKeysSource, KeyManagement, PublishedKey
from notifier.model.printable import excerpt
from notifier.tokens.foreign_keys import MATERIAL, MAX_SHOWN_CHARS, format_key, join_faults, read_jwks, rsa_fault

_CURVES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"EC": ("P-256", "P-384", "P-521"), "OKP": ("X25519", "X448")}
)
_LEFT_OUT = "left out"  # stands for a private half that was published
_OPERATIONS = frozenset({"encrypt", "wrapKey", "deriveKey", "deriveBits"})


def public_jwks(document: object) -> dict[str, object]:
    """Return the JWK Set without its secrets, certificates and other members; empty if it is none."""
    keys = read_jwks(document)
    return {} if isinstance(keys, str) else {"keys": [to_public_jwk(key) for key in keys]}


def to_public_jwk(key: PublishedKey) -> dict[str, object]:
    """Return the key as a JWK. The private half is left out, and the fact that it was published is kept."""
    options = {"kid": key.kid, "use": key.use, "alg": key.alg}
    jwk: dict[str, object] = {"kty": key.kty, **{name: text for name, text in options.items() if text is not None}}
    if key.key_ops is not None:
        jwk["key_ops"] = list(key.key_ops)
    return jwk | dict(key.material) | ({"d": _LEFT_OUT} if key.private else {})


def encryption_key(keys: Iterable[PublishedKey], alg: KeyManagement) -> PublishedKey | str:
    """Return the key to encrypt to by this algorithm, or why there is none. Keys meant for it come before others."""
    faults = []
    fitting = []
    for key in keys:
        if (fault := _reason_against(key, alg)) is None:
            fitting.append(key)
        else:
            faults.append(f"{format_key(key)} {fault}")
    if fitting:
        return max(fitting, key=lambda key: (key.use == "enc", key.alg == alg))
    if not faults:
        return f"has no key, and {alg} needs one"
    return f"has no key for {alg}: {join_faults(faults)}"


def format_key_fault(where: ClientKeysSource | tuple[PublishedKey, ...], why: str) -> str:
    """Return why a client's tokens cannot be encrypted. `why` begins with a verb."""
    name = f"its jwks_uri {where.uri}" if isinstance(where, ClientKeysSource) else "its jwks"
    return f"its tokens must be encrypted, and {name} {why}"


def _reason_against(key: PublishedKey, alg: KeyManagement) -> str | None:
    """Why the key cannot be used for this algorithm, None if it can."""
    if (key.kty == "RSA") is not alg.startswith("RSA") or key.kty not in MATERIAL:
        return f"is of the type {excerpt(key.kty, MAX_SHOWN_CHARS)}"
    if key.use not in (None, "enc"):
        return f'has "use": "{excerpt(key.use or "", MAX_SHOWN_CHARS)}"'
    if key.key_ops is not None and not _OPERATIONS.intersection(key.key_ops):
        return 'has "key_ops" that do not encrypt'
    if key.alg not in (None, alg):
        return f"is for {excerpt(key.alg or '', MAX_SHOWN_CHARS)}"
    if key.private:
        return "is published with its private half: everybody can read what it encrypts"
    members = dict(key.material)
    if len(members) < len(MATERIAL[key.kty]):
        return "lacks members"
    if key.kty == "RSA":
        return rsa_fault(members)
    return None if members["crv"] in _CURVES[key.kty] else f"is on the curve {excerpt(members['crv'], MAX_SHOWN_CHARS)}"
