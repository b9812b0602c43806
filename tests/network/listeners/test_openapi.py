"""The API's own description: it tells of every route, it is OpenAPI 3.1, and what it says is true of the listener."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import urlopen

import pytest
from aiohttp import web
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from notifier.features.sources.source_proofs import HeaderSecret, SourceDoor
from notifier.features.sources.source_routes import SourceAccess, SourceRoutes
from notifier.model.message import Lane, Outgoing
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.listener import listen
from notifier.network.listeners.openapi import PATH, AnswerDescription, OperationDescription, openapi
from notifier.operators.status.status_routes import StatusRoutes
from notifier.publishing.events import api_app
from notifier.publishing.taking import ApiLimits
from notifier.telemetry.log_level_routes import log_level_routes
from tests.publishing.serving import accept, look, sources_of, token


def app() -> web.Application:
    sources = sources_of(lambda: (token("idp", "publish", "read", "repair"),))
    authorization = Authorization(sources.tokens)
    more = [*log_level_routes(authorization, Level()), *StatusRoutes(authorization, look, lambda: 0.0).routes()]
    proof = HeaderSecret(header="Authorization", values=(b"Bearer idp-secret",))
    door = SourceDoor(name="okta", proof=proof, challenge="okta")
    access = SourceAccess(door={"okta": door}.get, publish=publish, clock=sources.clock, new_id=sources.new_id)
    more += SourceRoutes(access, ApiLimits()).routes()
    return api_app(accept, sources, more=more)


async def publish(lane: Lane, message: Outgoing) -> None:
    """Take every message of a source."""


class Level:
    """What a worker logs."""

    now = configured = "info"

    def set(self, level: str, *, by: str) -> None:
        self.now = level


@contextmanager
def served() -> Iterator[str]:
    """The application on a listener of another thread, since schemathesis asks by blocking calls."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        started = listen(app(), "127.0.0.1", 0, key="api.listen", grace=1)
        listener = asyncio.run_coroutine_threadsafe(started, loop).result(20)
        yield listener.url
        asyncio.run_coroutine_threadsafe(listener.close(), loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


@pytest.mark.parametrize("examples", [2, pytest.param(25, marks=pytest.mark.full)])
def test_what_it_says_is_true(examples: int) -> None:
    """Schemathesis: bodies, queries and headers by the schema and against it, and every answer as it is described."""
    import schemathesis  # noqa: PLC0415  a second, which only this test should pay
    from schemathesis import GenerationMode  # noqa: PLC0415
    from schemathesis.core.result import Ok  # noqa: PLC0415

    with served() as url:
        with urlopen(f"{url}{PATH}", timeout=20) as answer:
            api = schemathesis.openapi.from_dict(json.load(answer))
        names = []
        for found in api.get_all_operations():
            assert isinstance(found, Ok)
            operation = found.ok()
            names.append(operation.label)
            for mode in (
                GenerationMode
                if "/v1/" in operation.label and not operation.label.startswith("GET")
                else (GenerationMode.POSITIVE,)
            ):
                _examine(operation.as_strategy(generation_mode=mode), url, examples)
    assert sorted(names) == [
        "GET /v1/events/{source}",
        "GET /v1/log-level",
        f"GET {PATH}",
        "GET /v1/status",
        "POST /v1/events",
        "POST /v1/events/{source}",
        "POST /v1/sign-outs",
        "PUT /v1/log-level",
    ]


def _examine(cases: SearchStrategy[Any], url: str, examples: int) -> None:
    from schemathesis.specs.openapi.checks import (  # noqa: PLC0415
        negative_data_rejection,
        positive_data_acceptance,
    )

    @given(case=cases)
    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        case.call_and_validate(
            base_url=url,
            headers={"Authorization": "Bearer idp-secret"},
            # An event of the right shape may still be of an issuer that is none of ours: 400 is right. What is wrong
            # only in a query parameter that nobody knows is taken: whether one is made up depends on what is imported.
            excluded_checks=[positive_data_acceptance, negative_data_rejection],
            timeout=20,
        )

    ask()


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
        query={"limit": {"type": "integer"}},
        answers={200: AnswerDescription(text="Found.", schema={"type": "object"})},
        problems={404: "Not found."},
    )
    async def told(_request: web.Request) -> web.Response:
        raise AssertionError

    document = openapi([web.get("/v1/things/{id}", told), web.delete(r"/v1/things/{id:\w+}", plain)])
    both = document["paths"]["/v1/things/{id}"]
    assert both["get"]["security"] == [{"token": ["read"]}]
    assert {each["name"] for each in both["get"]["parameters"]} == {"id", "limit"}
    assert set(both["get"]["responses"]) == {"200", "400", "401", "403", "404", "421", "429"}
    assert both["delete"]["summary"] == "Say nothing much."
    assert both["delete"]["parameters"][0]["name"] == "id"
    assert both["get"]["operationId"] != both["delete"]["operationId"]
