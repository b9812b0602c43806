"""Which logout tokens of an upstream provider are taken: each rule of Back-Channel Logout 1.0 §2.6, broken once."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from joserfc.jwk import OctKey

from notifier.features.upstreams.upstream_token import LOGOUT_EVENT, UnacceptedLogout, VerifiedLogout, check_logout
from notifier.tokens.security_event_token import KeysUnavailable
from tests.features.upstreams.upstream_provider import CLAIMS, NOW, OURS, RULES, UpstreamProvider, logout_token
from tests.tokens.transmitter import key, public, segments, shared_secret


async def verify(token: bytes, provider: UpstreamProvider | None = None) -> str:
    """Return `taken`, `away`, or the result of the refusal."""
    found = await (provider or UpstreamProvider()).judge.verify(token)
    if isinstance(found, UnacceptedLogout):
        assert "raw-" not in found.description
        return found.result
    return "away" if isinstance(found, KeysUnavailable) else "taken"


async def test_a_valid_token_names_the_ended_session() -> None:
    """`sub` and `sid` are in no representation of it, which a log may show."""
    found = await UpstreamProvider().judge.verify(logout_token())
    assert isinstance(found, VerifiedLogout)
    assert (found.sub, found.sid, found.jti, found.iat) == ("raw-sub-77", "raw-sid-88", "j1", NOW - 3)
    assert "raw-" not in repr(found)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"sub": None}, "taken"),
        ({"sid": None}, "taken"),
        ({"sub": None, "sid": None}, "claims"),
        ({"sub": ""}, "claims"),
        ({"sid": ["s1"]}, "claims"),
        ({"sid": "a\nb"}, "claims"),
        ({"sid": "\ud800"}, "claims"),
        ({"sub": "x" * 5000}, "claims"),
        ({"iss": "https://evil.example.com"}, "issuer"),
        ({"iss": "https://op.example.com/"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"aud": "another"}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": ["another", OURS]}, "taken"),
        ({"aud": "former"}, "taken"),
        ({"aud": [[OURS], 5, {}]}, "audience"),
        ({"iat": None}, "claims"),
        ({"iat": "now"}, "claims"),
        ({"iat": True}, "claims"),
        ({"iat": 1e300}, "claims"),
        ({"iat": NOW + 59}, "taken"),
        ({"iat": NOW + 61}, "expired"),
        ({"iat": NOW - 659, "exp": None}, "taken"),
        ({"iat": NOW - 661, "exp": None}, "expired"),
        ({"iat": NOW - 661, "exp": NOW + 100}, "expired"),
        ({"exp": NOW - 59}, "taken"),
        ({"exp": NOW - 61}, "expired"),
        ({"exp": False}, "claims"),
        ({"nbf": NOW + 59}, "taken"),
        ({"nbf": NOW + 61}, "expired"),
        ({"nbf": "soon"}, "claims"),
        ({"events": None}, "claims"),
        ({"events": {}}, "claims"),
        ({"events": [LOGOUT_EVENT]}, "claims"),
        ({"events": {LOGOUT_EVENT: True}}, "claims"),
        ({"events": {LOGOUT_EVENT: {"reason": "x"}, "urn:more": {}}}, "taken"),
        ({"events": {"http://schemas.openid.net/event/login": {}}}, "claims"),
        ({"nonce": ""}, "claims"),
        ({"jti": None}, "claims"),
        ({"jti": ""}, "claims"),
    ],
)
async def test_each_claim_is_judged(claims: Mapping[str, Any], expected: str) -> None:
    """`exp` may be absent, as with Hydra: `iat` bounds the age. Two clocks may differ by a minute."""
    assert await verify(logout_token(**claims)) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"typ": None}, "taken"),
        ({"typ": "JWT"}, "taken"),
        ({"typ": "application/Logout+JWT"}, "taken"),
        ({"typ": "at+jwt"}, "malformed"),
        ({"typ": 1}, "malformed"),
        ({"crit": ["b64"], "b64": False}, "malformed"),
        ({"kid": "nobody's"}, "signature"),
        ({"kid": None}, "taken"),
        ({"jwk": public(key("P-256", "evil")), "jku": "https://evil.example.com"}, "taken"),
    ],
)
async def test_the_header_is_judged(header: Mapping[str, Any], expected: str) -> None:
    """A key that the token itself brings is not looked at."""
    assert await verify(logout_token(header=header)) == expected


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "HS512", "RS1", "", "ES256K"])
async def test_algorithms_without_a_public_key_are_refused(alg: str) -> None:
    """Before any key is read: nobody can make us fetch something by such a token."""
    provider = UpstreamProvider()
    first, payload, signature = logout_token().split(b".")
    header = json.dumps({"alg": alg, "kid": "k1", "typ": "logout+jwt"}).encode()
    for token in (segments(header) + b"." + payload + b"." + signature, segments(header) + b"." + payload + b"."):
        assert await verify(token, provider) == "signature"
    assert (provider.readings, first) == (0, logout_token().split(b".")[0])


async def test_a_forged_token_is_refused() -> None:
    """Signed by another key, by the public key as the secret of HS256, with claims exchanged, or with no signature."""
    assert await verify(logout_token(key("P-256", "evil"))) == "signature"
    for secret in shared_secret(public(key("P-256"))):
        assert isinstance(secret, OctKey)
        assert await verify(logout_token(secret, {"alg": "HS256"})) == "signature"
    header, _, signature = logout_token().split(b".")
    other = segments(json.dumps({**CLAIMS, "sid": "another"}).encode())
    assert await verify(b".".join((header, other, signature))) == "signature"
    assert await verify(b".".join((header, other, b""))) == "signature"


async def test_only_the_algorithms_of_the_upstream_are_taken() -> None:
    """An operator may name one."""
    narrow = UpstreamProvider(RULES.model_copy(update={"algorithms": ("RS256",)}))
    assert await verify(logout_token(), narrow) == "signature"
    narrow.publish(public(key("RSA")))
    assert await verify(logout_token(key("RSA"), {"alg": "RS256"}), narrow) == "taken"
    assert await verify(logout_token(key("RSA"), {"alg": "PS256"}), narrow) == "signature"


@pytest.mark.parametrize(
    ("claims", "phrase"),
    [
        ({"iat": NOW * 1000}, "iat or nbf is in milliseconds; it must be in seconds"),
        ({"nbf": NOW * 1000}, "iat or nbf is in milliseconds; it must be in seconds"),
        ({"iat": NOW + 61}, "iat is in the future; compare the clocks"),
    ],
)
def test_milliseconds_are_not_taken_for_a_clock(claims: Mapping[str, Any], phrase: str) -> None:
    """The answer names the unit, not the clocks."""
    judged = check_logout({**CLAIMS, **claims}, RULES, NOW)
    assert isinstance(judged, UnacceptedLogout)
    assert judged.description == phrase
