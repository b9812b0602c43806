"""The API's description covers every route, is OpenAPI 3.1, and matches the behaviour of the listener."""

import pytest
from aiohttp import web

from notifier import RELEASE
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.openapi import PATH, AnswerDescription, OperationDescription, build_openapi
from notifier.network.listeners.operation import routes_of
from notifier.operators.status.status_routes import StatusRoutes
from notifier.publishing.event_requests import EventRequests, build_api_app
from notifier.telemetry.log_level import LogLevel, LogLevelRoutes
from tests.network.listeners.described import described
from tests.publishing.serving import accept, look, sources_of, token


def app() -> web.Application:
    sources = sources_of(lambda: (token("idp", "publish", "read", "repair"),))
    authorization = Authorization(sources.tokens)
    holders = (LogLevelRoutes(Level()), StatusRoutes(look, lambda: 0.0))
    more = [route for holder in holders for route in routes_of(holder, authorization)]
    return build_api_app(EventRequests(accept, sources), more)


class Level(LogLevel):
    """The log level of a worker."""

    def __init__(self) -> None:
        super().__init__("info", lambda: None)

    def set(self, level: str, *, by: str) -> None:
        self.now = level


@pytest.mark.full
def test_listener_matches_its_description() -> None:
    """Schemathesis: bodies, queries and headers by the schema and against it, and every answer as it is described."""
    assert described(app(), examples=25) == [
        "GET /v1/log-level",
        f"GET {PATH}",
        "GET /v1/status",
        "POST /v1/events",
        "PUT /v1/log-level",
    ]


def test_every_described_route_is_listed() -> None:
    """With its parameters; a page is omitted, and a route of the API without a description is an error."""

    async def plain(_request: web.Request) -> web.Response:
        raise AssertionError

    @OperationDescription(
        summary="Look.",
        scope="read",
        query={"limit": {"type": "integer"}, "iss": {"type": "string"}},
        required=["iss"],
        answers={200: AnswerDescription(text="Found.", schema={"type": "object"})},
        problems={404: "Not found."},
    )
    async def described_route(_request: web.Request) -> web.Response:
        raise AssertionError

    thing = web.get(r"/v1/things/{id:\w+}", described_route)
    document = build_openapi([thing, web.get("/things", plain)])
    assert list(document["paths"]) == ["/v1/things/{id}"]
    assert document["info"]["version"] == RELEASE  # without the commit: it is answered without a token
    operation = document["paths"]["/v1/things/{id}"]["get"]
    with pytest.raises(LookupError, match="DELETE /v1/things has no description"):
        build_openapi([thing, web.delete("/v1/things", plain)])
    assert operation["security"] == [{"token": ["read"]}]
    asked = {each["name"]: each["required"] for each in operation["parameters"]}
    assert asked == {"id": True, "limit": False, "iss": True}
    assert set(operation["responses"]) == {"200", "400", "401", "403", "404", "421", "429"}
