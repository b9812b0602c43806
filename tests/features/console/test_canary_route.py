"""A canary over the API waits for the client that it is sent to, which may hang."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from notifier.features.console.doctor_routes import CANARIES, Doctor, DoctorRoutes
from notifier.model.client import Client
from notifier.model.registry import Issuer, Registry
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.problem import problems
from notifier.operators.doctor.doctor import Area, Finding, ok
from tests.publishing.serving import ISS

NAMES = [f"c-{number}" for number in range(CANARIES + 1)]
CLIENTS = {name: Client(iss=ISS, client_id=name, backchannel_logout_uri=None) for name in NAMES}
REGISTRY = Registry(issuers={ISS: Issuer(iss=ISS)}, clients={ISS: CLIENTS})


async def test_clients_that_hang_take_few_places() -> None:
    """One canary at a time to each client, and a few in all: the rest is refused at once."""
    answered = asyncio.Event()

    async def canary(client: Client) -> Sequence[Finding]:
        await answered.wait()
        return [ok(Area.CANARY, client.client_id, "it takes our tokens")]

    given = SimpleNamespace(live=SimpleNamespace(registry=lambda: REGISTRY), canary=canary)
    authorization = Authorization(lambda: None)
    app = web.Application(middlewares=[problems])
    app.add_routes(DoctorRoutes(authorization, cast("Any", given), cast("Any", None), Doctor(None)).routes())
    async with TestClient(TestServer(app)) as api, asyncio.TaskGroup() as group:

        async def status(name: str) -> int:
            async with api.post("/v1/canary", json={"iss": ISS, "client_id": name}) as answer:
                return answer.status

        twice = [group.create_task(status(NAMES[0])) for _ in range(2)]
        done, _ = await asyncio.wait(twice, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [429]
        others = [group.create_task(status(name)) for name in NAMES[1:]]
        done, _ = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [429]
        answered.set()
    assert sorted(task.result() for task in (*twice, *others)) == [200] * CANARIES + [429] * 2
