"""The tests' own verifier is strict: each violation of a rule that it checks is refused with that rule."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey

from tests.support.verifier import LOGOUT_EVENT, verify

NOW = 1_750_000_000.5
KEY = ECKey.generate_key("P-256", {"kid": "k"})
OTHER = ECKey.generate_key("P-256", {"kid": "k"})
JWKS = {"keys": [KEY.as_dict(private=False)]}


def token(header: dict[str, Any] | None = None, claims: dict[str, Any] | None = None, key: ECKey = KEY) -> str:
    """Return a valid token, except for the given members; a member given as None is omitted."""
    head = {"alg": "ES256", "kid": "k", "typ": "logout+jwt"} | (header or {})
    body = {"iss": "i", "aud": "c", "iat": 1_750_000_000, "exp": 1_750_000_120, "jti": "j", "sid": "s"}
    body |= {"events": {LOGOUT_EVENT: {}}} | (claims or {})
    head, body = ({name: value for name, value in part.items() if value is not None} for part in (head, body))
    registry = jws.JWSRegistry(algorithms=["ES256"], strict_check_header=False)
    return jws.serialize_compact(head, json.dumps(body), key, registry=registry)


def check(text: str, **more: Any) -> dict[str, Any]:
    return verify(text, JWKS, **{"iss": "i", "aud": "c", "now": NOW, **more})


def test_a_valid_token_is_accepted() -> None:
    """The claims are returned unchanged."""
    assert check(token(claims={"extra": 1}))["extra"] == 1


@pytest.mark.parametrize(
    ("header", "claims", "text"),
    [
        ({"typ": "JWT"}, {}, "B18"),
        ({"typ": None}, {}, "R7"),
        ({"jku": "https://x"}, {}, "R1, R7"),
        ({"kid": None}, {}, "R1"),
        ({"kid": "unknown"}, {}, "0 keys"),
        ({}, {"nonce": "n"}, "B14"),
        ({}, {"sid": None}, "B12"),
        ({}, {"sid": 7}, "no string"),
        ({}, {"sub": ""}, "no string"),
        ({}, {"jti": None}, "B10"),
        ({}, {"exp": None}, "B10"),
        ({}, {"jti": ""}, "jti"),
        ({}, {"iss": "other"}, "iss"),
        ({}, {"aud": ["c"]}, "R5"),
        ({}, {"aud": "other"}, "R5"),
        ({}, {"events": {LOGOUT_EVENT: {"x": 1}}}, "R4"),
        ({}, {"events": {LOGOUT_EVENT: {}, "more": {}}}, "R4"),
        ({}, {"iat": 1_750_000_001}, "R10"),
        ({}, {"iat": 1_750_000_000.0}, "whole seconds"),
        ({}, {"exp": 1_750_000_121}, "B29"),
        ({}, {"iat": 1_749_999_000, "exp": 1_749_999_100}, "expired"),
        ({}, {"exp": 1_750_000_000}, "after iat"),
    ],
)
def test_a_breach_is_refused(header: dict[str, Any], claims: dict[str, Any], text: str) -> None:
    """One error is enough."""
    with pytest.raises(AssertionError, match=text):
        check(token(header, claims))


def _unsigned(text: str) -> str:
    header = base64.urlsafe_b64encode(b'{"alg":"none","kid":"k","typ":"logout+jwt"}').rstrip(b"=").decode()
    return f"{header}.{text.split('.')[1]}.AAAA"


@pytest.mark.parametrize(
    ("bend", "text"),
    [
        (lambda text: text[:-8] + "AAAAAAAA", "does not verify"),
        (lambda text: text + ".x", "three parts"),
        (lambda text: text.rsplit(".", 1)[0] + ".", "three parts"),
        (lambda text: text.replace(".", "=.", 1), "padding"),
        (_unsigned, "B23"),
        (lambda text: "e30" + text[text.index(".") :], "R1, R7"),
        (lambda text: "e3?0" + text[text.index(".") :], "not base64url"),
        (lambda text: base64.urlsafe_b64encode(b'{"alg":1,"alg":1} ').decode() + text[text.index(".") :], "twice"),
    ],
)
def test_tampered_token_is_refused(bend: Callable[[str], str], text: str) -> None:
    """Signature, form and algorithm."""
    with pytest.raises(AssertionError, match=text):
        check(bend(token()))


def test_another_key_of_the_same_name_is_refused() -> None:
    """The kid selects the key, the signature decides."""
    with pytest.raises(AssertionError, match="does not verify"):
        check(token(key=OTHER))


def test_invalid_jwks_is_refused() -> None:
    """A private key in it, a key for another algorithm, or two with one kid."""
    public = KEY.as_dict(private=False)
    for keys in ([KEY.as_dict(private=True)], [public | {"alg": "ES384"}], [public, public], [public | {"use": "enc"}]):
        with pytest.raises(AssertionError):
            verify(token(), {"keys": keys}, iss="i", aud="c", now=NOW)
