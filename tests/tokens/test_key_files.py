"""Test key files: accepted formats, their `kid`, and all errors at once."""

import base64
import re
from collections.abc import Callable, Mapping

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from notifier.model.client import ED25519_NAMES
from notifier.model.errors import ConfigurationError
from notifier.tokens.key_files import KeySource, load_keys
from notifier.tokens.published_keys import thumbprint
from tests.tokens.key_folder import ISS, OTHER, Folder, pem, signing_kids
from tests.tokens.memory_place import private

# RFC 8037 A.1 and A.3
ED25519 = {
    "kty": "OKP",
    "crv": "Ed25519",
    "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}
ED25519_THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("kind", ["RS256", "ES256", "ES384", "ES512", "EdDSA"])
def test_pem_and_jwk_are_the_same_key(folder: Folder, kind: str) -> None:
    """A key has one `kid`, the RFC 7638 thumbprint, in every format."""
    pem, jwk = folder.ring(folder.source(kind)), folder.ring(folder.source(folder.jwk(kind)))
    assert pem.jwks(ISS) == jwk.jwks(ISS)
    assert pem.kids(ISS) == (folder.joserfc(kind).thumbprint(),)


@pytest.mark.parametrize("kind", ["RS256", "ES256"])
def test_the_older_pem_formats_are_read(folder: Folder, kind: str) -> None:
    """PKCS#1 and SEC1 (`BEGIN RSA/EC PRIVATE KEY`), with text or parameters before them, or a certificate after."""
    old = private(kind).private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert b"BEGIN PRIVATE KEY" not in old
    before = b"Bag Attributes\n-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    after = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    expected = folder.ring(folder.source(kind)).kids(ISS)
    assert folder.ring(folder.source(before + old + after)).kids(ISS) == expected


def test_the_example_of_rfc_7638() -> None:
    """RFC 7638 §3.1, with the optional members."""
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3"
        "oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdA"
        "ZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-"
        "kEgU8awapJzKnqDKgw"
    )
    jwk = {"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
    assert thumbprint(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_the_example_of_rfc_8037(folder: Folder) -> None:
    """RFC 8037 A.3, from the private key of A.1; the JWKS has only the public half. Its algorithm has two names."""
    ring = folder.ring(folder.source(ED25519))
    public = {name: value for name, value in ED25519.items() if name != "d"}
    assert ring.jwks(ISS) == {"keys": [public | {"kid": ED25519_THUMBPRINT, "use": "sig"}]}


def test_a_given_kid_wins(folder: Folder) -> None:
    """The configuration's `kid` before the JWK's own before the thumbprint."""
    own = ED25519 | {"kid": "own"}
    assert folder.ring(folder.source(own)).kids(ISS) == ("own",)
    ring = folder.ring(folder.source(own, kid="given"))
    assert signing_kids(ring) == dict.fromkeys(ED25519_NAMES, "given")
    assert ring.jwks(ISS)["keys"][0]["kid"] == "given"


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("empty", [None, "", []], ids=["null", "text", "list"])
def test_an_empty_member_is_absent(folder: Folder, kind: str, empty: object) -> None:
    """Serializers write empty members."""
    odd = dict.fromkeys(("kid", "use", "alg", "key_ops", "oth", "x5c", "x5u", "keys"), empty)
    plain = folder.ring(folder.source(kind))
    assert folder.ring(folder.source({**folder.jwk(kind), **odd})).jwks(ISS) == plain.jwks(ISS)


@pytest.mark.parametrize("alg", ["EdDSA", "Ed25519"])
async def test_an_ed25519_key_signs_by_both_names(folder: Folder, alg: str) -> None:
    """Whichever of them its file has (RFC 9864)."""
    ring = folder.ring(folder.source({**ED25519, "alg": alg}))
    for name in ED25519_NAMES:
        token = await ring.sign(ISS, name, None, {})
        assert jwt.get_unverified_header(token)["alg"] == name


def pem_of(key: object) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # type: ignore[attr-defined, no-any-return]


def encrypted() -> bytes:
    return private("ES256").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))


def resized(jwk: Mapping[str, object], name: str, more: int) -> dict[str, object]:
    """Write a number with a zero in front, or without its first byte."""
    text = str(jwk[name])
    number = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    changed = bytes(more) + number if more > 0 else number[-more:]
    return {**jwk, name: base64.urlsafe_b64encode(changed).decode().rstrip("=")}


