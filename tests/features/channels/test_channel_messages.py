"""The requests of each channel: exactly the members of its specification, for exactly this receiver and user."""

import json
from dataclasses import replace
from typing import Any

import pytest

from notifier.delivery.verdict import Dead
from notifier.features.channels.security_event import SESSION_REVOKED, VERIFICATION
from notifier.model.outcome import DeadReason
from notifier.model.request import PreparedRequest
from tests.features.channels.channel_harness import ISS, NOW, URI, Channels, client, decode, delivery
from tests.features.channels.receivers.schemas import validate

KINDS = ("security_event", "global_token_revocation", "command")
ISSUED_AT = int(NOW)
SUBJECTS: list[tuple[object, dict[str, str]]] = [
    ("iss_sub", {"format": "iss_sub", "iss": ISS, "sub": "alice"}),
    ("email", {"format": "email", "email": "alice@example.com"}),
    ("opaque", {"format": "opaque", "id": "alice"}),
    ({"format": "uid", "id": "{sub}"}, {"format": "uid", "id": "alice"}),
    (
        {"format": "iss_sub", "issuer": "{iss}", "sub": "x-{sub}"},
        {"format": "iss_sub", "issuer": ISS, "sub": "x-alice"},
    ),
]


def token_of(push: PreparedRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of the token in a request."""
    text = push.extras.authorization.removeprefix("Bearer ") or (push.body or b"").decode().removeprefix(
        "command_token="
    )
    assert text in push.secret
    return decode(text)


@pytest.mark.parametrize("sid", [None, "s1"])
@pytest.mark.parametrize("reason", [None, "terminated"])
@pytest.mark.parametrize("audience", [None, "https://aud.example.com", ["a", "b"]])
async def test_security_event(sid: str | None, reason: str | None, audience: Any) -> None:
    """It names user and session, has no sub and no exp, and the time of the event does not move between attempts."""
    of = delivery(sid=sid, reason=reason, ended_at=NOW - 60)
    made = await Channels().push(client("security_event", audience=audience), of)
    header, claims = token_of(made)
    validate("security_event", header, claims)
    assert dict(made.extras.headers) == {"Content-Type": "application/secevent+jwt", "Accept": "application/json"}
    assert (claims["iss"], claims["aud"], claims["iat"]) == (ISS, audience or URI, ISSUED_AT)
    user = {"format": "iss_sub", "iss": ISS, "sub": "alice"}
    session = {"format": "complex", "user": user, "session": {"format": "opaque", "id": "s1"}}
    assert claims["sub_id"] == (session if sid else user)
    event = {"event_timestamp": ISSUED_AT - 60} | ({"reason_admin": {"en": reason}} if reason else {})
    assert claims["events"] == {SESSION_REVOKED: event}


async def test_attempts_of_a_security_event() -> None:
    """A new jti and the same txn; without `ended_at` the time is when a worker first took the delivery."""
    channels, to = Channels(), client("security_event")
    of = delivery(first_taken_at=NOW - 7200)
    first, second = [token_of(await channels.push(to, of))[1] for _ in range(2)]
    assert (first["txn"], first["events"]) == (second["txn"], second["events"]) == ("e1", second["events"])
    assert first["events"][SESSION_REVOKED] == {"event_timestamp": int(NOW - 7200)}
    assert first["jti"] != second["jti"]


async def test_security_event_without_session_and_with_the_user_in_the_event() -> None:
    """As Google Workspace expects it."""
    to = client("security_event", preset="google_workspace", sessions=True)
    _, claims = token_of(await Channels().push(to, delivery(sid="s1", ended_at=NOW)))
    user = {"format": "email", "email": "alice@example.com"}
    assert claims["sub_id"] == user
    assert claims["events"] == {SESSION_REVOKED: {"event_timestamp": ISSUED_AT, "subject": user}}
    assert claims["aud"] == "https://sharedsignals.googleapis.com"


async def test_verification_event_of_a_stream() -> None:
    """The canary of a client with a stream; without one it is a usual request."""
    header, claims = token_of(await Channels().canary(client("security_event", stream_id="st-1"), delivery()))
    validate("verification_event", header, claims)
    assert claims["sub_id"] == {"format": "opaque", "id": "st-1"}
    assert claims["events"] == {VERIFICATION: {}}
    _, plain = token_of(await Channels().canary(client("security_event"), delivery()))
    assert plain["events"].keys() == {SESSION_REVOKED}


@pytest.mark.parametrize(("subject", "expected"), SUBJECTS)
async def test_global_token_revocation(subject: object, expected: dict[str, str]) -> None:
    """The body names the user; the proof is for this address and client only, and lives five minutes."""
    made = await Channels().push(client("global_token_revocation", subject=subject), delivery())
    assert json.loads(made.body or b"") == {"sub_id": expected}
    header, claims = token_of(made)
    validate("revocation_proof", header, claims)
    assert (claims["iss"], claims["sub"], claims["aud"]) == (ISS, "shop", URI)
    assert (claims["iat"], claims["exp"]) == (ISSUED_AT, ISSUED_AT + 300)
    assert dict(made.extras.headers) == {"Content-Type": "application/json"}


async def test_proof_by_headers_only() -> None:
    """No token is made."""
    made = await Channels().push(client("global_token_revocation", proof="headers"), delivery())
    assert (made.jti, made.extras.authorization, made.secret) == ("", "", "")


async def test_presets_of_revocations() -> None:
    """Auth0 names the member `subject`; apps written after Okta's guide check `nbf`."""
    made = await Channels().push(client("global_token_revocation", preset="auth0"), delivery())
    assert json.loads(made.body or b"").keys() == {"subject"}
    made = await Channels().push(client("global_token_revocation", preset="okta_app"), delivery())
    assert token_of(made)[1]["nbf"] == ISSUED_AT
    assert json.loads(made.body or b"")["sub_id"]["format"] == "email"


async def test_command() -> None:
    """`invalidate` for this account."""
    made = await Channels().push(client("command"), delivery(reason="terminated"))
    header, claims = token_of(made)
    validate("command", header, claims)
    assert (claims["aud"], claims["client_id"], claims["tenant"], claims["sub"]) == (URI, "shop", "acme", "alice")
    assert not made.extras.headers, "it is a form"


async def test_canary_of_a_command() -> None:
    """`metadata` has no sub."""
    header, claims = token_of(await Channels().canary(client("command"), delivery()))
    validate("metadata_command", header, claims)


@pytest.mark.parametrize("kind", KINDS)
async def test_pairwise_client_receives_only_the_sub_of_its_entry(kind: str) -> None:
    """The event's sub would link its user to users of other clients (B7)."""
    to = client(kind, pairwise=True)
    refused = await Channels().prepare(to, delivery())
    assert isinstance(refused, Dead)
    assert refused.reason is DeadReason.NO_SUB
    made = await Channels().push(to, delivery(sub="its-own", entry_sub=True))
    assert b"its-own" in (made.body or b"") or "its-own" in json.dumps(token_of(made))


@pytest.mark.parametrize("kind", KINDS)
async def test_event_without_sub(kind: str) -> None:
    """The reason is that of a logout token."""
    refused = await Channels().prepare(client(kind), delivery(sub=None))
    assert isinstance(refused, Dead)
    assert refused.reason is DeadReason.NO_SUB


@pytest.mark.parametrize("email", [None, "no address", "a@b c", "@", "a@b@c"])
@pytest.mark.parametrize("kind", KINDS[:2])
async def test_event_without_email(kind: str, email: str | None) -> None:
    """It has a reason of its own. The text names the setting, or says that it is not valid."""
    refused = await Channels().prepare(client(kind, subject="email"), delivery(email=email))
    assert isinstance(refused, Dead)
    assert refused.reason is DeadReason.NO_EMAIL
    assert ("registry.inline" in refused.text) is (not email)
    assert ("not valid" in refused.text) is bool(email)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("security_event", {"session": False}),
        ("security_event", {"preset": "google_workspace"}),
        ("global_token_revocation", {}),
        ("command", {}),
    ],
)
async def test_ended_session_never_ends_all(kind: str, settings: dict[str, Any]) -> None:
    """A delivery that was planned for another channel, or before its client was known, becomes a dead letter."""
    to = client(kind, **settings)
    assert to.channel is not None
    assert to.channel.ends_all
    refused = await Channels().prepare(to, delivery(sid="s1"))
    assert isinstance(refused, Dead)
    assert refused.reason is DeadReason.SESSION_ONLY
    assert isinstance(await Channels().prepare(to, delivery(sid=None)), PreparedRequest)
    assert isinstance(
        await Channels().prepare(client(kind, sessions=True, **settings), delivery(sid="s1")), PreparedRequest
    )


@pytest.mark.parametrize("kind", KINDS[1:])
async def test_follower_has_tokens_of_its_leader(kind: str) -> None:
    """The proof's `sub` and the command's `client_id` are the name at the issuer."""
    to = replace(client(kind, "shop-us"), follows="shop")
    _, claims = token_of(await Channels().push(to, delivery(client_id="shop-us")))
    assert claims["sub" if kind == "global_token_revocation" else "client_id"] == "shop"
