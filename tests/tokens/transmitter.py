"""A transmitter of signed tokens, whose keys and clock a test sets. joserfc signs, not the code under test."""

import base64
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument
from notifier.tokens.transmitter_keys import TransmitterKeys

ISSUER = "https://kc.example.com/realms/demo"
AUDIENCE = "https://notifier.example.com"
NOW = 1_750_000_000.0
REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
CLAIMS: Mapping[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "iat": int(NOW) - 3,
    "jti": "j1",
    "sub_id": {
        "format": "complex",
        "user": {"format": "iss_sub", "iss": ISSUER, "sub": "raw-sub-77"},
        "session": {"format": "opaque", "id": "raw-sid-88"},
    },
    "events": {REVOKED: {"event_timestamp": int(NOW) - 4, "initiating_entity": "user"}},
}


@cache
def key(kind: str, name: str = "") -> Key:
    """Return a cached key pair; `name` distinguishes keys of one kind."""
    if kind.startswith("RSA"):
        return RSAKey.generate_key(int(kind[3:] or 2048), auto_kid=False)
    if kind == "Ed25519":
        return OKPKey.generate_key("Ed25519", auto_kid=False)
    return ECKey.generate_key(kind, auto_kid=False)


def public(of: Key, kid: str | None = "k1", **more: object) -> dict[str, Any]:
    """Return the public half as a JWK."""
    return {**of.as_dict(private=False), **({} if kid is None else {"kid": kid}), **more}


def signed(
    claims: Mapping[str, Any] | bytes = CLAIMS,
    of: Key | None = None,
    alg: str = "ES256",
    kid: str | None = "k1",
    **header: Any,
) -> bytes:
    """Return a token of any content, in compact form, signed by the key `of`. Header members of None are omitted."""
    members = {"typ": "secevent+jwt", "alg": alg, "kid": kid, **header}
    protected = {name: value for name, value in members.items() if value is not None}
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    content = segments(json.dumps(protected).encode(), payload)
    signer = jws.JWSRegistry(algorithms=[alg]).get_alg(alg)
    return content + b"." + segments(signer.sign(content, key("P-256") if of is None else of))


def segments(*parts: bytes) -> bytes:
    """Return the encoded parts of a token."""
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)


class Transmitter:
    """Publish keys, or be unavailable."""

    def __init__(self, *published: Mapping[str, Any]) -> None:
        self.content: object = {"keys": list(published)}
        self.away = False
        self.readings = 0
        self.monotonic = 1000.0
        self.keys = TransmitterKeys(ISSUER, self.read, lambda: self.monotonic, self.pause)

    def publish(self, *published: Mapping[str, Any]) -> None:
        """Publish these keys from now on."""
        self.content = {"keys": list(published)}

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        self.monotonic += seconds

    async def read(self) -> IssuerDocument | DocumentIssue:
        """Fetch the JWK Set."""
        self.readings += 1
        return DocumentIssue(text="refused the connection") if self.away else IssuerDocument(content=self.content)


def shared_secret(jwk: Mapping[str, Any]) -> Sequence[Key]:
    """Return candidates for the secret of HS256 of a forger: public texts."""
    return [OctKey.import_key(json.dumps(jwk)), OctKey.import_key(jwk["x"])]
