"""Whether a receiver that has the issuer's JWK Set can verify what a key of ours signs."""

import pytest

from notifier.tokens.foreign_keys import read_jwks
from notifier.tokens.published_keys import publication_fault

EC = {"kty": "EC", "crv": "P-256", "x": "AQID", "y": "BAUG", "kid": "k1", "use": "sig", "alg": "ES256"}


def fault(*keys: object, alg: str = "ES256") -> str | None:
    published = read_jwks({"keys": list(keys)})
    assert not isinstance(published, str)
    return publication_fault(EC, alg, published)


def test_the_same_key_under_the_same_kid_is_published() -> None:
    """`alg` and `use` are optional (RFC 7517 §4), others may stand beside it, and leading zeros change no number."""
    assert fault(EC) is None
    assert fault({"kty": "oct", "kid": "k1"}, "no key", EC) is None
    assert fault({name: value for name, value in EC.items() if name not in ("alg", "use")}) is None
    assert fault({**EC, "x": "AAECAw", "key_ops": ["verify"]}) is None


@pytest.mark.parametrize(
    ("published", "words"),
    [
        ([], "not published"),
        ([{**EC, "kid": "k2"}], "kid 'k2'"),
        ([{**EC, "x": "AQIE"}], "another key"),
        ([{**EC, "use": "enc"}], '"use": "enc"'),
        ([{**EC, "key_ops": ["encrypt"]}], '"verify"'),
        ([{**EC, "alg": "ES384"}], "signs by ES256"),
        ([{**EC, "kid": 5, "x": None}], "not published"),
    ],
)
def test_what_keeps_a_receiver_from_verifying_is_named(published: list[object], words: str) -> None:
    """Each with its own sentence, since each has its own way out."""
    assert words in (fault(*published) or "")


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, "keys"])
def test_what_is_no_jwk_set_is_said(document: object) -> None:
    """An error page that is JSON is not an empty set: it says nothing of our keys."""
    assert isinstance(read_jwks(document), str)
