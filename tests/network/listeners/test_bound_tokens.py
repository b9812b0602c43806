"""Test tokens at a listener: those bound to issuers, and those of an identity provider."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from notifier.configuration.clients.client_rows import SourceState
from notifier.model.errors import QueueUnavailable
from notifier.model.registry import Issuer, Registry
from notifier.model.trouble import Trouble, TroubleKind
from notifier.network.listeners.authorization import AuthenticateBearer, Authorization
from notifier.network.listeners.openapi import PATH
from notifier.network.listeners.operation import routes_of
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.operators.deliveries.message_requests import RouteDependencies
from notifier.operators.deliveries.waiting_routes import WaitingRoutes
from notifier.operators.status.service_status import ServiceStatus, status_of
from notifier.operators.status.status_routes import StatusRoutes
from notifier.publishing.event_requests import EventRequests, build_api_app
from notifier.publishing.route_steps import ApiLimits
from notifier.settings.api_tokens import ApiToken
from tests.operators.status.test_service_status import stands, worker
from tests.publishing.serving import ISS, NOW, accept, look, serving, sources_of, token

# ── A token that is bound to issuers receives nothing about clients of others, by any route of operators ─────────────


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
    """Buckets that were peeked at, one entry for each peek; None for all."""
    return []


@pytest.fixture
async def ask(looked_at: list[object]) -> AsyncIterator[Callable[..., Any]]:
    """Send requests to a listener with the routes of operators, by a token."""

    def away(*_arguments: object, clients: object, **_options: object) -> None:
        looked_at.append(clients)
        raise QueueUnavailable("away")

    registry = Registry(issuers={iss: Issuer(iss=iss) for iss in (ISS, OTHER, THIRD)})
    sources = sources_of(lambda: TOKENS, registry)
    authorization = Authorization(sources.tokens)
    access = RouteDependencies(
        queue=cast("Any", SimpleNamespace(waiting=lambda _namer=None: SimpleNamespace(open_pass=away))),
        registry=lambda: registry,
        jobs=cast("Any", None),
        rules=cast("Any", None),
        write_audit=cast("Any", None),
        clock=lambda: NOW,
        monotonic=lambda: 0.0,
        indexes=cast("Any", None),
    )
    routes = [
        *routes_of(StatusRoutes(_look, lambda: 0.0), authorization),
        *routes_of(WaitingRoutes(access), authorization),
    ]
    app = build_api_app(EventRequests(accept, sources, ApiLimits(max_event=2000)), routes)
    async with serving(app) as listener, aiohttp.ClientSession() as http:

        async def asked(method: str, path: str, name: str, body: object = None) -> tuple[int, str, Any]:
            headers, url = {"Authorization": f"Bearer {name}-secret"}, f"http://127.0.0.1:{listener.port}{path}"
            async with http.request(method, url, headers=headers, json=body) as answer:
                return answer.status, await answer.text(), await answer.json(content_type=None)

        yield asked


async def test_answers_contain_no_clients_of_other_issuers(ask: Callable[..., Any]) -> None:
    """A token of all issuers receives them."""
    status, text, _ = await ask("GET", "/v1/status", "one")
    assert status == 200
    assert SECRET not in text
    assert OTHER not in text
    status, text, _ = await ask("GET", "/v1/status", "all")
    assert (status, SECRET in text, OTHER in text) == (200, True, True)


async def test_client_counts_of_other_issuers_are_hidden(ask: Callable[..., Any]) -> None:
    """The failure or change of a source is reported."""
    _, _, status = await ask("GET", "/v1/status", "one")
    source = {"name": "list", "kind": "http", "up": False, "age": 1.0, "changed": False, "held_back": False}
    assert status["workers"]["each"][0]["registry"] == [{**source, "clients": None, "problem": None}]
    assert status["clients_left_out"] is None
    troubles = {(each["kind"], each["text"]) for each in status["troubles"]}
    assert troubles == {("registry_source_failed", ""), ("unknown_client", "the registry has no such client (yet)")}
    _, _, status = await ask("GET", "/v1/status", "all")
    assert (status["clients_left_out"], len(status["troubles"])) == (7, 3)


async def test_retry_without_an_issuer_lists_only_issuers_of_the_token(ask: Callable[..., Any]) -> None:
    """The only issuer is the default; of several, the answer lists no other."""
    wanted = {"client_id": "shop", "dry_run": True}
    status, text, _ = await ask("POST", "/v1/retry", "two", wanted)
    assert status == 400
    assert f"one of {ISS}, {THIRD}" in text
    status, text, _ = await ask("POST", "/v1/retry", "all", wanted)
    assert (status, OTHER in text) == (400, True)
    status, text, _ = await ask("POST", "/v1/retry", "one", wanted)
    assert (status, OTHER in text) == (503, False)  # the request reached the queue


async def test_client_of_the_only_issuer_is_searched_in_its_bucket(
    ask: Callable[..., Any], looked_at: list[object]
) -> None:
    """With several issuers all buckets are searched."""
    for name in ("one", "two", "all"):
        await ask("GET", "/v1/waiting?client_id=shop", name)
    await ask("GET", f"/v1/waiting?client_id=shop&iss={OTHER}", "all")
    assert looked_at == [{(ISS, "shop")}, None, None, {(OTHER, "shop")}]


# ── Bearer tokens that expire, and foreign tokens, which a feature checks ────────────────────────────────────────────


JUDGED_AT = 1_750_000_000.0
OURS = token("ops", "read")
THEIRS = replace(token("alice", "read"), expires=JUDGED_AT + 1)
Ask = Callable[..., Any]


async def judge(bearer: str) -> ApiToken | None:
    """Accept one token, refuse another, and ignore all others."""
    if bearer == "withdrawn":
        raise Refusal(problem_response(403, "no role of the token counts here"))
    return THEIRS if bearer == "alice's" else None


@asynccontextmanager
async def asking(
    tokens: Iterable[ApiToken] | None, now: float = JUDGED_AT, judge: AuthenticateBearer | None = judge
) -> AsyncIterator[Ask]:
    """Send a request with a bearer token."""
    sources = sources_of(lambda: tokens)
    routes = routes_of(StatusRoutes(look, lambda: 0.0), Authorization(sources.tokens, lambda: now))
    app = build_api_app(EventRequests(accept, sources, ApiLimits(max_event=2000)), routes, judge)
    async with serving(app) as listener, aiohttp.ClientSession() as http:

        async def asked(bearer: str | None, path: str = "/v1/status") -> tuple[int, str, str]:
            headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
            async with http.get(f"http://127.0.0.1:{listener.port}{path}", headers=headers) as answer:
                document = await answer.json(content_type=None)
                return answer.status, document.get("title", ""), answer.headers.get("WWW-Authenticate", "")

        yield asked


async def test_expired_token_is_refused_as_an_unknown_one() -> None:
    """The answer to its owner alone shows that it was valid once."""
    tokens = (replace(OURS, expires=JUDGED_AT),)
    async with asking(tokens, JUDGED_AT - 1) as ask:
        assert (await ask("ops-secret"))[0] == 200
    async with asking(tokens) as ask:
        status, title, challenge = await ask("ops-secret")
        assert (status, title) == (401, "The token has expired at 2025-06-15 15:06:40Z")
        assert challenge == (await ask("another"))[2] == 'Bearer error="invalid_token"'
        assert "expired" not in (await ask("another"))[1]


@pytest.mark.parametrize("tokens", [(), (OURS,)])
async def test_foreign_token_is_checked_by_the_feature(tokens: tuple[ApiToken, ...]) -> None:
    """It has the scopes that the feature returns, until it expires. An empty token list accepts no other token."""
    async with asking(tokens) as ask:
        assert (await ask("alice's"))[0] == 200
        assert (await ask("withdrawn"))[:2] == (403, "no role of the token counts here")
        assert (await ask("unknown"))[0] == 401
        assert (await ask(None))[0] == 401
    async with asking(tokens, JUDGED_AT + 1) as ask:
        assert (await ask("alice's"))[0] == 401


async def test_invalid_token_is_ignored_where_none_is_needed() -> None:
    """A page that signs in again may send its old token."""
    async with asking(()) as ask:
        assert (await ask("withdrawn", PATH))[0] == 200


async def test_token_of_the_file_is_not_passed_to_the_feature() -> None:
    """The feature does not receive it."""
    seen: list[str] = []

    async def watch(bearer: str) -> None:
        seen.append(bearer)

    async with asking((OURS,), judge=watch) as ask:
        assert ((await ask("ops-secret"))[0], (await ask("another"))[0]) == (200, 401)
    assert seen == ["another"]
