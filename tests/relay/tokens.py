"""Genuine logout tokens of a server, and forged or unsuitable tokens."""

import base64
import hmac
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jwe
from joserfc.jwk import RSAKey

EVENT = "http://schemas.openid.net/event/backchannel-logout"
FORGED = "forged"
"""The `sid` of every token that must not lead to an attempt."""


def new_key(kid: str) -> RSAKey:
    """Make a key of a server's."""
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig", "alg": "RS256"})


def sign(key: RSAKey, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """Return a token with exactly these members, those of None aside. RS256, whatever the header states."""
    content = f"{_part({'alg': 'RS256', 'typ': 'logout+jwt', **header})}.{_part(claims)}"
    private = key.private_key
    assert private is not None
    return f"{content}.{_base64(private.sign(content.encode(), PKCS1v15(), SHA256()))}"


def logout_claims(issuer: str, **members: Any) -> dict[str, Any]:
    """Return the claims of a valid token, with these changes."""
    now = int(time.time())
    return {
        "iss": issuer, "aud": "shop", "iat": now, "exp": now + 120, "jti": uuid.uuid4().hex, "sub": "alice",
        "sid": uuid.uuid4().hex, "events": {EVENT: {}}, **members,
    }  # fmt: skip


def logout_token(key: RSAKey, issuer: str, **members: Any) -> str:
    """Return a token as the server signs it."""
    return sign(key, {"kid": key.kid}, logout_claims(issuer, **members))


def hostile_tokens(key: RSAKey, issuer: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong, and the token. All have the server's `kid` where they have one."""
    stranger, kid = new_key(str(key.kid)), {"kid": key.kid}
    claims = logout_claims(issuer, sid=FORGED)
    now = claims["iat"]
    headers: dict[str, dict[str, Any]] = {
        "a foreign key under a known kid": {},
        "a key in the header": {"jwk": stranger.as_dict(private=False)},
        "an address of keys in the header": {"jku": "http://127.0.0.1:1/jwks"},
        "an unknown kid": {"kid": "unknown"},
        "no kid": {"kid": None},
    }
    for why, header in headers.items():
        yield why, sign(stranger, {**kid, **header}, claims)
    yield "no algorithm", f"{_part({'alg': 'none', **kid})}.{_part(claims)}."
    signed = f"{_part({'alg': 'HS256', 'typ': 'logout+jwt', **kid})}.{_part(claims)}"
    shared = hmac.digest(key.as_pem(private=False), signed.encode(), "sha256")
    yield "a public key as a shared secret", f"{signed}.{_base64(shared)}"
    yield "a critical extension", sign(key, {**kid, "crit": ["x"], "x": 1}, claims)
    yield "an ID token", sign(key, {**kid, "typ": "JWT"}, {**claims, "events": None})
    yield (
        "an encrypted token",
        jwe.encrypt_compact({"alg": "RSA-OAEP", "enc": "A128GCM"}, json.dumps(claims), RSAKey.generate_key(2048)),
    )
    changes: dict[str, dict[str, Any]] = {
        "another issuer": {"iss": "https://other.example.com"},
        "a nonce": {"nonce": "n"},
        "no events": {"events": None},
        "another event": {"events": {"http://schemas.openid.net/event/other": {}}},
        "an old token": {"iat": now - 900, "exp": now - 780},
        "a token of the future": {"iat": now + 900, "exp": now + 1000},
        "no audience": {"aud": None},
        "an audience with a number": {"aud": ["shop", 5]},
        "two hundred audiences": {"aud": [f"client-{index}" for index in range(200)]},
        "no user and no session": {"sub": None, "sid": None},
        "a large token": {"more": "x" * 40_000},
    }
    for why, changed in changes.items():
        yield why, sign(key, kid, {**claims, **changed})
    genuine = sign(key, kid, claims)
    yield "another signature", f"{genuine[:-8]}AAAAAAAA"
    yield "no token", "x"


def _part(members: Mapping[str, Any]) -> str:
    return _base64(json.dumps({name: value for name, value in members.items() if value is not None}).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
