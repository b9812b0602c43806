"""Reads JWK Sets (RFC 7517) of clients, upstreams and transmitters, and refuses keys that are weak or slow.

The owner decides what is in a set, and an RSA key decides how long one use of it takes: with eight keys of 3,072 bits
whose exponents are as long, seven tokens a second fill a worker. Within these bounds one use takes 1 ms at most.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from notifier.model.client import ClientKeysSource, KeyManagement, PublishedKey
from notifier.model.printable import excerpt
from notifier.network.http.issuer_document import present_members

MAX_KEYS = 1000  # keys of one set that are read; issuers publish a handful
_RSA_BITS = range(2048, 8193)  # 2048 is the least of RFC 7518 §3.3, §4.3; each doubling takes four times as long
_EXPONENT_BYTES = 8  # a longer one would take as long as a private key's
_BASE64URL = re.compile(
    r"[A-Za-z0-9_+/-]+={0,2}"
)  # libraries skip whatever else is in it, and would read another number
MAX_SHOWN_CHARS = 60  # characters of a member in a text
MATERIAL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
)
SIGNATURES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        "P-256": ("ES256",),
        "P-384": ("ES384",),
        "P-521": ("ES512",),
        "Ed25519": ("EdDSA", "Ed25519"),  # one algorithm: RFC 8037, RFC 9864
    }
)
"""The algorithms by which each type of key, or curve, verifies signatures."""
_CURVES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"EC": ("P-256", "P-384", "P-521"), "OKP": ("X25519", "X448")}
)
_ENCRYPTION_OPERATIONS = frozenset({"encrypt", "wrapKey", "deriveKey", "deriveBits"})
_PRIVATE_PLACEHOLDER = "left out"  # replaces the private members of a key that was published with them
_ENCRYPTION = ("RSA1_5", "RSA-OAEP", "ECDH-ES")  # what the `alg` of a key for encryption begins with
_TEXTS = ("kid", "use", "alg")
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "k")
_NAMED = 5  # keys in a text


def rsa_fault(jwk: Mapping[str, object]) -> str | None:
    """Return why an RSA key (RFC 7518 §6.3.1) is not used, beginning with a verb; None if it may be."""
    modulus, exponent = decode_number(jwk.get("n")), decode_number(jwk.get("e"))
    if modulus is None or exponent is None:
        return f'has "{"n" if modulus is None else "e"}" that is no base64url'
    bits = int.from_bytes(modulus).bit_length()
    if bits not in _RSA_BITS:
        return f"has {bits} bits, not {_RSA_BITS.start} to {_RSA_BITS.stop - 1}"
    return "has an exponent that is too long" if len(exponent) > _EXPONENT_BYTES else None


def list_jwks(document: object) -> tuple[dict[str, object], ...] | str:
    """Return the keys of a JWK Set, or why it is not one. Every set passes here.

    What cannot be used is ignored (RFC 7517 §5): entries that are not objects, empty members, and `kid`, `use`, `alg`
    and `key_ops` of another type.
    """
    keys = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(keys, list | tuple):
        return 'is no JWK Set: it must be a JSON object with a list "keys"'
    return tuple(_usable_members(jwk) for jwk in keys[:MAX_KEYS] if isinstance(jwk, dict))


def _usable_members(jwk: Mapping[str, object]) -> dict[str, object]:
    members = present_members(jwk)
    for name in _TEXTS:
        if not isinstance(members.get(name, ""), str):
            del members[name]
    if not isinstance(members.get("key_ops", []), list | tuple):
        del members["key_ops"]
    return members


def read_jwks(document: object) -> tuple[PublishedKey, ...] | str:
    """Return the keys of a JWK Set, or why it is not one. Of each key only its public members in use are kept."""
    jwks = list_jwks(document)
    return jwks if isinstance(jwks, str) else tuple(map(to_published_key, jwks))


def to_published_key(jwk: Mapping[str, object]) -> PublishedKey:
    """Return the key of a JWK, without unrelated members."""
    kty, operations = str(jwk.get("kty")), jwk.get("key_ops")
    members = ((name, jwk.get(name)) for name in MATERIAL.get(kty, ()))
    return PublishedKey(
        kty=kty,
        material=tuple((name, value) for name, value in members if isinstance(value, str)),
        key_ops=tuple(map(str, operations)) if isinstance(operations, list | tuple) else None,
        private=any(name in jwk for name in _PRIVATE),
        **{name: value if isinstance(value := jwk.get(name), str) else None for name in _TEXTS},
    )


def expand_names(algorithms: Iterable[str]) -> frozenset[str]:
    """Return the algorithms that public keys verify, each by all of its names."""
    wanted = {str(algorithm) for algorithm in algorithms}
    aliases = SIGNATURES["Ed25519"] if not wanted.isdisjoint(SIGNATURES["Ed25519"]) else ()
    return frozenset(name for names in SIGNATURES.values() for name in names if name in wanted or name in aliases)


def verified_algorithms(key: PublishedKey) -> tuple[str, ...]:
    """Return the algorithms by which such a key verifies signatures; none if it is for something else."""
    names = SIGNATURES.get("RSA" if key.kty == "RSA" else dict(key.material).get("crv", ""), ())
    if key.alg is None or (key.alg in names and key.kty == "OKP"):
        return names
    return tuple(name for name in names if name == key.alg)


def verifying_fault(key: PublishedKey) -> str | None:
    """Return why the key verifies no signature, beginning with a verb; None if it may."""
    if key.kty not in MATERIAL:
        return f"is of the type {excerpt(key.kty, MAX_SHOWN_CHARS)}"
    if key.use not in (None, "sig"):
        return f'has "use": "{excerpt(key.use or "", MAX_SHOWN_CHARS)}"'
    if key.key_ops is not None and "verify" not in key.key_ops:
        return 'has "key_ops" without "verify"'
    if key.private:
        return "is published with its private half"
    members = dict(key.material)
    if key.kty == "RSA":
        fault = rsa_fault(members)
    else:
        lacking = next((name for name in MATERIAL[key.kty][1:] if decode_number(members.get(name)) is None), None)
        fault = None if lacking is None else f'has "{lacking}" that is no base64url'
        if (crv := members.get("crv", "")) not in SIGNATURES:
            fault = f"is on the curve {excerpt(crv, MAX_SHOWN_CHARS)}"
    if fault is None and not verified_algorithms(key):
        fault = f"is for {excerpt(key.alg or '', MAX_SHOWN_CHARS)}"
    return fault


def find_unused_keys(keys: Iterable[PublishedKey]) -> str | None:
    """Name the keys of a set that are meant to verify signatures and do not; None if there are none."""
    known = (key for key in keys if key.kty in MATERIAL)  # others are ignored (RFC 7517 §5)
    signing = (key for key in known if key.use in (None, "sig") and not (key.alg or "").startswith(_ENCRYPTION))
    return join_faults(f"{format_key(key)} {fault}" for key in signing if (fault := verifying_fault(key)) is not None)


def join_faults(faults: Iterable[str]) -> str | None:
    """Return the first faults, and how many more there are; None if there are none."""
    every = list(faults)
    more = f"; and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return f"{'; '.join(every[:_NAMED])}{more}" if every else None


def format_key(key: PublishedKey) -> str:
    """Return the name of a key for texts."""
    return "a key without kid" if key.kid is None else f"key {excerpt(key.kid, MAX_SHOWN_CHARS)!r}"


def decode_number(value: object) -> bytes | None:
    """Return the bytes of a number, without leading zeros; None if it is not base64url."""
    if not isinstance(value, str) or _BASE64URL.fullmatch(value) is None:
        return None
    plain = value.rstrip("=")
    try:
        return base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4)).lstrip(b"\0")
    except binascii.Error:
        return None


# ── a client's keys, to which its tokens are encrypted ──────────────────────────────────────────────────────────


def public_jwks(document: object) -> dict[str, object]:
    """Return the JWK Set without its secrets, certificates and other members; empty if it is none."""
    keys = read_jwks(document)
    return {} if isinstance(keys, str) else {"keys": [to_public_jwk(key) for key in keys]}


def to_public_jwk(key: PublishedKey) -> dict[str, object]:
    """Return the key as a JWK without private members. If it was published with one, `d` is a placeholder."""
    options = {"kid": key.kid, "use": key.use, "alg": key.alg}
    jwk: dict[str, object] = {"kty": key.kty, **{name: text for name, text in options.items() if text is not None}}
    if key.key_ops is not None:
        jwk["key_ops"] = list(key.key_ops)
    return jwk | dict(key.material) | ({"d": _PRIVATE_PLACEHOLDER} if key.private else {})


def encryption_key(keys: Iterable[PublishedKey], alg: KeyManagement) -> PublishedKey | str:
    """Return the key to encrypt to by this algorithm, or why there is none. Keys meant for it come before others."""
    faults = []
    fitting = []
    for key in keys:
        if (fault := _encryption_fault(key, alg)) is None:
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


def _encryption_fault(key: PublishedKey, alg: KeyManagement) -> str | None:
    """Why the key cannot be used for this algorithm, None if it can."""
    if (key.kty == "RSA") is not alg.startswith("RSA") or key.kty not in MATERIAL:
        return f"is of the type {excerpt(key.kty, MAX_SHOWN_CHARS)}"
    if key.use not in (None, "enc"):
        return f'has "use": "{excerpt(key.use or "", MAX_SHOWN_CHARS)}"'
    if key.key_ops is not None and not _ENCRYPTION_OPERATIONS.intersection(key.key_ops):
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