REFUSED: dict[str, tuple[Callable[[Folder], bytes | Mapping[str, object]], str]] = {
    "encrypted PKCS8": (lambda _: encrypted(), "is encrypted"),
    "OpenSSH": (
        lambda _: private("ES256").private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        "OpenSSH key; convert",
    ),
    "public PEM": (
        lambda _: private("ES256").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "is a public key",
    ),
    "certificate": (
        lambda _: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "is a certificate; the private key is needed",
    ),
    "two keys": (lambda _: pem("ES256") + pem("ES384"), "holds 2 private keys"),
    "cut short": (lambda _: pem("RS256")[:400], "is damaged"),
    "small RSA": (lambda _: pem_of(rsa.generate_private_key(65_537, 1024)), "RSA key of 1024 bits; at least 2048"),
    "secp256k1": (lambda _: pem_of(ec.generate_private_key(ec.SECP256K1())), "not a key that can be used"),
    "DER": (
        lambda _: private("ES256").private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        "is DER, not PEM; convert it: openssl",
    ),
    "empty": (lambda _: b"", "is empty"),
    "huge": (lambda _: b'{"kty": "RSA"' + b" " * 70_000 + b"}", "neither PEM nor a JWK"),
    "bad JSON": (lambda _: b'{"kty": "OKP", ', "not valid JSON"),
    "deep JSON": (lambda _: b'{"a":' * 10_000, "not valid JSON"),
    "JWK Set": (lambda _: {"keys": [ED25519]}, "JWK Set"),
    "public JWK": (lambda _: {k: v for k, v in ED25519.items() if k != "d"}, "is a public key"),
    "symmetric JWK": (lambda _: {"kty": "oct", "k": "c2VjcmV0"}, '"kty" is "oct"'),
    "no kty": (lambda _: {"d": "AAAA"}, '"kty" is null'),
    "encryption JWK": (lambda _: ED25519 | {"use": "enc"}, '"use" is "enc"'),
    "verifying JWK": (lambda _: ED25519 | {"key_ops": ["verify"]}, '"key_ops" does not hold "sign"'),
    "alg of another curve": (lambda f: f.jwk("ES256", alg="ES384"), '"alg" is "ES384", but this key can do ES256'),
    "list of algs": (lambda _: ED25519 | {"alg": ["EdDSA"]}, "but this key can do Ed25519, EdDSA"),
    "symmetric alg": (lambda _: ED25519 | {"alg": "HS256"}, '"alg" is "HS256", but this key can do Ed25519, EdDSA'),
    "halves apart": (lambda _: ED25519 | {"x": "A" * 43}, "damaged JWK"),
    "odd member": (lambda _: ED25519 | {"d": 7}, "damaged JWK"),
    "half an RSA key": (lambda f: {k: v for k, v in f.jwk("RS256").items() if k != "qi"}, "damaged JWK"),
    "short coordinate": (lambda f: resized(f.jwk("ES256"), "x", -1), 'has "x" of 31 bytes, and P-256 needs 32'),
    "sign of a coordinate": (lambda f: resized(f.jwk("ES256"), "y", 1), 'has "y" of 33 bytes, and P-256 needs 32'),
    "short private half": (lambda f: resized(f.jwk("ES384"), "d", -1), 'has "d" of 47 bytes, and P-384 needs 48'),
    "short seed": (lambda _: resized(ED25519, "d", -1), 'has "d" of 31 bytes, and Ed25519 needs 32'),
    "no coordinate": (lambda f: {k: v for k, v in f.jwk("ES256").items() if k != "y"}, 'lacks "y"'),
    "odd kid": (lambda _: ED25519 | {"kid": 7}, '"kid" must be a string'),
    "absent private half": (lambda _: ED25519 | {"d": None}, "is a public key"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_file_without_a_signing_key_is_refused(folder: Folder, name: str) -> None:
    """With the path in the configuration, the file, and the reason, but nothing of the file's content."""
    make, text = REFUSED[name]
    source = folder.source(make(folder))
    with pytest.raises(ConfigurationError, match=text) as caught:
        folder.ring(source)
    (mistake,) = caught.value.mistakes
    assert mistake.path == f'issuers["{ISS}"].keys[0].file'
    assert str(source.path) in mistake.text
    assert not any(word in mistake.text for word in re.findall(r"[\w+/-]{16}", source.path.read_text("latin-1")))


def test_a_jwk_may_leave_out_the_primes(folder: Folder) -> None:
    """RFC 7518 §6.3.2: `p`, `q` and the rest are only recommended."""
    short = {name: value for name, value in folder.jwk("RS256").items() if name in ("kty", "n", "e", "d")}
    assert folder.ring(folder.source(short)).kids(ISS) == folder.ring(folder.source("RS256")).kids(ISS)


def test_every_mistake_is_listed_at_once(folder: Folder) -> None:
    """Unreadable, invalid and duplicate keys of all issuers, each under its own path."""
    with pytest.raises(ConfigurationError) as caught:
        load_keys(
            {
                ISS: [KeySource(path=folder.path / "missing.pem"), folder.source("ES256"), folder.source("ES256")],
                OTHER: [
                    folder.source("ES384", kid="k"),
                    folder.source("EdDSA", kid="k"),
                    folder.source(b"?", kid="n"),
                    folder.source("ES512", kid=""),
                    KeySource(path=folder.path),
                ],
            }
        )
    mistakes = [(mistake.path, mistake.text) for mistake in caught.value.mistakes]
    assert [path for path, _ in mistakes] == [
        f'issuers["{ISS}"].keys[0].file',
        f'issuers["{ISS}"].keys[2].file',
        f'issuers["{OTHER}"].keys[1].kid',
        f'issuers["{OTHER}"].keys[2].file',
        f'issuers["{OTHER}"].keys[3].kid',
        f'issuers["{OTHER}"].keys[4].file',
    ]
    texts = [text for _, text in mistakes]
    assert "No such file" in texts[0]
    assert "as keys[1]" in texts[1]
    assert "'k' as keys[0]" in texts[2]
    assert "Is a directory" in texts[5]
