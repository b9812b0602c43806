"""Tokens at a listener: those bound to issuers, and those that a provider issued."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from notifier.configuration.clients.client_rows import SourceState
from notifier.model.api_token import ApiToken
from notifier.model.errors import QueueUnavailable
from notifier.model.registry import Issuer, Registry
from notifier.model.trouble import Trouble, TroubleKind
from notifier.network.listeners.authorization import Authorization, JudgeBearer
from notifier.network.listeners.openapi import PATH
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.operators.deliveries.message_requests import RouteDependencies
from notifier.operators.deliveries.waiting_routes import WaitingRoutes
from notifier.operators.status.service_status import ServiceStatus, status_of
from notifier.operators.status.status_routes import StatusRoutes
from notifier.publishing.event_requests import EventRequests, build_api_app
from notifier.publishing.route_steps import ApiLimits
from tests.operators.status.test_service_status import stands, worker
from tests.publishing.serving import ISS, NOW, accept, look, serving, sources_of, token

# ── What a token that is bound to issuers is told: nothing of the clients of others, by any route of operators ────


OTHER, THIRD = "https://other.example.com", "https://third.example.com"
SECRET = "clinic"  # a client of OTHER
TOKENS = (
    token("one", "read", "repair", issuers=frozenset({ISS})),
    token("two", "read", "repair", issuers=frozenset({ISS, THIRD})),
    token("all", "read", "repair"),
)
SOURCE = SourceState(
    name="list", kind="http", up=False, age=1.0, clients=70, problem=f"row 3: {SECRET} of {OTHER} has no address"
)
TROUBLES = (
    Trouble(kind=TroubleKind.SOURCE_FAILED, text=f"row 3: {SECRET}", subject=SECRET, client_id=SECRET),
    Trouble(kind=TroubleKind.UNKNOWN_CLIENT, text=f"no such client; did you mean {SECRET} at {OTHER}?", iss=ISS),
    Trouble(kind=TroubleKind.UNKNOWN_CLIENT, text=SECRET, iss=OTHER, client_id=SECRET),
)


async def _look() -> ServiceStatus:
    clients = stands("shop"), replace(stands(SECRET), iss=OTHER)
    return status_of({}, [worker("a", *clients, registry=(SOURCE,), troubles=TROUBLES, left_out=7)], now=NOW)


@pytest.fixture
def looked_at() -> list[object]:
    """The clients whose buckets were looked at, one entry for each look; None for all."""
    return []


@pytest.fixture
async def ask(looked_at: list[object]) -> AsyncIterator[Callable[..., Any]]:
    """Asks a listener that has the routes of operators, by a token."""

    def away(*_arguments: object, clients: object, **_options: object) -> None:
        looked_at.append(clients)
        raise QueueUnavailable("away")

    registry = Registry(issuers={iss: Issuer(iss=iss) for iss in (ISS, OTHER, THIRD)})
    sources = sources_of(lambda: TOKENS, registry)
    authorization = Authorization(sources.tokens)
    access = RouteDependencies(
        queue=cast("Any", SimpleNamespace(waiting=lambda: SimpleNamespace(visit=away))),
        registry=lambda: registry,
        jobs=cast("Any", None),
        rules=cast("Any", None),
        write_audit=cast("Any", None),
        clock=lambda: NOW,
        steady=lambda: 0.0,
        indexes=cast("Any", None),
    )
    routes = [
        *StatusRoutes(authorization, _look, lambda: 0.0).routes(),
        *WaitingRoutes(authorization, access).routes(),
    ]
    app = build_api_app(EventRequests(accept, sources, ApiLimits(max_event=2000)), routes)
    async with serving(app) as listener, aiohttp.ClientSession() as http:

        async def asked(method: str, path: str, name: str, body: object = None) -> tuple[int, str, Any]:
            headers, url = {"Authorization": f"Bearer {name}-secret"}, f"http://127.0.0.1:{listener.port}{path}"
            async with http.request(method, url, headers=headers, json=body) as answer:
                return answer.status, await answer.text(), await answer.json(content_type=None)

        yield asked


async def test_no_answer_names_clients_of_other_issuers(ask: Callable[..., Any]) -> None:
    """Whoever all issuers concern sees them."""
    status, text, _ = await ask("GET", "/v1/status", "one")
    assert status == 200
    assert SECRET not in text
    assert OTHER not in text
    status, text, _ = await ask("GET", "/v1/status", "all")
    assert (status, SECRET in text, OTHER in text) == (200, True, True)


async def test_how_many_clients_others_have_is_not_told_either(ask: Callable[..., Any]) -> None:
    """That a source fails, or has changed, is."""
    _, _, status = await ask("GET", "/v1/status", "one")
    said = {"name": "list", "kind": "http", "up": False, "age": 1.0, "changed": False}
    assert status["workers"]["each"][0]["registry"] == [{**said, "clients": None, "problem": None}]
    assert status["clients_left_out"] is None
    told = {(each["kind"], each["text"]) for each in status["troubles"]}
    assert told == {("registry_source_failed", ""), ("unknown_client", "the registry has no such client (yet)")}
    _, _, status = await ask("GET", "/v1/status", "all")
    assert (status["clients_left_out"], len(status["troubles"])) == (7, 3)


async def test_a_retry_without_an_issuer_names_only_those_of_the_token(ask: Callable[..., Any]) -> None:
    """The only one is meant; of several, the answer lists no other."""
    wanted = {"client_id": "shop", "dry_run": True}
    status, text, _ = await ask("POST", "/v1/retry", "two", wanted)
    assert status == 400
    assert f"one of {ISS}, {THIRD}" in text
    status, text, _ = await ask("POST", "/v1/retry", "all", wanted)
    assert (status, OTHER in text) == (400, True)
    status, text, _ = await ask("POST", "/v1/retry", "one", wanted)
    assert (status, OTHER in text) == (503, False)  # it went on to the queue


async def test_a_client_of_the_only_issuer_is_looked_for_in_its_bucket(
    ask: Callable[..., Any], looked_at: list[object]
) -> None:
    """Of several issuers any may be meant: then all buckets are looked at."""
    for name in ("one", "two", "all"):
        await ask("GET", "/v1/waiting?client_id=shop", name)
    await ask("GET", f"/v1/waiting?client_id=shop&iss={OTHER}", "all")
    assert looked_at == [{(ISS, "shop")}, None, None, {(OTHER, "shop")}]


# ── Bearer tokens that expire, and those of others, which a feature judges ────────────────────────────────────────


JUDGED_AT = 1_750_000_000.0
OURS = token("ops", "read")
THEIRS = replace(token("alice", "read"), expires=JUDGED_AT + 1)
Ask = Callable[..., Any]


async def judge(bearer: str) -> ApiToken | None:
    """Knows one token, refuses another, and has never heard of the rest."""
    if bearer == "withdrawn":
        raise Refusal(problem_response(403, "no role of the token counts here"))
    return THEIRS if bearer == "alice's" else None


@asynccontextmanager
async def asking(
    tokens: Iterable[ApiToken] | None, now: float = JUDGED_AT, judge: JudgeBearer | None = judge
) -> AsyncIterator[Ask]:
    """Asks by a bearer token."""
    sources = sources_of(lambda: tokens)
    routes = StatusRoutes(Authorization(sources.tokens, lambda: now), look, lambda: 0.0).routes()
    app = build_api_app(EventRequests(accept, sources, ApiLimits(max_event=2000)), routes, judge)
    async with serving(app) as listener, aiohttp.ClientSession() as http:

        async def asked(bearer: str | None, path: str = "/v1/status") -> tuple[int, str, str]:
            headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
            async with http.get(f"http://127.0.0.1:{listener.port}{path}", headers=headers) as answer:
                document = await answer.json(content_type=None)
                return answer.status, document.get("title", ""), answer.headers.get("WWW-Authenticate", "")

        yield asked


async def test_a_token_that_has_expired_is_refused_as_an_unknown_one() -> None:
    """Only who has it hears that it was good once."""
    tokens = (replace(OURS, expires=JUDGED_AT),)
    async with asking(tokens, JUDGED_AT - 1) as ask:
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
    async with asking(tokens, JUDGED_AT + 1) as ask:
        assert (await ask("alice's"))[0] == 401


async def test_where_no_token_is_needed_a_bad_one_does_no_harm() -> None:
    """A page that signs in anew may send its old one along."""
    async with asking(()) as ask:
        assert (await ask("withdrawn", PATH))[0] == 200


async def test_a_token_of_the_file_is_nobody_else_s_business() -> None:
    """No judge sees it."""
    seen: list[str] = []

    async def watch(bearer: str) -> None:
        seen.append(bearer)

    async with asking((OURS,), judge=watch) as ask:
        assert ((await ask("ops-secret"))[0], (await ask("another"))[0]) == (200, 401)
    assert seen == ["another"]
