"""The stand-ins of Global Token Revocation refuse what the real receivers refused, and take what those took."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.features.channels.receivers.fake_issuer import FakeIssuer, PublishedKeys
from tests.features.channels.receivers.fake_revocation_receiver import REVOCATION_RULES, FakeRevocationReceiver
from tests.features.channels.receivers.posting import post
from tests.features.channels.receivers.signing import (
    CLIENT,
    ISS,
    NOW,
    PROOF_TYPE,
    USERS,
    jwks,
    proof_claims,
    revocation_body,
    sign,
)

JSON = "application/json"


@contextlib.asynccontextmanager
async def running(kind: str) -> AsyncIterator[tuple[FakeRevocationReceiver, FakeIssuer]]:
    """Run a receiver of that kind and its issuer."""
    rules = REVOCATION_RULES[kind]
    scopes = {"good": f"openid {rules.scope}", "poor": "openid"}
    async with (
        FakeIssuer(jwks, ISS) as issuer,
        FakeRevocationReceiver(
            rules, PublishedKeys(issuer, cached=rules.cached_keys), iss=ISS, client_id=CLIENT, users=USERS,
            scope_of=scopes.get, clock=lambda: NOW,
        ) as receiver,
    ):  # fmt: skip
        yield receiver, issuer


async def proven(
    receiver: FakeRevocationReceiver, body: bytes, typ: str | None = PROOF_TYPE, name: str = "", **claims: Any
) -> int:
    """POST with a JWT."""
    token = sign(proof_claims(receiver.url, **claims), typ, name=name)
    return await post(receiver.url, body, JSON, {"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize(
    ("change", "redfox", "bank"),
    [
        ({}, 204, 204),
        ({"typ": "JWT"}, 204, 204),
        ({"typ": "secevent+jwt"}, 401, 204),
        ({"name": "another key"}, 401, 401),
        ({"aud": "https://else.example.com"}, 401, 401),
        ({"aud": None}, 401, 401),
        ({"iss": "https://evil.example.com"}, 401, 401),
        ({"sub": "other-client"}, 401, 401),
        ({"exp": NOW - 60}, 401, 401),
        ({"exp": NOW + 301}, 401, 401),
        ({"jti": None}, 401, 401),
    ],
)
async def test_proofs_are_verified(change: dict[str, Any], redfox: int, bank: int) -> None:
    """The recorded bank accepts any `typ`."""
    for kind, status in (("redfox", redfox), ("bank", bank)):
        async with running(kind) as (receiver, _):
            assert await proven(receiver, revocation_body(), **change) == status, kind
            assert len(receiver.ended) == (status == 204)


@pytest.mark.parametrize(
    ("body", "redfox", "bank"),
    [
        (revocation_body(format="email", email="alice@example.com", iss=None, sub=None), 204, 204),
        (revocation_body(sub="nobody"), 404, 204),
        (revocation_body(iss="https://evil.example.com"), 400, 204),
        (revocation_body(more="x"), 400, 204),
        (revocation_body(format="uid"), 400, 400),
        (b'{"subject": {"format": "iss_sub"}}', 400, 400),
        (b"[]", 400, 400),
        (b"not JSON", 400, 400),
    ],
)
async def test_bodies_are_checked(body: bytes, redfox: int, bank: int) -> None:
    """An unknown user is 404, except at the bank."""
    for kind, status in (("redfox", redfox), ("bank", bank)):
        async with running(kind) as (receiver, _):
            assert await proven(receiver, body) == status, kind


async def test_a_jti_is_used_up_by_a_failed_request() -> None:
    """The application fails after the proof was accepted; the same proof is refused afterwards."""
    async with running("redfox") as (receiver, _):
        receiver.failing = [500]
        assert [await proven(receiver, revocation_body(), jti="j") for _ in range(2)] == [500, 401]
        assert await proven(receiver, revocation_body()) == 204
        assert len(receiver.ended) == 1


async def test_unreadable_keys_have_their_own_error() -> None:
    """A receiver that keeps the keys does not notice."""
    for kind, statuses in (("redfox", [204, 503]), ("bank", [204, 204])):
        async with running(kind) as (receiver, issuer):
            first = await proven(receiver, revocation_body())
            issuer.unavailable = True
            assert [first, await proven(receiver, revocation_body())] == statuses


async def test_the_workshop_stops_after_an_unknown_user() -> None:
    """It answers 404, and listens no more. It takes a static key and an email address."""
    async with running("okta_workshop") as (receiver, _):
        good, wrong = ({"Authorization": f"Bearer {key}"} for key in ("workshop-api-key", "wrong"))
        alice = revocation_body(format="email", email="alice@example.com", iss=None, sub=None)
        bob = revocation_body(format="email", email="bob@example.com", iss=None, sub=None)
        assert await post(receiver.url, alice, JSON, wrong) == 401
        assert await post(receiver.url, revocation_body(), JSON, good) == 400
        assert await post(receiver.url, alice, JSON, good) == 204
        assert await post(receiver.url, bob, JSON, good) == 404
        await receiver.until_stopped()
        with pytest.raises(aiohttp.ClientConnectorError):
            await post(receiver.url, alice, JSON, good)


@pytest.mark.parametrize(
    ("kind", "authorization", "body", "status"),
    [
        ("janssen", "Bearer good", b'{"sub_id": {"format": "uid", "id": "alice"}}', 204),
        ("janssen", "Bearer good", b'{"sub_id": {"format": "uid", "id": "nobody"}}', 204),
        ("janssen", "Bearer good", b'{"subject": {"format": "uid", "id": "alice"}}', 500),
        ("janssen", "Bearer good", revocation_body(), 500),
        ("janssen", "Bearer poor", b'{"sub_id": {"format": "uid", "id": "alice"}}', 401),
        ("janssen", "Bearer unknown", b'{"sub_id": {"format": "uid", "id": "alice"}}', 401),
        ("janssen", "", b'{"sub_id": {"format": "uid", "id": "alice"}}', 401),
        ("okta_org", "Bearer good", revocation_body(), 204),
        ("okta_org", "Bearer poor", revocation_body(), 403),
    ],
)
async def test_access_tokens_need_the_scope(kind: str, authorization: str, body: bytes, status: int) -> None:
    """Janssen answers 401 to a missing scope, the others 403."""
    async with running(kind) as (receiver, _):
        assert await post(receiver.url, body, JSON, {"Authorization": authorization}) == status


async def test_auth0_names_the_member_subject() -> None:
    """By its documentation, which follows draft 02 and answers 200."""
    async with running("auth0") as (receiver, _):
        assert await proven(receiver, revocation_body()) == 400
        assert await proven(receiver, revocation_body().replace(b"sub_id", b"subject")) == 200


async def test_outage_is_answered_without_a_check() -> None:
    """A proof of that time is not used up."""
    async with running("redfox") as (receiver, _):
        receiver.outage = 503
        first = await proven(receiver, revocation_body(), jti="j")
        receiver.outage = None
        assert (first, await proven(receiver, revocation_body(), jti="j")) == (503, 204)
        assert receiver.statuses == [503, 204]


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain"])
async def test_other_content_types_are_refused(content_type: str) -> None:
    """The body is JSON by the draft."""
    async with running("redfox") as (receiver, _):
        token = sign(proof_claims(receiver.url), PROOF_TYPE)
        sent = {"Authorization": f"Bearer {token}"}
        assert await post(receiver.url, revocation_body(), content_type, sent) == 400
