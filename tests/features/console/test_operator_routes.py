"""Routes of operators: the scopes that they declare, and what many requests cost a worker."""

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from notifier.features.console import all_workers, client_routes, doctor_routes
from notifier.features.console.all_workers import CLIENTS_PER_STEP, AllWorkers, LocalAnswers, Overview
from notifier.features.console.client_routes import ClientRoutes
from notifier.features.console.console_parts import CONSOLE_PARTS
from notifier.features.console.console_routes import ConsoleRoutes
from notifier.features.console.doctor_routes import MAX_CANARIES, Doctor, DoctorRoutes
from notifier.features.console.recent import RecentEntry
from notifier.model.client import Client
from notifier.model.errors import QueueUnavailable
from notifier.model.message import DEAD, Depth
from notifier.model.registry import Issuer, Registry
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.openapi import description_of
from notifier.network.listeners.operation import routes_of
from notifier.network.listeners.problem import answer_refusals
from notifier.operators.deliveries.dead_letter_routes import DeadLetterRoutes
from notifier.operators.deliveries.job_routes import JobRoutes
from notifier.operators.deliveries.waiting_routes import WaitingRoutes
from notifier.operators.doctor.doctor import Area, Finding, ok
from notifier.operators.status.service_status import status_of
from notifier.operators.status.status_document import document_of
from notifier.operators.status.status_routes import ReloadRoutes, StatusRoutes
from notifier.operators.status.worker_requests import WorkerRequest
from notifier.publishing.event_requests import EventRequests, build_api_app
from notifier.telemetry.log_level import LogLevelRoutes
from tests.publishing.serving import ISS, NOW, REGISTRY, accept, look, serving, sources_of, token
from tests.system.waiting import until

# ── The routes of operators: scopes and members are held as they are declared ─────────────────────────────────────


def operator_routes(authorization: Authorization) -> list[web.RouteDef]:
    """Return every route of operators, without real dependencies, which a refused request does not use."""
    nothing: Any = None
    messages = SimpleNamespace(dead_letters=lambda _namer: None, waiting=lambda _namer: None)
    access: Any = SimpleNamespace(
        queue=messages, write_audit=lambda *_args, **_more: None, subject_id=str, clock=lambda: 0.0, registry=None
    )
    log, queue = (
        SimpleNamespace(subject_key=None, subject_key_file=None, subject="omit"),
        SimpleNamespace(sqlite_file=None),
    )
    settings = SimpleNamespace(log=log, queue=queue)
    given: Any = SimpleNamespace(live=SimpleNamespace(current=SimpleNamespace(settings=settings)))
    return [
        *routes_of(LogLevelRoutes(nothing), authorization), *routes_of(ReloadRoutes(nothing), authorization),
        *routes_of(StatusRoutes(look, lambda: 0.0), authorization), *routes_of(WaitingRoutes(access), authorization),
        *routes_of(DeadLetterRoutes(access), authorization), *routes_of(JobRoutes(nothing, nothing), authorization),
        *routes_of(ConsoleRoutes(given, nothing), authorization),
        *routes_of(ClientRoutes(given, nothing), authorization),
        *routes_of(DoctorRoutes(given, nothing, nothing), authorization),
    ]  # fmt: skip


async def test_each_route_enforces_the_scope_that_it_declares() -> None:
    """A token with the other scopes is refused, and a token bound to issuers where the declaration requires it."""
    scopes = {"publish", "read", "repair"}
    tokens = [token(f"not-{scope}", *scopes - {scope}) for scope in scopes]
    tokens.append(token("bound", *scopes, issuers=frozenset()))
    sources = sources_of(lambda: tokens)
    routes = operator_routes(Authorization(sources.tokens))
    unbound = set()
    async with (
        serving(build_api_app(EventRequests(accept, sources), routes)) as listener,
        aiohttp.ClientSession() as http,
    ):

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


@pytest.mark.parametrize(
    ("method", "path", "wrong"),
    [
        ("GET", "dead-letters/page?subject=alice", "subject"),
        ("GET", "waiting/page?subject=alice", "subject"),
        ("POST", "reload?accept_loss=maybe", "accept_loss"),
    ],
)
async def test_a_query_without_effect_is_refused(method: str, path: str, wrong: str) -> None:
    """An index has no users: its page would show those of others. A typing error must not accept a loss."""
    sources = sources_of(lambda: (token("op", "read", "repair"),))
    routes = operator_routes(Authorization(sources.tokens))
    headers = {"Authorization": "Bearer op-secret"}
    async with (
        serving(build_api_app(EventRequests(accept, sources), routes)) as listener,
        aiohttp.ClientSession() as http,
    ):
        url = f"http://127.0.0.1:{listener.port}/v1/{path}"
        async with http.request(method, url, headers=headers) as answer:
            assert answer.status == 400
            assert [mistake["path"] for mistake in (await answer.json())["mistakes"]] == [wrong]


