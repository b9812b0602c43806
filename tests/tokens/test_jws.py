"""Tokens are signed as a strict receiver verifies them, whatever the algorithm, the header and the claims."""

import json
from base64 import urlsafe_b64decode

import jwt
import pytest

from notifier.model.client import Algorithm
from notifier.tokens.jws import compact_signer
from tests.tokens.memory_place import private


def test_a_signature_whose_halves_begin_with_zeros_verifies() -> None:
    """B18, R1: many times over, since one in 128 does; `test_keys` has each algorithm once."""
    key = private("ES256")
    sign = compact_signer(key, Algorithm.ES256, "k1", "logout+jwt")
    for number in range(600):
        verified = jwt.decode_complete(sign({"sub": "alice", "n": number}), key.public_key(), algorithms=["ES256"])
        assert verified["payload"] == {"sub": "alice", "n": number}
        assert verified["header"] == {"alg": "ES256", "kid": "k1", "typ": "logout+jwt"}


@pytest.mark.parametrize("sub", ["zoë ☃", "\ud800", 'a"b\\c\n', "\x00", "𝔘"])
def test_any_text_comes_through_as_it_is(sub: str) -> None:
    """B12: also what JSON can tell by an escape alone."""
    token = compact_signer(private("EdDSA"), Algorithm.EDDSA, "k1", None)({"sub": sub, "big": 2**70})
    payload = token.split(".")[1]
    assert json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4))) == {"sub": sub, "big": 2**70}
