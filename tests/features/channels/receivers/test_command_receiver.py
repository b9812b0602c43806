"""The stand-in of OpenID Provider Commands refuses whatever the draft forbids."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.features.channels.receivers.fake_command_receiver import FakeCommandReceiver
from tests.features.channels.receivers.fake_issuer import FakeIssuer, PublishedKeys
from tests.features.channels.receivers.posting import post_text
from tests.features.channels.receivers.signing import (
    CLIENT,
    COMMAND_TYPE,
    ISS,
    NOW,
    TENANT,
    USERS,
    command_claims,
    jwks,
    sign,
)

FORM = "application/x-www-form-urlencoded"


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[tuple[FakeCommandReceiver, FakeIssuer]]:
    """Run a receiver and its issuer."""
    async with (
        FakeIssuer(jwks, ISS) as issuer,
        FakeCommandReceiver(
            PublishedKeys(issuer), iss=ISS, client_id=CLIENT, tenant=TENANT, users=USERS, clock=lambda: NOW
        ) as receiver,
    ):
        yield receiver, issuer


async def sent(
    receiver: FakeCommandReceiver, typ: str | None = COMMAND_TYPE, name: str = "", **claims: Any
) -> tuple[int, dict[str, Any]]:
    """POST a command token; status and answer."""
    token = sign(command_claims(receiver.url, **claims), typ, name=name)
    status, text = await post_text(receiver.url, f"command_token={token}", FORM)
    return status, json.loads(text)


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({}, 200, None),
        ({"aud_sub": "a1"}, 200, None),
        ({"command": "metadata", "sub": None, "metadata": {}}, 200, None),
        ({"command": "metadata", "sub": None}, 400, "invalid_request"),
        ({"command": "metadata", "metadata": {}}, 400, "invalid_request"),
        ({"metadata": {}}, 400, "invalid_request"),
        ({"nonce": "n"}, 400, "invalid_request"),
        ({"sid": "s1"}, 400, "invalid_request"),
        ({"events": {}}, 400, "invalid_request"),
        ({"email": "alice@example.com"}, 400, "invalid_request"),
        ({"sub": None}, 400, "invalid_request"),
        ({"tenant": None}, 400, "invalid_request"),
        ({"tenant": "other"}, 400, "invalid_request"),
        ({"aud": "shop"}, 400, "invalid_request"),
        ({"aud": None}, 400, "invalid_request"),
        ({"client_id": "other"}, 400, "invalid_request"),
        ({"exp": NOW - 1}, 400, "invalid_request"),
        ({"iat": NOW + 60}, 400, "invalid_request"),
        ({"typ": "logout+jwt"}, 400, "invalid_request"),
        ({"typ": None}, 400, "invalid_request"),
        ({"name": "another key"}, 400, "invalid_request"),
        ({"command": "delete"}, 400, "unsupported_command"),
        ({"iss": "https://evil.example.com"}, 401, "unrecognized_provider"),
        ({"sub": "nobody"}, 409, "incompatible_state"),
    ],
)
async def test_commands_are_checked(change: dict[str, Any], status: int, error: str | None) -> None:
    """Each forbidden claim is a refusal."""
    async with running() as (receiver, _):
        answered, content = await sent(receiver, **change)
        assert (answered, content.get("error")) == (status, error)
        assert len(receiver.ended) == (status == 200 and change.get("command") is None)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("", FORM),
        ("logout_token={token}", FORM),
        ("command_token={token}&more=1", FORM),
        ("command_token={token}&command_token={token}", FORM),
        ("command_token={token}", "text/plain"),
        ("command_token=x", FORM),
        ("{token}", "application/secevent+jwt"),
    ],
)
async def test_requests_are_forms_with_one_token(body: str, content_type: str) -> None:
    """Whatever else they have is refused."""
    async with running() as (receiver, _):
        token = sign(command_claims(receiver.url), COMMAND_TYPE)
        assert (await post_text(receiver.url, body.format(token=token), content_type))[0] == 400


async def test_repeated_tokens_and_unreadable_keys_are_refused() -> None:
    """A new token is accepted once the keys can be read again."""
    async with running() as (receiver, issuer):
        assert [(await sent(receiver, jti="j"))[0] for _ in range(2)] == [200, 400]
        issuer.unavailable = True
        assert (await sent(receiver))[0] == 400
        issuer.unavailable = False
        receiver.success = 202
        assert (await sent(receiver))[0] == 202


async def test_unsupported_invalidate() -> None:
    """As the package of Hellō answers as published."""
    async with running() as (receiver, _):
        receiver.commands = ("metadata",)
        assert await sent(receiver) == (400, {"error": "unsupported_command"})
