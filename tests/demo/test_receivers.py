"""The sample clients are as strict as the strictest receiver in the field, and behave as their kind says."""

import json
from collections.abc import AsyncIterator, Mapping
from functools import cache
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from notifier.demo.receivers import Receiver, sample_receivers
from notifier.demo.token_check import LOGOUT_EVENT, Invalid, TokenCheck, Verified

ISS = "https://id.example.com"
NOW = 1_800_000_000
REMOVED = object()


@cache
def private_key(kid: str) -> rsa.RSAPrivateKey:
    """One key a kid: `ours` is published, any other is a stranger's."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def published() -> dict[str, Any]:
    """The JWK Set of the issuer."""
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private_key("ours").public_key()))
    return {"keys": [{**jwk, "kid": "ours", "alg": "RS256", "use": "sig"}]}


def token(changes: Mapping[str, object] | None = None, *, kid: str = "ours", key: str = "ours", **header: str) -> str:
    """A logout token for `shop` that holds, but for these changes of its claims and header."""
    claims: dict[str, object] = {
        "iss": ISS,
        "aud": "shop",
        "iat": NOW,
        "exp": NOW + 120,
        "jti": "j-1",
        "sub": "alice",
        "sid": "s-1",
        "events": {LOGOUT_EVENT: {}},
    }
    claims.update(changes or {})
    kept = {name: value for name, value in claims.items() if value is not REMOVED}
    return jwt.PyJWT().encode(
        kept,
        private_key(key),
        algorithm=header.pop("alg", "RS256"),
        headers={"kid": kid, "typ": "logout+jwt", **header},
    )


def check() -> TokenCheck:
    """The check of `shop` at the moment NOW."""
    return TokenCheck(iss=ISS, client_id="shop", alg="RS256", jwks=published(), clock=lambda: NOW)


def test_a_token_by_the_book_is_read() -> None:
    """B10–B18: nothing is amiss, and the session is told."""
    assert check().read(token()) == Verified(jti="j-1", sub="alice", sid="s-1")


@pytest.mark.parametrize("missing", ["sub", "sid"])
def test_one_of_sub_and_sid_is_enough(missing: str) -> None:
    """B12: at least one; both are allowed."""
    assert isinstance(check().read(token({missing: REMOVED})), Verified)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"iss": "https://other.example.com"}, "iss"),
        ({"aud": "bank"}, "aud"),
        ({"aud": ["shop"]}, "R5"),
        ({"iat": NOW + 1}, "R10"),
        ({"iat": NOW - 31, "exp": NOW + 60}, "older"),
        ({"iat": NOW - 20, "exp": NOW}, "exp has passed"),
        ({"exp": NOW + 121}, "B29"),
        ({"exp": REMOVED}, "iat and exp"),
        ({"iat": REMOVED}, "iat and exp"),
        ({"jti": REMOVED}, "jti"),
        ({"events": REMOVED}, "R4"),
        ({"events": {LOGOUT_EVENT: {"a": 1}}}, "R4"),
        ({"events": {LOGOUT_EVENT: {}, "https://example.com/other": {}}}, "R4"),
        ({"nonce": "n"}, "B14"),
        ({"sub": REMOVED, "sid": REMOVED}, "B12"),
    ],
)
def test_each_broken_claim_is_named(changes: Mapping[str, object], rule: str) -> None:
    """Each rule of B10–B14, B29, R4, R5 and R10 is checked by itself, and the answer says which one broke."""
    outcome = check().read(token(changes))
    assert isinstance(outcome, Invalid)
    assert rule in outcome.reason


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (lambda: token(typ="JWT"), "B18"),
        (lambda: token(alg="RS512"), "B23"),
        (lambda: token(kid="nobody"), "R1"),
        (lambda: token(key="stranger"), "B16"),
        (lambda: "no.token.at.all", "compact"),
    ],
    ids=["typ", "alg", "kid", "signature", "shape"],
)
def test_a_bad_header_or_signature_is_named(bad: Any, rule: str) -> None:
    """B16, B18, B23, R1: algorithm pinned, key by `kid`, signature verified."""
    outcome = check().read(bad())
    assert isinstance(outcome, Invalid)
    assert rule in outcome.reason


def test_a_token_is_good_once() -> None:
    """R2: a repeated `jti` is refused."""
    strict = check()
    assert isinstance(strict.read(token()), Verified)
    assert strict.read(token()) == Invalid(reason="jti was seen before (R2)")


Five = Mapping[str, Receiver]


@pytest.fixture
async def receivers() -> AsyncIterator[Five]:
    """The five, with two sessions open at each."""
    async with sample_receivers(iss=ISS, jwks=published(), clock=lambda: NOW, pause=0.01) as five:
        for receiver in five.values():
            receiver.sessions.update(["s-1", "s-2"])
        yield five


async def post(receivers: Five, client_id: str, jti: str) -> int:
    """The status of one POST of a good token for session s-1."""
    uri = receivers[client_id].backchannel_logout_uri
    async with (
        aiohttp.ClientSession() as http,
        http.post(uri, data={"logout_token": token({"aud": client_id, "jti": jti})}) as response,
    ):
        return response.status


@pytest.mark.parametrize(
    ("client_id", "statuses"),
    [("shop", [204, 204]), ("reports", [204, 204]), ("forum", [503, 204, 503]), ("payroll", [400, 400])],
)
async def test_each_kind_answers_after_its_manner(receivers: Five, client_id: str, statuses: list[int]) -> None:
    """The healthy and the slow accept, the flaky one every other time, the rejecting one never; each counts."""
    assert [await post(receivers, client_id, f"j-{number}") for number in range(len(statuses))] == statuses
    receiver = receivers[client_id]
    visit = receiver.visits["s-1"]
    assert (visit.posts, visit.accepted) == (len(statuses), statuses.count(204))
    assert receiver.sessions == ({"s-2"} if 204 in statuses else {"s-1", "s-2"})
    assert receiver.invalid == []


async def test_nobody_listens_at_the_dead_one(receivers: Five) -> None:
    """Its port is taken, so that nobody else answers there, and refuses connections."""
    with pytest.raises(aiohttp.ClientConnectorError):
        await post(receivers, "museum", "j-1")


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("logout_token", "a.b.c")],
        [("logout_token", "good"), ("logout_token", "good")],
    ],
    ids=["none", "forged", "twice"],
)
async def test_an_invalid_request_is_answered_400_and_noted(receivers: Five, fields: list[tuple[str, str]]) -> None:
    """B28, R9: the session lives on, and the reason is kept."""
    shop = receivers["shop"]
    good = token()
    form = aiohttp.FormData([(name, good if value == "good" else value) for name, value in fields])
    async with aiohttp.ClientSession() as http, http.post(shop.backchannel_logout_uri, data=form) as response:
        assert response.status == 400
        assert (await response.json())["error"] == "invalid_request"
    assert len(shop.invalid) == 1
    assert "s-1" in shop.sessions
