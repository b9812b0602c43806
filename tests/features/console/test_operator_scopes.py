"""The routes of operators: scopes and members are held as they are declared."""

from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from notifier.features.console.client_routes import ClientRoutes
from notifier.features.console.console_routes import ConsoleRoutes
from notifier.features.console.doctor_routes import DoctorRoutes
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.openapi import description_of
from notifier.operators.letters.dead_letter_routes import DeadLetterRoutes
from notifier.operators.letters.job_routes import JobRoutes
from notifier.operators.letters.waiting_routes import WaitingRoutes
from notifier.operators.status.status_routes import StatusRoutes, reload_routes
from notifier.publishing.event_requests import EventRequests
from notifier.publishing.events import api_app
from notifier.telemetry.log_level_routes import log_level_routes
from tests.publishing.serving import accept, look, serving, sources_of, token


def operator_routes(authorization: Authorization) -> list[web.RouteDef]:
    """Return every route of operators, over nothing: a request that is refused needs no more."""
    nothing: Any = None
    messages = SimpleNamespace(dead_letters=lambda: None, waiting=lambda: None)
    access: Any = SimpleNamespace(
        queue=messages, write_audit=lambda *_args, **_more: None, subject_id=str, clock=lambda: 0.0, registry=None
    )
    log, queue = (
        SimpleNamespace(subject_key=None, subject_key_file=None, subject="omit"),
        SimpleNamespace(sqlite_file=None),
    )
    settings = SimpleNamespace(log=log, queue=queue)
    given: Any = SimpleNamespace(live=SimpleNamespace(now=SimpleNamespace(settings=settings)))
    return [
        *log_level_routes(authorization, nothing), *reload_routes(authorization, nothing),
        *StatusRoutes(authorization, look, lambda: 0.0).routes(), *JobRoutes(authorization, nothing, nothing).routes(),
        *DeadLetterRoutes(authorization, access).routes(), *WaitingRoutes(authorization, access).routes(),
        *ConsoleRoutes(authorization, given, nothing).routes(), *ClientRoutes(authorization, given, nothing).routes(),
        *DoctorRoutes(authorization, given, nothing, nothing).routes(),
    ]  # fmt: skip


async def test_each_route_enforces_the_scope_that_it_declares() -> None:
    """A token with the other scopes is refused, and one bound to issuers where the declaration says so."""
    scopes = {"publish", "read", "repair"}
    tokens = [token(f"not-{scope}", *scopes - {scope}) for scope in scopes]
    tokens.append(token("bound", *scopes, issuers=frozenset()))
    sources = sources_of(lambda: tokens)
    routes = operator_routes(Authorization(sources.tokens))
    unbound = set()
    async with serving(api_app(EventRequests(accept, sources), routes)) as listener, aiohttp.ClientSession() as http:

        async def ask(route: web.RouteDef, name: str) -> tuple[int, str]:
            url = f"http://127.0.0.1:{listener.port}{route.path.format(id='x', name='x')}"
            async with http.request(route.method, url, headers={"Authorization": f"Bearer {name}-secret"}) as answer:
                return answer.status, answer.headers.get("WWW-Authenticate", "")

        for route in routes:
            operation = description_of(route.handler)
            assert operation is not None, route.path
            challenge = f'Bearer error="insufficient_scope", scope="{operation.scope}"'
            assert await ask(route, f"not-{operation.scope}") == (403, challenge), route.path
            if operation.unbound:
                assert await ask(route, "bound") == (403, ""), route.path
                unbound.add(f"{route.method} {route.path}")
    assert unbound == {"PUT /v1/log-level", "POST /v1/reload", "POST /v1/doctor", "GET /v1/doctor", "GET /v1/acts"}


@pytest.mark.parametrize("messages", ["dead-letters", "waiting"])
async def test_a_page_refuses_a_subject(messages: str) -> None:
    """Its index has no users. A filter without effect would show the messages of others."""
    sources = sources_of(lambda: (token("op", "read"),))
    routes = operator_routes(Authorization(sources.tokens))
    async with serving(api_app(EventRequests(accept, sources), routes)) as listener, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{listener.port}/v1/{messages}/page?subject=alice"
        async with http.get(url, headers={"Authorization": "Bearer op-secret"}) as answer:
            assert answer.status == 400
            assert [mistake["path"] for mistake in (await answer.json())["mistakes"]] == ["subject"]


async def test_a_reload_refuses_what_is_no_boolean() -> None:
    """`accept_loss` is read as every other flag is: a typing error must neither accept a loss nor be ignored."""
    sources = sources_of(lambda: (token("op", "repair"),))
    routes = operator_routes(Authorization(sources.tokens))
    async with serving(api_app(EventRequests(accept, sources), routes)) as listener, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{listener.port}/v1/reload?accept_loss=maybe"
        async with http.post(url, headers={"Authorization": "Bearer op-secret"}) as answer:
            assert answer.status == 400
            assert [mistake["path"] for mistake in (await answer.json())["mistakes"]] == ["accept_loss"]
