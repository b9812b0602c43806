"""The schemas accept a good message of each kind, and nothing beside it."""

import json
from typing import Any

import pytest

from tests.features.channels.receivers.fake_event_receiver import SESSION_REVOKED
from tests.features.channels.receivers.schemas import SCHEMAS, validate
from tests.features.channels.receivers.signing import (
    NOW,
    SUBJECT,
    command_claims,
    event_claims,
    proof_claims,
    revocation_body,
)

GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "command": ("command+jwt", command_claims("https://shop.example.com/commands")),
    "security_event": ("secevent+jwt", event_claims(txn="e1")),
    "revocation_proof": ("global-token-revocation+jwt", proof_claims("https://shop.example.com/revoke")),
}


def header(typ: str) -> dict[str, Any]:
    """Return a JOSE header."""
    return {"alg": "RS256", "kid": "k1", "typ": typ}


@pytest.mark.parametrize("kind", GOOD)
def test_good_messages_are_valid(kind: str) -> None:
    """And with each further member they are not, nor without one."""
    typ, claims = GOOD[kind]
    validate(kind, header(typ), claims)
    for more in ("nonce", "sid", "exp" if kind == "security_event" else "events", "email"):
        with pytest.raises(AssertionError, match=more):
            validate(kind, header(typ), {**claims, more: NOW})
    for name in claims.keys() - {"txn"}:
        with pytest.raises(AssertionError, match=name):
            validate(kind, header(typ), {member: value for member, value in claims.items() if member != name})
    for wrong in ({**header(typ), "crit": ["x"]}, header("JWT"), {**header(typ), "alg": "none"}, {}):
        with pytest.raises(AssertionError):
            validate(kind, wrong, claims)


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": "alice"},
        {"events": {}},
        {"events": {SESSION_REVOKED: {"event_timestamp": NOW}, "urn:other": {}}},
        {"events": {SESSION_REVOKED: {}}},
        {"events": {SESSION_REVOKED: {"event_timestamp": NOW, "email": "a@example.com"}}},
        {"events": {SESSION_REVOKED: {"event_timestamp": NOW + 0.5}}},
        {"sub_id": {**SUBJECT, "email": "a@example.com"}},
        {"sub_id": {"format": "complex", "user": dict(SUBJECT)}},
        {"sub_id": {"format": "complex", "user": dict(SUBJECT), "session": {"format": "opaque"}}},
        {"aud": []},
    ],
)
def test_events_are_exact_inside(changes: dict[str, Any]) -> None:
    """Subject and event have no further member either."""
    with pytest.raises(AssertionError):
        validate("security_event", header("secevent+jwt"), event_claims(**changes))


def test_lifetimes_and_bodies() -> None:
    """A proof of 301 s is too long; a body has one identifier."""
    with pytest.raises(AssertionError, match="300"):
        validate("revocation_proof", header("global-token-revocation+jwt"), proof_claims("x", exp=NOW + 301))
    validate("revocation_body", None, json.loads(revocation_body()))
    with pytest.raises(AssertionError):
        validate("revocation_body", None, json.loads(revocation_body(email="a@example.com")))
    with pytest.raises(AssertionError):
        validate("revocation_body", None, {"subject": dict(SUBJECT)})
    validate("other_revocation_body", None, {"subject": {"format": "uid", "id": "alice"}})


def test_each_schema_is_closed() -> None:
    """No object of any schema takes arbitrary members, except an identifier that a file spells out."""
    for kind, schemas in SCHEMAS.items():
        text = json.dumps(schemas)
        assert text.count('"type": "object"') == text.count('"additionalProperties"'), kind
