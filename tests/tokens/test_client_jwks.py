"""Of a client's JWK Set the key is taken that is meant for encryption; a set without one says why."""

import base64
from typing import Any

import pytest

from notifier.model.client import KeyManagement
from notifier.tokens.client_jwks import encryption_key, public_jwks
from notifier.tokens.foreign_keys import read_jwks


def rsa(bits: int = 2048, e: bytes = b"\x01\x00\x01", **more: object) -> dict[str, Any]:
    number = base64.urlsafe_b64encode(((1 << (bits - 1)) + 1).to_bytes((bits + 7) // 8)).decode().rstrip("=")
    return {"kty": "RSA", "n": number, "e": base64.urlsafe_b64encode(e).decode().rstrip("="), **more}


EC = {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}


def chosen(alg: KeyManagement, *jwks: dict[str, Any]) -> str | None:
    """The `kid` of the key."""
    keys = read_jwks({"keys": list(jwks)})
    assert not isinstance(keys, str)
    key = encryption_key(keys, alg)
    assert not isinstance(key, str), key
    return key.kid


def why_none(alg: KeyManagement, *jwks: dict[str, Any]) -> str:
    keys = read_jwks({"keys": list(jwks)})
    assert not isinstance(keys, str)
    why = encryption_key(keys, alg)
    assert isinstance(why, str)
    return why


def test_the_key_that_is_meant_for_encryption_is_taken() -> None:
    """By `use` first, then by `alg`; of two that are alike the first."""
    sig, both, enc = rsa(kid="s", use="sig"), rsa(kid="b"), rsa(kid="e", use="enc")
    exact = rsa(kid="x", use="enc", alg="RSA-OAEP-256")
    assert chosen(KeyManagement.RSA_OAEP, sig, both, EC) == "b"
    assert chosen(KeyManagement.RSA_OAEP, sig, both, enc, rsa(kid="e2", use="enc")) == "e"
    assert chosen(KeyManagement.RSA_OAEP_256, enc, exact) == "x"
    assert chosen(KeyManagement.ECDH_ES, exact, EC | {"kid": "ec"}) == "ec"
    assert chosen(KeyManagement.ECDH_ES_A256KW, {"kty": "OKP", "crv": "X25519", "x": "AA"}) is None


@pytest.mark.parametrize(
    ("alg", "jwk", "words"),
    [
        ("RSA-OAEP", rsa(kid="s", use="sig"), '\'s\' has "use": "sig"'),
        ("RSA-OAEP", EC, "a key without kid is of the type EC"),
        ("ECDH-ES", rsa(), "is of the type RSA"),
        ("ECDH-ES", {"kty": "oct", "k": "AA"}, "is of the type oct"),
        ("RSA-OAEP", rsa(alg="RSA-OAEP-256"), "is for RSA-OAEP-256"),
        ("RSA-OAEP", rsa(key_ops=["verify"]), '"key_ops"'),
        ("RSA-OAEP", rsa(d="AA"), "private half"),
        ("RSA-OAEP", rsa(1024), "1024 bits, not 2048 to 8192"),
        ("RSA-OAEP", rsa(16384), "16384 bits"),
        ("RSA-OAEP", rsa(e=b"\x01" * 9), "exponent"),
        ("RSA-OAEP", {"kty": "RSA", "e": "AQAB"}, "lacks members"),
        ("RSA-OAEP", {"kty": "RSA", "n": "é", "e": "AQAB"}, '"n" that is no base64url'),
        ("RSA-OAEP", rsa() | {"e": "é" + "AQAB" * 90}, '"e" that is no base64url'),
        ("ECDH-ES", EC | {"crv": "secp256k1"}, "on the curve secp256k1"),
        ("ECDH-ES", {"kty": "OKP", "crv": "Ed25519", "x": "AA"}, "on the curve Ed25519"),
        ("ECDH-ES", {"kty": ["x"]}, "of the type"),
    ],
)
def test_a_key_that_does_not_fit_is_named_with_its_fault(alg: str, jwk: dict[str, Any], words: str) -> None:
    """It is what a client must correct."""
    assert words in why_none(KeyManagement(alg), jwk)


@pytest.mark.parametrize("empty", [None, "", []], ids=["null", "text", "list"])
def test_an_empty_member_of_a_key_is_absent(empty: object) -> None:
    """Nobody published a private half by it."""
    odd = dict.fromkeys(("use", "alg", "key_ops", "d", "p", "oth", "x5c"), empty)
    assert chosen(KeyManagement.RSA_OAEP, {**rsa(kid="k"), **odd}) == "k"


def test_a_set_without_a_key_says_so() -> None:
    """Of very many keys the first are named."""
    assert why_none(KeyManagement.RSA_OAEP) == "has no key, and RSA-OAEP needs one"
    assert why_none(KeyManagement.RSA_OAEP, *[EC] * 9).endswith("; and 4 more")


@pytest.mark.parametrize("document", [None, [], "x", {"keys": {}}, {}])
def test_what_is_no_set_is_said(document: object) -> None:
    """Instead of a set without keys."""
    assert "JWK Set" in str(read_jwks(document))
    assert public_jwks(document) == {}


def test_key_operations_that_encrypt_are_enough() -> None:
    """RFC 7517 §4.3 has a name for each way."""
    for operation in ("encrypt", "wrapKey"):
        assert chosen(KeyManagement.RSA_OAEP, rsa(kid="k", key_ops=[operation, "verify"])) == "k"
    for operation in ("deriveKey", "deriveBits"):
        assert chosen(KeyManagement.ECDH_ES, EC | {"kid": "k", "key_ops": [operation]}) == "k"


def test_only_what_is_public_is_kept() -> None:
    """Of a key that was published whole, that it was; read again, it is the same."""
    whole = {"keys": [rsa(d="secret", p="secret", x5c=["AAAA"], kid="k", use="enc", key_ops=["wrapKey"]), 7]}
    kept = public_jwks(whole)
    assert "secret" not in str(kept)
    assert "x5c" not in str(kept)
    assert public_jwks(kept) == kept
    assert read_jwks(kept) == read_jwks(whole)
    assert "private half" in why_none(KeyManagement.RSA_OAEP, *kept["keys"])  # type: ignore[misc]
