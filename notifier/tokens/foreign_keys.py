"""What a public key of others may be before anything is computed with it: a client's, an upstream's, a transmitter's.

A set is its owner's word. An RSA key says itself how long one use of it takes: eight keys of 3,072 bits whose exponents
are as long let seven tokens a second fill a worker. Within these bounds one use takes 1 ms at most.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping

from notifier.model.printable import excerpt

MOST_KEYS = 1000  # keys of one set that are read; issuers publish a handful
_RSA_BITS = range(2048, 8193)  # 2048 is the least of RFC 7518 §3.3, §4.3; each doubling takes four times as long
_EXPONENT_BYTES = 8  # a longer one would take as long as a private key's
_SPELLED = re.compile(r"[A-Za-z0-9_+/-]+={0,2}")  # libraries skip whatever else is in it, and would read another number
_NAMED = 5  # keys in a text
_KID = 60  # characters of it in a text


def rsa_fault(jwk: Mapping[str, object]) -> str | None:
    """Say why an RSA key (RFC 7518 §6.3.1) is not used, beginning with a verb; None if it may be."""
    modulus, exponent = _decoded(jwk.get("n")), _decoded(jwk.get("e"))
    if modulus is None or exponent is None:
        return f'has "{"n" if modulus is None else "e"}" that is no base64url'
    bits = int.from_bytes(modulus).bit_length()
    if bits not in _RSA_BITS:
        return f"has {bits} bits, not {_RSA_BITS.start} to {_RSA_BITS.stop - 1}"
    return "has an exponent that is too long" if len(exponent) > _EXPONENT_BYTES else None


def unused_keys(jwks: Iterable[object]) -> str | None:
    """Name the RSA keys of a set that are meant to verify signatures and do not; None if there are none."""
    faults = [
        f"{_name(jwk.get('kid'))} {fault}"
        for jwk in jwks
        if isinstance(jwk, Mapping) and jwk.get("kty") == "RSA" and jwk.get("use") in (None, "sig")
        if (fault := rsa_fault(jwk)) is not None
    ]
    more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
    return f"{'; '.join(faults[:_NAMED])}{more}" if faults else None


def _name(kid: object) -> str:
    return f"key {excerpt(kid, _KID)!r}" if isinstance(kid, str) else "a key without kid"


def _decoded(value: object) -> bytes | None:
    """The bytes of a number, without leading zeros; None if it is not base64url."""
    if not isinstance(value, str) or _SPELLED.fullmatch(value) is None:
        return None
    plain = value.rstrip("=")
    try:
        return base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4)).lstrip(b"\0")
    except binascii.Error:
        return None
