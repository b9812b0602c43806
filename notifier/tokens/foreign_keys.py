"""Reads JWK Sets (RFC 7517) of clients and of issuers of received tokens, and refuses keys that are weak or slow.

The owner of a set chooses its keys, and the size of an RSA key determines the cost of its use. With eight keys of 3,072
bits and equally long exponents, seven tokens per second would occupy a worker. Within the limits of this module, one
use of a key takes at most 1 ms.

A client's owner chooses the size of its set too, and 10,000 sets may be in memory. So a set is bounded in keys and
bytes, and only the key that is used is kept.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence

from notifier.model.client import ClientKeysSource, KeyManagement, PublishedKey
from notifier.model.printable import excerpt
from notifier.network.http.issuer_document import present_members

MAX_KEYS = 100  # of one set; issuers publish a handful
MAX_SET_BYTES = 64 * 1024  # of one set: of its used members, and of the whole answer at a client's `jwks_uri`
MAX_MEMBER_CHARS = 4096  # of a text in a key; a number of 8,192 bits has 1,366
_RSA_BITS = range(2048, 8193)  # RFC 7518 §3.3, §4.3 require 2048; each doubling takes four times as long
_MAX_EXPONENT_BYTES = 8  # with a longer exponent, a verification takes as long as a signature
_BASE64URL = re.compile(r"[A-Za-z0-9_+/-]+={0,2}")  # libraries skip other characters, and would read another number
MAX_SHOWN_CHARS = 60  # of a member in a message
MATERIAL: Mapping[str, tuple[str, ...]] = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
SIGNATURES: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA", "Ed25519"),  # one algorithm: RFC 8037, RFC 9864
}
"""The algorithms by which each type of key, or curve, verifies signatures."""
_COORDINATE_BYTES: Mapping[str, int] = {  # RFC 7518 §6.2.1, RFC 8037 §2
    "P-256": 32, "P-384": 48, "P-521": 66, "Ed25519": 32, "X25519": 32, "X448": 56,
}  # fmt: skip
_CURVES: Mapping[str, tuple[str, ...]] = {"EC": ("P-256", "P-384", "P-521"), "OKP": ("X25519", "X448")}
_ENCRYPTION_OPERATIONS = frozenset({"encrypt", "wrapKey", "deriveKey", "deriveBits"})
_OPERATIONS = _ENCRYPTION_OPERATIONS | {"sign", "verify", "decrypt", "unwrapKey"}  # RFC 7517 §4.3
_PRIVATE_PLACEHOLDER = "left out"  # replaces the private members of a key that was published with them
_ENCRYPTION_ALG_PREFIXES = ("RSA1_5", "RSA-OAEP", "ECDH-ES")
_TEXT_MEMBERS = ("kid", "use", "alg")
_PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi", "k")
_MAX_NAMED_FAULTS = 5  # in a message


def find_rsa_fault(jwk: Mapping[str, object]) -> str | None:
    """Return why an RSA key (RFC 7518 §6.3.1) is refused, as a text that begins with a verb; None if it is usable."""
    modulus, exponent = decode_number(jwk.get("n")), decode_number(jwk.get("e"))
    if modulus is None or exponent is None:
        return f'has "{"n" if modulus is None else "e"}" that is no base64url'
    bits = int.from_bytes(modulus).bit_length()
    if bits not in _RSA_BITS:
        return f"has {bits} bits, not {_RSA_BITS.start} to {_RSA_BITS.stop - 1}"
    return "has an exponent that is too long" if len(exponent) > _MAX_EXPONENT_BYTES else None


def list_jwks(document: object) -> tuple[dict[str, object], ...] | str:
    """Return the keys of a JWK Set, or the reason why the document is not a JWK Set.

    Unusable parts are ignored (RFC 7517 §5): entries that are not objects, empty members, texts of more than
    MAX_MEMBER_CHARS, and `kid`, `use`, `alg` and `key_ops` of a wrong type.
    """
    keys = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(keys, list | tuple):
        return 'is no JWK Set: it must be a JSON object with a list "keys"'
    if len(keys) > MAX_KEYS:
        return f"has more than {MAX_KEYS} keys"
    return tuple(_usable_members(jwk) for jwk in keys if isinstance(jwk, dict))


def _usable_members(jwk: Mapping[str, object]) -> dict[str, object]:
    members = {
        name: value
        for name, value in present_members(jwk).items()
        if not isinstance(value, str) or len(value) <= MAX_MEMBER_CHARS
    }
    for name in _TEXT_MEMBERS:
        if not isinstance(members.get(name, ""), str):
            del members[name]
    if not isinstance(members.get("key_ops", []), list | tuple):
        del members["key_ops"]
    return members


def read_jwks(document: object) -> tuple[PublishedKey, ...] | str:
    """Return the keys of a JWK Set, with used public members only, or the reason why it is not a JWK Set."""
    jwks = list_jwks(document)
    if isinstance(jwks, str):
        return jwks
    keys = tuple(map(to_published_key, jwks))
    texts = (text for key in keys for text in (key.kty, key.kid, key.use, key.alg, *dict(key.material).values()))
    if sum(len(text) for text in texts if text is not None) > MAX_SET_BYTES:
        return f"is larger than {MAX_SET_BYTES // 1024} KiB"
    return keys


def to_published_key(jwk: Mapping[str, object]) -> PublishedKey:
    """Return the key of a JWK, without unrelated members."""
    kty, operations = str(jwk.get("kty"))[:MAX_MEMBER_CHARS], jwk.get("key_ops")
    members = ((name, jwk.get(name)) for name in MATERIAL.get(kty, ()))
    return PublishedKey(
        kty=kty,
        material=tuple((name, value) for name, value in members if isinstance(value, str)),
        key_ops=_known_operations(operations) if isinstance(operations, list | tuple) else None,
        private=any(name in jwk for name in _PRIVATE_MEMBERS),
        **{name: value if isinstance(value := jwk.get(name), str) else None for name in _TEXT_MEMBERS},
    )


def _known_operations(operations: Iterable[object]) -> tuple[str, ...]:
    known = (operation for operation in operations if isinstance(operation, str) and operation in _OPERATIONS)
    return tuple(dict.fromkeys(known))


def expand_names(algorithms: Iterable[str]) -> frozenset[str]:
    """Return the signature algorithms among these, with both names of Ed25519 if they have either."""
    names = {str(algorithm) for algorithm in algorithms}
    if not names.isdisjoint(SIGNATURES["Ed25519"]):
        names.update(SIGNATURES["Ed25519"])
    return frozenset(name for known_names in SIGNATURES.values() for name in known_names if name in names)


def list_verified_algorithms(key: PublishedKey) -> tuple[str, ...]:
    """Return the algorithms by which the key can verify signatures; empty if the key is for another purpose."""
    names = SIGNATURES.get("RSA" if key.kty == "RSA" else dict(key.material).get("crv", ""), ())
    is_ed25519 = key.kty == "OKP" and key.alg in names
    if key.alg is None or is_ed25519:  # both names of Ed25519 mean the same algorithm
        return names
    return tuple(name for name in names if name == key.alg)


def find_verifying_fault(key: PublishedKey) -> str | None:
    """Return why the key cannot verify signatures, as a text that begins with a verb; None if it can."""
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
        fault = find_rsa_fault(members)
    elif (crv := members.get("crv", "")) not in SIGNATURES:
        fault = f"is on the curve {excerpt(crv, MAX_SHOWN_CHARS)}"
    else:
        fault = find_coordinate_fault(key.kty, members)
    if fault is None and not list_verified_algorithms(key):
        fault = f"is for {excerpt(key.alg or '', MAX_SHOWN_CHARS)}"
    return fault


def find_coordinate_fault(kty: str, jwk: Mapping[str, object], *, private: bool = False) -> str | None:
    """Return which coordinate of an EC or OKP key libraries refuse, as a text that begins with a verb; None if none.

    Some issuers write a number without its leading zeros, or with a zero for its sign. `private`: `d` is needed too.
    """
    names = MATERIAL[kty][1:] if kty in _CURVES else ()
    needed = _COORDINATE_BYTES.get(str(jwk.get("crv")))
    for name in (*names, *(("d",) if names and private else ())):
        number = _decode(jwk.get(name))
        if number is None:
            return f'has "{name}" that is no base64url' if name in jwk else f'lacks "{name}"'
        if needed is not None and len(number) != needed:
            return f'has "{name}" of {len(number)} bytes, and {jwk["crv"]} needs {needed}, with leading zeros'
    return None


def find_unused_keys(keys: Iterable[PublishedKey]) -> str | None:
    """Return the signing keys of a set that cannot verify signatures, with their faults, as one text.

    None if there are no such keys. Keys of an unknown type are ignored (RFC 7517 §5).
    """
    faults = []
    for key in keys:
        is_for_encryption = (key.alg or "").startswith(_ENCRYPTION_ALG_PREFIXES)
        if key.kty in MATERIAL and key.use in (None, "sig") and not is_for_encryption:
            faults.append((key, find_verifying_fault(key)))
    return join_faults(f"{format_key(key)} {fault}" for key, fault in faults if fault is not None)


def join_faults(faults: Iterable[str]) -> str | None:
    """Return a text of the first faults and the number of the others; None if there are none."""
    all_faults = list(faults)
    if not all_faults:
        return None
    more = f"; and {len(all_faults) - _MAX_NAMED_FAULTS} more" if len(all_faults) > _MAX_NAMED_FAULTS else ""
    return f"{'; '.join(all_faults[:_MAX_NAMED_FAULTS])}{more}"


def format_key(key: PublishedKey) -> str:
    """Return the name of a key for texts."""
    return "a key without kid" if key.kid is None else f"key {excerpt(key.kid, MAX_SHOWN_CHARS)!r}"


def decode_number(value: object) -> bytes | None:
    """Return the bytes of a number, without leading zeros; None if it is not base64url."""
    number = _decode(value)
    return None if number is None else number.lstrip(b"\0")


def _decode(value: object) -> bytes | None:
    if not isinstance(value, str) or _BASE64URL.fullmatch(value) is None:
        return None
    plain = value.rstrip("=")
    try:
        return base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4))
    except binascii.Error:
        return None


# ── a client's keys, which encrypt the client's tokens ──────────────────────────────────────────────────────────


def public_jwks(document: object) -> dict[str, object]:
    """Return the JWK Set without its secrets, certificates and other members; empty if it is none."""
    keys = read_jwks(document)
    return {} if isinstance(keys, str) else {"keys": [to_public_jwk(key) for key in keys]}


def keep_used_keys(keys: Sequence[PublishedKey]) -> Sequence[PublishedKey]:
    """Return the key of a set that is used for each algorithm; without any the first, whose fault is reported."""
    used = (encryption_key(keys, alg) for alg in KeyManagement)
    return tuple(dict.fromkeys(key for key in used if not isinstance(key, str))) or keys[:1]


def to_public_jwk(key: PublishedKey) -> dict[str, object]:
    """Return the key as a JWK without private members. If it was published with any, `d` has a placeholder."""
    options = {"kid": key.kid, "use": key.use, "alg": key.alg}
    jwk: dict[str, object] = {"kty": key.kty, **{name: text for name, text in options.items() if text is not None}}
    if key.key_ops is not None:
        jwk["key_ops"] = list(key.key_ops)
    return jwk | dict(key.material) | ({"d": _PRIVATE_PLACEHOLDER} if key.private else {})


def encryption_key(keys: Iterable[PublishedKey], alg: KeyManagement) -> PublishedKey | str:
    """Return the key to encrypt to by this algorithm, or the reason why there is none.

    A key with `"use": "enc"` comes before others, then a key with this `alg`.
    """
    faults = []
    usable_keys = []
    for key in keys:
        fault = _find_encryption_fault(key, alg)
        if fault is None:
            usable_keys.append(key)
        else:
            faults.append(f"{format_key(key)} {fault}")
    if usable_keys:
        return max(usable_keys, key=lambda key: (key.use == "enc", key.alg == alg))
    if not faults:
        return f"has no key, and {alg} needs one"
    return f"has no key for {alg}: {join_faults(faults)}"


def format_key_fault(source: ClientKeysSource | tuple[PublishedKey, ...], reason: str) -> str:
    """Return a text that a client's tokens cannot be encrypted. `reason`: a text that begins with a verb."""
    name = f"its jwks_uri {source.uri}" if isinstance(source, ClientKeysSource) else "its jwks"
    return f"its tokens must be encrypted, and {name} {reason}"


def _find_encryption_fault(key: PublishedKey, alg: KeyManagement) -> str | None:
    """Return why the key cannot encrypt by this algorithm; None if it can."""
    if key.kty not in MATERIAL or (key.kty == "RSA") != alg.startswith("RSA"):
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
    lacking = next((name for name in MATERIAL[key.kty] if name not in members), None)
    if lacking is not None:
        return f'lacks "{lacking}"'
    if key.kty == "RSA":
        return find_rsa_fault(members)
    return None if members["crv"] in _CURVES[key.kty] else f"is on the curve {excerpt(members['crv'], MAX_SHOWN_CHARS)}"
