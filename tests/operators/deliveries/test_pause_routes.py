"""`/v1/pause`, `/v1/resume` and `/v1/pauses` on a real socket: turns of callers, failures, and the audit log."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from notifier.model.errors import ChangeUncertain, NotifierError, QueueUnavailable
from notifier.model.pauses import MAX_PAUSES, NO_PAUSES, Pause, PauseDocument
from notifier.model.record import copy_record
from notifier.model.registry import Registry
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.operation import routes_of
from notifier.operators.deliveries.pause_routes import PauseRoutes
from notifier.publishing.event_requests import EventRequests, build_api_app
from notifier.queues.queue_state import WorkerAnswers
from notifier.queues.sqlite.options import SqliteOptions
from notifier.queues.sqlite.queue import SqliteQueue
from notifier.settings.api_tokens import ApiToken
from notifier.telemetry.audit import recent_lines
from tests.publishing.serving import ISS, REGISTRY, accept, serving, sources_of, token
from tests.system.waiting import until

SHOP = {"client_id": "shop", "for": "2h", "reason": "deploy"}


@dataclass
class Register:
    """A register that answers once `released`. `peak`: the number of its users at a time. `error`: how it fails."""

    error: NotifierError | None = None
    released: asyncio.Event = field(default_factory=asyncio.Event)
    peak: int = 0
    users: int = 0

    async def read(self) -> PauseDocument:
        """Implement the port."""
        self.users += 1
        self.peak = max(self.peak, self.users)
        await self.released.wait()
        self.users -= 1
        if self.error is not None:
            raise self.error
        return NO_PAUSES

    async def change(self, _edit: object) -> PauseDocument:
        """Implement the port."""
        return await self.read()


class Api:
    """The API of a queue. `arrived`: the number of requests that were authorized."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url, self.http, self.arrived = url, http, 0

    async def ask(self, method: str, path: str, who: str = "sre", **more: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {who}-secret"}
        async with self.http.request(method, f"{self.url}{path}", headers=headers, **more) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def api_of(queue: Any, registry: Registry = REGISTRY) -> AsyncIterator[Api]:
    """Serve the API of this queue."""
    tokens = [token("sre", "read", "repair"), token("tenant", "read", "repair", issuers=frozenset({ISS}))]

    def list_tokens() -> list[ApiToken]:
        api.arrived += 1
        return tokens

    loaded: Any = SimpleNamespace(registry=registry)
    routes = routes_of(PauseRoutes(queue, lambda: loaded), Authorization(list_tokens))
    async with aiohttp.ClientSession() as http:
        api = Api("", http)
        async with serving(build_api_app(EventRequests(accept, sources_of(lambda: tokens)), routes)) as listener:
            api.url = listener.url
            yield api


def queue_of(register: Register) -> Any:
    """A queue without workers that has this register."""

    async def request(_document: bytes, _within: float) -> WorkerAnswers:
        return WorkerAnswers(seen=0, answers=[])

    return SimpleNamespace(register=register, request=request)


async def test_requests_of_one_token_follow_each_other() -> None:
    """So that one token cannot hold the register against others."""
    register = Register()
    async with asyncio.timeout(60), api_of(queue_of(register)) as api:
        who = ["tenant"] * 12 + ["sre"]
        asking = [asyncio.create_task(api.ask("GET", "/v1/pauses", each)) for each in who]

        async def arrived() -> int:
            return api.arrived

        await until(arrived, lambda count: count == len(who))
        register.released.set()
        answers = await asyncio.gather(*asking)
    assert (register.peak, {status for status, _ in answers}) == (2, {200})


async def test_client_that_is_left_out_is_refused_with_the_reason() -> None:
    """As by the command."""
    registry = replace(REGISTRY, faults={ISS: {"broken": "its address is not https"}})
    async with api_of(queue_of(Register()), registry) as api:
        status, answer = await api.ask("POST", "/v1/pause", json={**SHOP, "client_id": "broken"})
    assert (status, answer["title"]) == (404, "The registry leaves this client out: its address is not https")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (QueueUnavailable("mq.internal:5672 refused"), "whether anything was changed"),
        (ChangeUncertain("no confirm of mq.internal"), "has not confirmed the change"),
    ],
)
async def test_failure_does_not_name_the_broker(error: NotifierError, text: str) -> None:
    """The log does."""
    register = Register(error=error)
    register.released.set()
    async with api_of(queue_of(register)) as api:
        with capture_logs() as lines:
            requests = [("POST", "/v1/pause", SHOP), ("POST", "/v1/resume", {"client_id": "shop"})]
            answers = [await api.ask(method, path, json=body) for method, path, body in requests]
            answers.append(await api.ask("GET", "/v1/pauses"))
    assert [status for status, _ in answers] == [503] * 3
    assert all(text in answer["title"] and "mq.internal" not in str(answer) for _, answer in answers)
    assert ["mq.internal" in line["error"] for line in lines if line["event"] == "repair_failed"] == [True] * 3


async def test_full_register_is_a_conflict(tmp_path: Path) -> None:
    """To wait does not help: another client must be resumed first."""
    queue = SqliteQueue(SqliteOptions(path=tmp_path / "queue.db"))
    await queue.open()
    now = time.time()
    full = [
        Pause(id=f"{n}", iss=ISS, client_id=f"c{n}", who="bob", reason="deploy", since=now, until=now + 3600.0)
        for n in range(MAX_PAUSES)
    ]
    await queue.register.change(lambda document: document.pause_clients(full, now))
    async with api_of(queue) as api:
        status, answer = await api.ask("POST", "/v1/pause", json=SHOP)
    await queue.close()
    assert (status, "resume some of them first" in answer["title"]) == (409, True)


async def test_pauses_on_a_queue(tmp_path: Path) -> None:
    """The audit log has the token. A client can be resumed after it left the registry, unless it is not paused."""
    queue = SqliteQueue(SqliteOptions(path=tmp_path / "queue.db"))
    await queue.open()
    async with api_of(queue) as api:
        status, answer = await api.ask("POST", "/v1/pause", json=SHOP)
        assert (status, answer["expiring"], answer["followers"]) == (200, 0, [])
        pause = answer["paused"][0]["id"]
        assert (await api.ask("POST", "/v1/pause", json=SHOP | {"client_id": "shpo"}))[0] == 404
        status, answer = await api.ask("POST", "/v1/resume", json={"client_id": "shpo"})
        assert (status, "did you mean shop?" in answer["title"]) == (404, True)
        await queue.register.change(
            lambda document: copy_record(
                document, version=document.version + 1, pauses=(*document.pauses, *map(_renamed, document.pauses))
            )
        )
        status, answer = await api.ask("POST", "/v1/resume", json={"client_id": "gone"})
        assert (status, [each["client_id"] for each in answer["former"]]) == (200, ["gone"])
    await queue.close()
    lines = {(line["action"], line["client_id"]): line for line in recent_lines() if "client_id" in line}
    made, ended = lines["client_paused", "shop"], lines["client_resumed", "gone"]
    assert (made["who"], made["pause"], made["action_id"], made["reason"]) == ("sre", pause, pause, "deploy")
    assert (ended["who"], ended["action_id"]) == ("sre", "gone")


def _renamed(pause: Any) -> Any:
    return copy_record(pause, id="gone", client_id="gone")
