"""Bearer tokens that expire, and those of others, which a feature judges."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from notifier.model.api_token import ApiToken
from notifier.network.listeners.authorization import Authorization, JudgeBearer
from notifier.network.listeners.openapi import PATH
from notifier.network.listeners.problem import Refusal, problem
from notifier.operators.status.status_routes import StatusRoutes
from notifier.publishing.event_requests import EventRequests
from notifier.publishing.events import api_app
from notifier.publishing.route_steps import ApiLimits
from tests.publishing.serving import accept, look, serving, sources_of, token

NOW = 1_750_000_000.0
OURS = token("ops", "read")
THEIRS = replace(token("alice", "read"), expires=NOW + 1)
Ask = Callable[..., Any]


async def judge(bearer: str) -> ApiToken | None:
    """Knows one token, refuses another, and has never heard of the rest."""
    if bearer == "withdrawn":
        raise Refusal(problem(403, "no role of the token counts here"))
    return THEIRS if bearer == "alice's" else None


@asynccontextmanager
async def asking(
    tokens: Iterable[ApiToken] | None, now: float = NOW, judge: JudgeBearer | None = judge
) -> AsyncIterator[Ask]:
    """Asks by a bearer token."""
    sources = sources_of(lambda: tokens)
    routes = StatusRoutes(Authorization(sources.tokens, lambda: now), look, lambda: 0.0).routes()
    app = api_app(EventRequests(accept, sources, ApiLimits(max_event=2000)), routes, judge)
    async with serving(app) as listener, aiohttp.ClientSession() as http:

        async def asked(bearer: str | None, path: str = "/v1/status") -> tuple[int, str, str]:
            headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
            async with http.get(f"http://127.0.0.1:{listener.port}{path}", headers=headers) as answer:
                document = await answer.json(content_type=None)
                return answer.status, document.get("title", ""), answer.headers.get("WWW-Authenticate", "")

        yield asked


async def test_a_token_that_has_expired_is_refused_as_an_unknown_one() -> None:
    """Only who has it hears that it was good once."""
    tokens = (replace(OURS, expires=NOW),)
    async with asking(tokens, NOW - 1) as ask:
        assert (await ask("ops-secret"))[0] == 200
    async with asking(tokens) as ask:
        status, title, challenge = await ask("ops-secret")
        assert (status, title) == (401, "The token has expired at 2025-06-15 15:06:40Z")
        assert challenge == (await ask("another"))[2] == 'Bearer error="invalid_token"'
        assert "expired" not in (await ask("another"))[1]


@pytest.mark.parametrize("tokens", [(), (OURS,)])
async def test_a_token_of_others_is_judged_where_it_is_none_of_the_file(tokens: tuple[ApiToken, ...]) -> None:
    """It has the scopes that the judge says, until it expires. With an empty list of tokens nobody else comes in."""
    async with asking(tokens) as ask:
        assert (await ask("alice's"))[0] == 200
        assert (await ask("withdrawn"))[:2] == (403, "no role of the token counts here")
        assert (await ask("unknown"))[0] == 401
        assert (await ask(None))[0] == 401
    async with asking(tokens, NOW + 1) as ask:
        assert (await ask("alice's"))[0] == 401


async def test_where_no_token_is_needed_a_bad_one_does_no_harm() -> None:
    """A page that signs in anew may send its old one along."""
    async with asking(()) as ask:
        assert (await ask("withdrawn", PATH))[0] == 200


async def test_without_a_judge_tokens_of_others_are_unknown() -> None:
    """As before."""
    async with asking((OURS,), judge=None) as ask:
        assert ((await ask("alice's"))[0], (await ask("ops-secret"))[0]) == (401, 200)


async def test_a_token_of_the_file_is_nobody_else_s_business() -> None:
    """No judge sees it."""
    seen: list[str] = []

    async def watch(bearer: str) -> None:
        seen.append(bearer)

    async with asking((OURS,), judge=watch) as ask:
        assert ((await ask("ops-secret"))[0], (await ask("another"))[0]) == (200, 401)
    assert seen == ["another"]
