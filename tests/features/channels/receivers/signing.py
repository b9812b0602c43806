"""Signs what the stand-ins are tested with, by joserfc: a good message of each channel, with changes."""

import json
import uuid
from collections.abc import Mapping
from typing import Any

from tests.features.channels.receivers import fake_command_receiver, fake_event_receiver, fake_revocation_receiver
from tests.features.channels.receivers.fake_event_receiver import SESSION_REVOKED
from tests.tokens.transmitter import key, public, signed

ISS, CLIENT, AUDIENCE, TENANT = "https://id.example.com", "shop", "https://shop.example.com", "acme"
USERS = ("alice", "alice@example.com")
NOW = 1_750_000_000
SUBJECT: Mapping[str, str] = {"format": "iss_sub", "iss": ISS, "sub": "alice"}


def jwks(*, alg: str | None = "RS256") -> dict[str, list[dict[str, Any]]]:
    """Return the issuer's key set: an RSA key `k1`, with its `alg` or without."""
    return {"keys": [public(key("RSA2048", ""), **({} if alg is None else {"alg": alg}))]}


def sign(claims: Mapping[str, Any], typ: str | None, *, name: str = "", alg: str = "RS256") -> str:
    """Return a token. `name`: another key than the published one. Claims of None are omitted."""
    given = {claim: value for claim, value in claims.items() if value is not None}
    of = key("P-256") if alg == "ES256" else key("RSA2048", name)
    return signed(given, of, alg=alg, typ=typ).decode()


def event_claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a session-revoked event."""
    claims = {"iss": ISS, "aud": AUDIENCE, "iat": NOW, "jti": str(uuid.uuid4()), "sub_id": dict(SUBJECT)}
    return {**claims, "events": {SESSION_REVOKED: {"event_timestamp": NOW - 2}}, **changes}


def command_claims(uri: str, **changes: Any) -> dict[str, Any]:
    """Return the claims of an `invalidate`."""
    claims = {"iss": ISS, "aud": uri, "client_id": CLIENT, "iat": NOW, "exp": NOW + 120, "jti": str(uuid.uuid4())}
    return {**claims, "command": "invalidate", "tenant": TENANT, "sub": "alice", **changes}


def proof_claims(uri: str, **changes: Any) -> dict[str, Any]:
    """Return the claims of the proof of a Global Token Revocation."""
    claims = {"iss": ISS, "sub": CLIENT, "aud": uri, "iat": NOW, "exp": NOW + 300, "jti": str(uuid.uuid4())}
    return {**claims, **changes}


def revocation_body(**changes: Any) -> bytes:
    """Return a body that names alice; `changes` are members of her identifier, omitted if None."""
    subject = {name: value for name, value in {**SUBJECT, **changes}.items() if value is not None}
    return json.dumps({"sub_id": subject}).encode()


EVENT_TYPE = fake_event_receiver.TYPE
COMMAND_TYPE = fake_command_receiver.TYPE
PROOF_TYPE = fake_revocation_receiver.TYPE
