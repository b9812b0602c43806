"""The API's own description: it tells of every route, it is OpenAPI 3.1, and what it says is true of the listener."""

from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from notifier.features.console.client_routes import ClientRoutes
from notifier.features.console.console_routes import ConsoleRoutes
from notifier.features.console.doctor_routes import DoctorRoutes
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.openapi import PATH, AnswerDescription, OperationDescription, description_of, openapi
from notifier.operators.letters.dead_letter_routes import DeadLetterRoutes
from notifier.operators.letters.job_routes import JobRoutes
from notifier.operators.letters.waiting_routes import WaitingRoutes
from notifier.operators.status.reload_routes import reload_routes
from notifier.operators.status.status_routes import StatusRoutes
from notifier.publishing.event_requests import EventRequests
from notifier.publishing.events import api_app
from notifier.telemetry.log_level import LogLevel
from notifier.telemetry.log_level_routes import log_level_routes
from tests.network.listeners.described import described
from tests.publishing.serving import accept, look, serving, sources_of, token


def app() -> web.Application:
    sources = sources_of(lambda: (token("idp", "publish", "read", "repair"),))
    authorization = Authorization(sources.tokens)
    more = [*log_level_routes(authorization, Level()), *StatusRoutes(authorization, look, lambda: 0.0).routes()]
    return api_app(EventRequests(accept, sources), more)


class Level(LogLevel):
    """What a worker logs."""

    def __init__(self) -> None:
        super().__init__("info", lambda: None)

    def set(self, level: str, *, by: str) -> None:
        self.now = level


@pytest.mark.parametrize("examples", [2, pytest.param(25, marks=pytest.mark.full)])
def test_what_it_says_is_true(examples: int) -> None:
    """Schemathesis: bodies, queries and headers by the schema and against it, and every answer as it is described."""
    assert described(app(), examples) == [
        "GET /v1/log-level",
        f"GET {PATH}",
        "GET /v1/status",
        "POST /v1/events",
        "PUT /v1/log-level",
    ]


def operator_routes(authorization: Authorization) -> list[web.RouteDef]:
    """Return every route of operators, over nothing: a request that is refused needs no more."""
    nothing: Any = None
    messages = SimpleNamespace(dead_letters=lambda: None, waiting=lambda: None)
    access: Any = SimpleNamespace(queue=messages, write_audit=None, subject_id=str)
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


def test_every_route_that_stands_is_told() -> None:
    """With its parameters, from its description or else from its docstring."""

    async def plain(_request: web.Request) -> web.Response:
        """Say nothing much.

        And more.
        """
        raise AssertionError

    @OperationDescription(
        summary="Look.",
        scope="read",
        query={"limit": {"type": "integer"}, "iss": {"type": "string"}},
        required=["iss"],
        answers={200: AnswerDescription(text="Found.", schema={"type": "object"})},
        problems={404: "Not found."},
    )
    async def told(_request: web.Request) -> web.Response:
        raise AssertionError

    document = openapi([web.get("/v1/things/{id}", told), web.delete(r"/v1/things/{id:\w+}", plain)])
    both = document["paths"]["/v1/things/{id}"]
    assert both["get"]["security"] == [{"token": ["read"]}]
    asked = {each["name"]: each["required"] for each in both["get"]["parameters"]}
    assert asked == {"id": True, "limit": False, "iss": True}
    assert set(both["get"]["responses"]) == {"200", "400", "401", "403", "404", "421", "429"}
    assert both["delete"]["summary"] == "Say nothing much."
    assert both["delete"]["parameters"][0]["name"] == "id"
    assert both["get"]["operationId"] != both["delete"]["operationId"]