# ── A canary over the API waits for the client that it is sent to, which may hang ─────────────────────────────────


NAMES = [f"c-{number}" for number in range(MAX_CANARIES + 1)]
CLIENTS = {name: Client(iss=ISS, client_id=name, backchannel_logout_uri=None) for name in NAMES}
MANY_CLIENTS = Registry(issuers={ISS: Issuer(iss=ISS)}, clients={ISS: CLIENTS})


async def test_clients_that_hang_take_few_places() -> None:
    """One canary at a time to each client, and a few in all: the rest is refused at once."""
    answered = asyncio.Event()

    async def canary(client: Client) -> Sequence[Finding]:
        await answered.wait()
        return [ok(Area.CANARY, client.client_id, "it accepts our tokens")]

    given = SimpleNamespace(live=SimpleNamespace(registry=lambda: MANY_CLIENTS), canary=canary)
    authorization = Authorization(lambda: None)
    app = web.Application(middlewares=[answer_refusals])
    app.add_routes(routes_of(DoctorRoutes(cast("Any", given), cast("Any", None), Doctor(None)), authorization))
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
    assert sorted(task.result() for task in (*twice, *others)) == [200] * MAX_CANARIES + [429] * 2


# ── What pages of clients cost a worker, however many ask for one ─────────────────────────────────────────────────


OVERLAP_WITHIN = 0.5  # seconds


class _Workers:
    async def overview(self) -> Overview:
        return Overview(status=status_of({}, (), now=NOW), steps=(), seen=1, answered=1)

    async def clients(self, _keys: object) -> tuple[object, object]:
        return status_of({}, (), now=NOW), ()


async def test_pages_of_clients_are_chosen_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each looks through 100,000 names in a thread; several of them kept the loop from its turn for a second."""
    choose, second, running, most = client_routes._choose_page, threading.Event(), list[int](), list[int]()

    def page_of(*given: Any) -> Any:
        running.append(1)
        most.append(len(running))
        if len(most) == 2:
            second.set()
        second.wait(OVERLAP_WITHIN)
        running.pop()
        return choose(*given)

    monkeypatch.setattr(client_routes, "_choose_page", page_of)
    given = SimpleNamespace(live=SimpleNamespace(registry=lambda: REGISTRY))
    app = web.Application()
    app.add_routes(routes_of(ClientRoutes(cast("Any", given), cast("Any", _Workers())), Authorization(lambda: None)))
    async with TestClient(TestServer(app)) as client:

        async def total(text: str) -> object:
            return (await (await client.get("/v1/clients", params={"q": text})).json())["total"]

        assert await asyncio.gather(*map(total, ("shop", "mail", ""))) == [1, 1, 2]
    assert most == [1, 1, 1]


# ── What a worker answers the console: however many ask it, its deliveries go on between two answers ──────────────


class Remembering:
    """Notes when its rows are gone through."""

    last = 0
    since = 0.0

    def __init__(self, log: list[str], rows: Sequence[RecentEntry] = ()) -> None:
        self._log, self._rows = log, rows

    def after(self, *_number: int, **_narrowing: object) -> list[RecentEntry]:
        """As of a worker's memory."""
        self._log.append("rows")
        return list(self._rows)

    find_rows = after


@pytest.mark.parametrize("members", [{"after": {}}, {"find": {"subject": "alice"}}])
async def test_others_have_their_chance_between_two_answers(members: dict[str, object]) -> None:
    """A hundred requests at a time held the loop for a second and a half, with 7,000 rows to go through for each."""
    log = list[str]()
    part = LocalAnswers(cast("Any", SimpleNamespace(name="w")), cast("Any", Remembering(log)))

    async def deliver() -> None:
        while log.count("rows") < 5:
            log.append("delivery")
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(part.act(WorkerRequest(kind=CONSOLE_PARTS, who="eyes", members=members)))
        group.create_task(deliver())
    assert "rows rows" not in " ".join(log)


