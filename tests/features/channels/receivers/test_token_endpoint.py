"""The stand-in of a token endpoint refuses wrong requests, and gives the hostile answers that it promises."""

import asyncio
import base64
import json
from collections.abc import Mapping

import aiohttp
import pytest

from tests.features.channels.receivers.fake_token_endpoint import (
    CLAMPED,
    MAX_BODY_BYTES,
    UNUSABLE,
    FakeTokenEndpoint,
    TokenAnswer,
)

FORM = {"grant_type": "client_credentials", "scope": "a b"}
SECRET = "s3cr:t&%"


async def asked(
    endpoint: FakeTokenEndpoint, form: Mapping[str, str] = FORM, secret: str = "s3cr%3At%26%25"
) -> tuple[int, bytes, Mapping[str, str]]:
    """Request a token, without following a redirect; status, body and headers."""
    headers = {"Authorization": "Basic " + base64.b64encode(f"notifier:{secret}".encode()).decode()}
    async with (
        aiohttp.ClientSession() as session,
        session.post(endpoint.url, data=form, headers=headers, allow_redirects=False) as answer,
    ):
        return answer.status, await answer.read(), answer.headers


@pytest.mark.parametrize(
    ("form", "secret", "error"),
    [
        (FORM, "wrong", "invalid_client"),
        ({"grant_type": "password"}, "s3cr%3At%26%25", "unsupported_grant_type"),
        ({**FORM, "client_secret": SECRET}, "s3cr%3At%26%25", "invalid_request"),
    ],
)
async def test_wrong_requests_are_refused(form: Mapping[str, str], secret: str, error: str) -> None:
    """The secret is sent by HTTP Basic authentication alone, in the encoding of RFC 6749 §2.3.1."""
    async with FakeTokenEndpoint("notifier", SECRET) as endpoint:
        _, body, _ = await asked(endpoint, form, secret)
        assert (json.loads(body)["error"], endpoint.refusals, endpoint.issued) == (error, [error], {})


async def test_tokens_have_scope_and_end() -> None:
    """A revoked or unknown token is not valid."""
    now = [1000.0]
    async with FakeTokenEndpoint("notifier", SECRET, clock=lambda: now[0]) as endpoint:
        tokens = [json.loads((await asked(endpoint))[1])["access_token"] for _ in range(2)]
        assert [endpoint.scope_of(token) for token in (*tokens, "unknown")] == ["a b", "a b", None]
        now[0] += 601
        assert endpoint.scope_of(tokens[0]) is None
        now[0] = 1000.0
        endpoint.revoke_all()
        assert endpoint.scope_of(tokens[0]) is None


@pytest.mark.parametrize("name", [name for name, answer in UNUSABLE.items() if not answer.hangs])
async def test_unusable_answers_are_sent(name: str) -> None:
    """None of them is a good answer by mistake."""
    async with FakeTokenEndpoint("notifier", SECRET, UNUSABLE[name]) as endpoint:
        status, body, headers = await asked(endpoint)
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = None
        token = content.get("access_token") if isinstance(content, dict) else None
        characters = {*"-._~+/="} | {chr(code) for code in range(128) if chr(code).isalnum()}
        good = isinstance(token, str) and 0 < len(token) <= 8192 and {*token} <= characters
        assert isinstance(content, dict) or status != 200 or not good
        assert not (
            good
            and status == 200
            and str(content.get("token_type") if isinstance(content, dict) else "").lower() == "bearer"
            and len(body) <= MAX_BODY_BYTES
        )
        assert ("Location" in headers) == (UNUSABLE[name].location is not None)


@pytest.mark.parametrize("answer", CLAMPED.values(), ids=CLAMPED)
async def test_clamped_answers_have_a_token(answer: TokenAnswer) -> None:
    """Only their lifetime differs."""
    async with FakeTokenEndpoint("notifier", SECRET, answer) as endpoint:
        status, body, _ = await asked(endpoint)
        content = json.loads(body)
        assert (status, content["token_type"].lower()) == (200, "bearer")
        assert 0 < len(content["access_token"]) <= 8192


async def test_hanging_answer_ends_with_the_server() -> None:
    """It comes too late for any timeout of a test."""
    endpoint = FakeTokenEndpoint("notifier", SECRET, UNUSABLE["no answer"])
    async with endpoint:
        pending = asyncio.create_task(asked(endpoint))
        await endpoint.until(lambda: endpoint.requests == 1)
        assert not pending.done()
    await asyncio.gather(pending, return_exceptions=True)
