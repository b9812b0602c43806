"""What pages of clients cost a worker, however many ask for one."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from notifier.features.console import client_routes
from notifier.features.console.all_workers import Overview
from notifier.features.console.client_routes import ClientRoutes
from notifier.network.listeners.authorization import Authorization
from notifier.operators.status.service_status import status_of
from tests.publishing.serving import NOW, REGISTRY

OVERLAP_WITHIN = 0.5  # seconds


class _Workers:
    async def overview(self) -> Overview:
        return Overview(status=status_of({}, (), now=NOW), steps=(), seen=1, answered=1)

    async def clients(self, _keys: object) -> tuple[object, object]:
        return status_of({}, (), now=NOW), ()


async def test_pages_of_clients_are_chosen_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each looks through 100,000 names in a thread; several of them kept the loop from its turn for a second."""
    choose, second, running, most = client_routes._page_of, threading.Event(), list[int](), list[int]()

    def page_of(*given: Any) -> Any:
        running.append(1)
        most.append(len(running))
        if len(most) == 2:
            second.set()
        second.wait(OVERLAP_WITHIN)
        running.pop()
        return choose(*given)

    monkeypatch.setattr(client_routes, "_page_of", page_of)
    given = SimpleNamespace(live=SimpleNamespace(registry=lambda: REGISTRY))
    app = web.Application()
    app.add_routes(ClientRoutes(Authorization(lambda: None), cast("Any", given), cast("Any", _Workers())).routes())
    async with TestClient(TestServer(app)) as client:

        async def total(text: str) -> object:
            return (await (await client.get("/v1/clients", params={"q": text})).json())["total"]

        assert await asyncio.gather(*map(total, ("shop", "mail", ""))) == [1, 1, 2]
    assert most == [1, 1, 1]
