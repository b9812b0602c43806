"""Tokens are signed as a strict receiver verifies them, whatever the algorithm, the header and the claims."""

import json
from base64 import urlsafe_b64decode

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from notifier.adapters.signers.jws import PrivateKey, compact_signer
from notifier.domain.client import Algorithm
from tests.adapters.signers.key_folder import pem


def _key(alg: Algorithm) -> PrivateKey:
    key = load_pem_private_key(pem(alg if alg[:2] not in ("RS", "PS") else "RS256"), None)
    assert isinstance(key, PrivateKey)
    return key


@pytest.mark.parametrize("alg", list(Algorithm))
def test_another_library_verifies_what_was_signed(alg: Algorithm) -> None:
    """B18, R1: each algorithm, many times over, since a signature's halves may begin with zeros."""
    key = _key(alg)
    sign = compact_signer(key, alg, "k1", "logout+jwt")
    for number in range(300 if alg is Algorithm.ES256 else 5):
        token = sign({"sub": "alice", "n": number})
        verified = jwt.decode_complete(token, key.public_key(), algorithms=[alg])
        assert verified["payload"] == {"sub": "alice", "n": number}
        assert verified["header"] == {"alg": alg, "kid": "k1", "typ": "logout+jwt"}


@pytest.mark.parametrize("sub", ["zoë ☃", "\ud800", 'a"b\\c\n', "\x00", "𝔘"])
def test_any_text_comes_through_as_it_is(sub: str) -> None:
    """B12: also what JSON can tell by an escape alone."""
    token = compact_signer(_key(Algorithm.EDDSA), Algorithm.EDDSA, "k1", None)({"sub": sub, "big": 2**70})
    payload = token.split(".")[1]
    assert json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4))) == {"sub": sub, "big": 2**70}