async def test_thousands_of_failing_clients_delay_no_delivery() -> None:
    """They are listed in steps, once for all concurrent requests."""
    log: list[int] = []

    def states(size: int) -> Iterator[bytes]:
        for _ in range(5):
            log.append(size)
            yield b"{}"

    async def deliver() -> None:
        while True:
            log.append(0)
            await asyncio.sleep(0)

    given = SimpleNamespace(states=states)
    part = LocalAnswers(cast("Any", given), cast("Any", Remembering([])))
    request = WorkerRequest(kind=CONSOLE_PARTS, who="console", members={"clients": None})
    delivering = asyncio.create_task(deliver())
    answer = await asyncio.gather(part.act(request), part.act(request))
    delivering.cancel()
    assert [len(each["states"]) for each in answer] == [5, 5]
    assert [count for count in log if count] == [CLIENTS_PER_STEP] * 5
    steps = [place for place, count in enumerate(log) if count]
    assert all(later - before > 1 for before, later in pairwise(steps)), "others had their turn"


@pytest.mark.parametrize("size", [1000, 300_000])
async def test_answer_is_bounded(size: int) -> None:
    """The side channel drops larger answers: then all that the worker knows would be missing at the others."""
    given = SimpleNamespace(name="w", states=lambda _: (b'"' * size for _ in range(20)), state=lambda _: b'"' * size)
    rows = [RecentEntry(number, 0.0, "failed", "i", "c", 0, text="x" * (size // 10)) for number in range(100)]
    part = LocalAnswers(cast("Any", given), cast("Any", Remembering([], rows)))
    asked: list[dict[str, Any]] = [{"clients": None}, {"clients": [["i", "c"]] * 5000}, {"after": {}}]
    for members in (*asked, {"find": {"event_id": "e"}}):
        answer = await part.act(WorkerRequest(kind=CONSOLE_PARTS, who="eyes", members=members))
        assert len(json.dumps(answer)) < 1024 * 1024
        assert not answer.get("rows") or answer["rows"][-1]["n"] == 99  # the newest
        whole = len(answer.get("states", ())) == 20 or len(answer.get("rows", ())) == 100
        assert whole == (size == 1000)


class _Queue:
    """A queue with this many dead letters, of which no worker answers. `is_frozen`: its broker does not answer."""

    dead: int | None = 7
    is_frozen = False

    async def request(self, _document: bytes, _within: float) -> NoReturn:
        if self.is_frozen:
            await asyncio.Event().wait()
        raise QueueUnavailable("no worker")

    async def depths(self) -> dict[str, Depth]:
        if self.is_frozen:
            await asyncio.Event().wait()
        if self.dead is None:
            raise QueueUnavailable("stopped")
        return {DEAD: Depth(ready=self.dead, consumers=0)}


async def test_queues_are_counted_with_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not seconds before: the sentence, the list and the badges would differ. Without the queue they are unknown."""
    monkeypatch.setattr(all_workers, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(all_workers, "CACHE_PER_COST", 0)
    queue = _Queue()
    view = SimpleNamespace(name="w", queue=queue, depths=lambda: {DEAD: Depth(ready=1, consumers=0)})

    async def answer(_request: WorkerRequest) -> dict[str, list[str]]:
        return {"states": []}

    workers = AllWorkers(cast("Any", view), answer)
    assert document_of((await workers.overview()).status)["queues"] == {
        "delayed": {"ready": 0}, "dead": {"ready": 7, "oldest": None}
    }  # fmt: skip
    queue.dead = None
    assert document_of((await workers.overview()).status)["queues"] == {}
    monkeypatch.setattr(all_workers, "ANSWER_TIMEOUT_SECONDS", 0.01)
    queue.is_frozen = True  # then of the last reading, before the page gives up
    assert (await workers.overview()).status.depths[DEAD].ready == 1


# ── The process in which the doctor looks for the console: it ends in an account, whatever becomes of it ──────────


async def ended(doctor: Doctor) -> dict[str, object]:
    """Wait until the doctor has ended, and return its result."""

    async def steps() -> dict[str, object]:
        return doctor.document()

    return dict(await until(steps, lambda answer: answer["state"] == "ended"))


async def test_a_process_that_cannot_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be started again: it does not stay in the state running."""

    async def no_room(*_command: object, **_options: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", no_room)
    monkeypatch.setattr(doctor_routes, "FRESH_SECONDS", 0.0)
    doctor = Doctor(None)
    for _ in range(2):
        doctor.begin()
        assert doctor.document()["state"] == "running"
        assert "could not look" in str((await ended(doctor))["problem"])
    await doctor.close()


@pytest.mark.full
async def test_an_unusable_configuration_is_a_finding(tmp_path: Path) -> None:
    """Workers go on with the old one. It must not look as if all were well."""
    config = tmp_path / "notifier.yaml"
    config.write_text("issuers: {}\n")
    doctor = Doctor(config)
    doctor.begin()
    answer = await ended(doctor)
    assert "cannot be used" in str(answer["problem"])
    assert any(finding["level"] == "failed" for finding in cast("list[dict[str, object]]", answer["findings"]))
    await doctor.close()
