"""Compare an API with its OpenAPI description by schemathesis, for every described route."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import jsonschema
from aiohttp import web
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis.strategies import SearchStrategy

from notifier.network.listeners.listener import listen
from notifier.network.listeners.openapi import PATH


def require_described(api: Any, method: str, path: str, status: int, document: object) -> None:
    """Raise ValidationError unless the answer matches the API's description; the path may have a query."""
    path = path.partition("?")[0]
    found = [each for each in api["paths"] if re.fullmatch(re.sub(r"{\w+}", "[^/]+", each), path)]
    operation = api["paths"][min(found, key=lambda each: each.count("{"))][method.lower()]
    schema = operation["responses"][str(status)]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator(schema).validate(document)  # schemathesis checks the schema


@contextmanager
def served(app: web.Application) -> Iterator[str]:
    """Run the application on a listener of another thread, since schemathesis makes blocking requests."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        started = listen(app, "127.0.0.1", 0, key="api.listen", grace=1)
        listener = asyncio.run_coroutine_threadsafe(started, loop).result(20)
        yield listener.url
        asyncio.run_coroutine_threadsafe(listener.close(), loop).result(20)
        asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


async def _cancel_others() -> None:
    """End connections that still wait for the rest of a refused body."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def described(app: web.Application, examples: int) -> list[str]:
    """Request each operation of an application as `described_at` does."""
    with served(app) as url:
        return described_at(url, examples, "idp-secret")


def described_at(url: str, examples: int, token: str) -> list[str]:
    """Request each operation, by the schema and against it, and check the answers. Return the operations."""
    import schemathesis  # noqa: PLC0415  a second, which only this test should pay
    from schemathesis import GenerationMode  # noqa: PLC0415
    from schemathesis.core.result import Ok  # noqa: PLC0415

    with urlopen(f"{url}{PATH}", timeout=20) as answer:
        api = schemathesis.openapi.from_dict(json.load(answer))
    names = []
    for found in api.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        names.append(operation.label)
        # Requests that violate the schema are sent only to operations of the API that change something.
        for mode in (
            GenerationMode
            if "/v1/" in operation.label and not operation.label.startswith("GET")
            else (GenerationMode.POSITIVE,)
        ):
            _examine(operation.as_strategy(generation_mode=mode), url, examples, token)
    return sorted(names)


def _examine(cases: SearchStrategy[Any], url: str, examples: int, token: str) -> None:
    from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance  # noqa: PLC0415

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
        assume(len(urlencode(case.query or {}, doseq=True)) < 4096)  # the listener closes on a longer request line
        case.call_and_validate(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            # An event of the right shape may still be of an unknown issuer: 400 is right. An unknown query parameter
            # is ignored: whether schemathesis generates one depends on the imports.
            excluded_checks=[positive_data_acceptance, negative_data_rejection],
            timeout=20,
        )

    ask()
