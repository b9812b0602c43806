"""The stand-ins of security events refuse what the real receivers refused, and take what those took."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tests.features.channels.receivers.fake_event_receiver import (
    CONTENT_TYPE,
    EVENT_RULES,
    SESSION_REVOKED,
    VERIFICATION,
    FakeEventReceiver,
)
from tests.features.channels.receivers.fake_issuer import FakeIssuer, PublishedKeys
from tests.features.channels.receivers.posting import post, post_text
from tests.features.channels.receivers.signing import (
    AUDIENCE,
    EVENT_TYPE,
    ISS,
    NOW,
    SUBJECT,
    event_claims,
    jwks,
    sign,
)

EMAIL = {"format": "email", "email": "alice@example.com"}
SESSION = {"format": "complex", "user": dict(SUBJECT), "session": {"format": "opaque", "id": "s1"}}
TWO: dict[str, Any] = {SESSION_REVOKED: {}, "https://schemas.openid.net/secevent/caep/event-type/credential-change": {}}
KINDS = ("strict", "quarkus", "caep_dev", "duo")


@contextlib.asynccontextmanager
async def running(
    kind: str, *, alg: str | None = "RS256", **changes: Any
) -> AsyncIterator[tuple[FakeEventReceiver, FakeIssuer]]:
    """Run a receiver of that kind and its issuer, whose key has `alg`. `changes` are other rules."""
    rules = replace(EVENT_RULES[kind], **changes)
    async with FakeIssuer(lambda: jwks(alg=alg), ISS) as issuer:
        keys = PublishedKeys(issuer, cached=rules.cached_keys)
        async with FakeEventReceiver(rules, keys, iss=ISS, audience=AUDIENCE, clock=lambda: NOW) as receiver:
            yield receiver, issuer


async def sent(
    receiver: FakeEventReceiver, typ: str | None = EVENT_TYPE, name: str = "", alg: str = "RS256", **claims: Any
) -> int:
    """POST a token."""
    return await post(receiver.url, sign(event_claims(**claims), typ, name=name, alg=alg), CONTENT_TYPE)


@pytest.mark.parametrize(
    ("change", "statuses"),
    [
        ({"sub_id": EMAIL}, (202, 202, 202, 202)),
        ({}, (202, 202, 400, 202)),
        ({"sub_id": {"format": "iss_sub", "issuer": ISS, "sub": "alice"}}, (400, 202, 202, 202)),
        ({"sub_id": SESSION}, (202, 202, 400, 202)),
        ({"sub_id": {**SESSION, "user": EMAIL}}, (202, 202, 202, 202)),
        ({"sub_id": {"format": "uid", "id": "alice"}}, (400, 202, 400, 202)),
        ({"sub_id": EMAIL, "aud": ["https://else.example.com"]}, (400, 400, 400, 500)),
        ({"sub_id": EMAIL, "iss": "https://evil.example.com"}, (400, 400, 400, 500)),
        ({"sub_id": EMAIL, "name": "another key"}, (400, 400, 400, 500)),
        ({"sub_id": EMAIL, "alg": "PS256"}, (400, 400, 400, 500)),
        ({"sub_id": EMAIL, "typ": "JWT"}, (400, 202, 202, 202)),
        ({"sub_id": EMAIL, "exp": NOW - 600}, (400, 202, 202, 202)),
        ({"sub_id": EMAIL, "sub": "alice"}, (400, 202, 202, 202)),
        ({"sub_id": EMAIL, "iat": NOW - 86_400}, (202, 202, 202, 202)),
        ({"sub_id": EMAIL, "iat": NOW + 60}, (400, 202, 202, 202)),
        ({"sub_id": EMAIL, "jti": None}, (400, 400, 400, 500)),
        ({"sub_id": EMAIL, "events": None}, (400, 400, 400, 500)),
        ({"sub_id": EMAIL, "events": TWO}, (400, 202, 202, 202)),
        ({"sub_id": None}, (400, 202, 400, 202)),
        ({"sub_id": EMAIL, "client_id": "shop"}, (400, 202, 202, 202)),
    ],
)
async def test_tokens_are_checked_by_the_rules_of_each(change: dict[str, Any], statuses: tuple[int, ...]) -> None:
    """In the order of KINDS."""
    for kind, status in zip(KINDS, statuses, strict=True):
        async with running(kind) as (receiver, _):
            assert await sent(receiver, **change) == status, kind
            assert len(receiver.ended) == (status == 202), kind


@pytest.mark.parametrize(("kind", "acts"), [("strict", 1), ("quarkus", 1), ("caep_dev", 2), ("duo", 2)])
async def test_repeated_jti_is_a_success(kind: str, acts: int) -> None:
    """Some act on it once, some twice."""
    async with running(kind) as (receiver, _):
        assert [await sent(receiver, jti="j", sub_id=EMAIL) for _ in range(2)] == [202, 202]
        assert len(receiver.ended) == acts


@pytest.mark.parametrize(("kind", "acts"), [("quarkus", 0), ("strict", 1)])
async def test_a_failed_jti_may_be_lost(kind: str, acts: int) -> None:
    """Quarkus notes a `jti` before its handler runs, so that the same token has no effect later."""
    async with running(kind) as (receiver, _):
        receiver.failing = [500]
        assert [await sent(receiver, jti="j") for _ in range(2)] == [500, 202]
        assert len(receiver.ended) == acts


@pytest.mark.parametrize(("kind", "statuses"), [("strict", [202, 400]), ("quarkus", [202, 202]), ("duo", [202, 202])])
async def test_unreadable_keys(kind: str, statuses: list[int]) -> None:
    """Quarkus and duo keep the keys."""
    async with running(kind) as (receiver, issuer):
        first = await sent(receiver)
        issuer.unavailable = True
        assert [first, await sent(receiver)] == statuses


async def test_duo_needs_the_algorithm_of_the_key() -> None:
    """A JWK without `alg` is an internal error there."""
    async with running("duo", alg=None) as (receiver, _):
        assert await sent(receiver) == 500


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"aud": "else"}, "invalid_audience"),
        ({"iss": "https://evil.example.com"}, "invalid_issuer"),
        ({"name": "another key"}, "invalid_key"),
        ({"typ": "JWT"}, "invalid_request"),
    ],
)
async def test_strict_receivers_name_the_error(change: dict[str, Any], code: str) -> None:
    """By the codes of RFC 8935; Quarkus answers without a body."""
    typ, name = change.pop("typ", EVENT_TYPE), change.pop("name", "")
    token = sign(event_claims(**change), typ, name=name)
    async with running("strict") as (receiver, _):
        status, text = await post_text(receiver.url, token, CONTENT_TYPE)
        assert (status, json.loads(text)["err"]) == (400, code)
    async with running("quarkus", typs=frozenset({EVENT_TYPE})) as (receiver, _):
        assert await post_text(receiver.url, token, CONTENT_TYPE) == (400, "")


async def test_keycloak_checks_request_and_authorization() -> None:
    """Another content type is 400 without a body; a handler that fails is 500."""
    async with running("keycloak") as (receiver, _):
        token, proof = sign(event_claims(), EVENT_TYPE), {"Authorization": "Bearer stream-secret"}
        assert await post_text(receiver.url, token, "application/json", proof) == (400, "")
        status, text = await post_text(receiver.url, token, CONTENT_TYPE, {"Authorization": "Bearer other"})
        assert (status, json.loads(text)["err"]) == (400, "authentication_failed")
        receiver.failing = [500]
        assert await post(receiver.url, token, CONTENT_TYPE, proof) == 500
        assert await post(receiver.url, token, CONTENT_TYPE, proof) == 202


async def test_google_needs_the_subject_in_the_event() -> None:
    """By its documentation."""
    async with running("google_workspace") as (receiver, _):
        assert await sent(receiver, sub_id=EMAIL) == 400
        assert await sent(receiver, sub_id=EMAIL, events={SESSION_REVOKED: {"subject": EMAIL}}) == 202


async def test_verification_events_are_recorded() -> None:
    """They end nothing."""
    async with running("strict") as (receiver, _):
        stream = {"format": "opaque", "id": "stream-1"}
        assert await sent(receiver, sub_id=stream, events={VERIFICATION: {"state": "x"}}) == 202
        assert (receiver.ended, receiver.verified) == ([], ["x"])


async def test_wrong_path_is_404() -> None:
    """Only the stand-in's own address is served."""
    async with running("strict") as (receiver, _):
        assert await post(f"{receiver.base}/else", sign(event_claims(), EVENT_TYPE), CONTENT_TYPE) == 404
