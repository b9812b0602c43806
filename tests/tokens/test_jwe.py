"""What is encrypted here is opened by another library, which opens the published tokens too."""

from typing import Any

import pytest
from jwcrypto.jwe import InvalidJWEData
from jwcrypto.jwk import JWK

from notifier.model.client import ContentEncryption, KeyManagement
from notifier.tokens.client_jwks import encryption_key
from notifier.tokens.jwe import compact_encrypter
from tests.tokens.encryption_keys import VECTORS, keys, made, opened, public

TOKEN = "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"
ISS = "https://id.example.com"
CURVES = ("P-256", "P-384", "P-521", "X25519", "X448")
SPLIT = tuple((alg, kind) for alg in KeyManagement for kind in (("RSA",) if alg.startswith("RSA") else CURVES))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["source"])
def test_a_published_token_is_opened_and_another_to_its_key_too(vector: dict[str, Any]) -> None:
    """RFC 7516 and 7520: what opens ours is a judge. The algorithm of the example also chooses the key."""
    published = JWK(**vector["key"])
    header, plaintext = opened(vector["token"], published)
    assert plaintext == vector["plaintext"]
    alg, enc = KeyManagement(header["alg"]), ContentEncryption(header["enc"])
    key = encryption_key(keys(public(published)), alg)
    assert not isinstance(key, str)
    assert opened(compact_encrypter(key, alg, enc)(TOKEN, None, ISS), published)[1] == TOKEN


@pytest.mark.parametrize(("alg", "kind"), SPLIT)
def test_every_pair_is_opened_by_another_library(alg: KeyManagement, kind: str) -> None:
    """B16, B17: the header has `cty: JWT` (RFC 7519 §5.2), the `typ` of the token, the `kid` and `iss`."""
    [key] = keys(public(made(kind), kid="e1", use="enc"))
    for enc in ContentEncryption:
        header, content = opened(compact_encrypter(key, alg, enc)(TOKEN, "logout+jwt", ISS), made(kind))
        assert content == TOKEN
        header.pop("epk", None)
        assert header == {"alg": alg, "enc": enc, "cty": "JWT", "typ": "logout+jwt", "kid": "e1", "iss": ISS}


def test_no_two_tokens_share_anything_secret() -> None:
    """A new content key, and a new ephemeral key, for each."""
    [key] = keys(public(made("P-256")))
    encrypt = compact_encrypter(key, KeyManagement.ECDH_ES, ContentEncryption.A128CBC_HS256)
    first, second = (encrypt(TOKEN, None, ISS) for _ in range(2))
    assert opened(first, made("P-256"))[0]["epk"] != opened(second, made("P-256"))[0]["epk"]
    assert first.split(".")[2:] != second.split(".")[2:]
    assert "kid" not in opened(first, made("P-256"))[0]
    assert "typ" not in opened(first, made("P-256"))[0]


def test_another_key_opens_nothing() -> None:
    """Else the others would prove nothing."""
    [key] = keys(public(made("RSA")))
    token = compact_encrypter(key, KeyManagement.RSA_OAEP, ContentEncryption.A256GCM)(TOKEN, None, ISS)
    with pytest.raises(InvalidJWEData):
        opened(token, JWK.generate(kty="RSA", size=2048))


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": "EC", "crv": "P-256", "x": "%", "y": "AAAA"},
        {"kty": "OKP", "crv": "X25519", "x": "AAAA"},
    ],
)
def test_what_is_no_point_of_its_curve_is_no_key(jwk: dict[str, str]) -> None:
    """It is refused before anything is computed with it."""
    with pytest.raises(ValueError, match="is no"):
        compact_encrypter(keys(jwk)[0], KeyManagement.ECDH_ES, ContentEncryption.A128GCM)
