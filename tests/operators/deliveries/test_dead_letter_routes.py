"""Test `/v1/dead-letters` on a real socket and a real queue: permissions, repairs and audit lines."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from notifier.model.client import Client
from notifier.model.documents.dead_letter import dead_letter_delivery
from notifier.model.errors import QueueBusy, QueueUnavailable
from notifier.model.message import DEAD, Lane, Transfer, TransferResult
from notifier.model.outcome import DeadReason
from notifier.model.registry import Issuer, Registry
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.openapi import build_openapi
from notifier.network.listeners.operation import routes_of
from notifier.operators.deliveries import jobs, message_index
from notifier.operators.deliveries.dead_letter_routes import DeadLetterRoutes
from notifier.operators.deliveries.job_routes import JobRoutes
from notifier.operators.deliveries.jobs import Jobs
from notifier.operators.deliveries.message_index import MessageIndexes
from notifier.operators.deliveries.message_requests import RouteDependencies
from notifier.operators.deliveries.repair_result import STOPPED_TEXT, RepairResult
from notifier.operators.deliveries.replay_now import Replay
from notifier.operators.deliveries.waiting_routes import WaitingRoutes
from notifier.operators.status.worker_requests import WorkerAnswer
from notifier.publishing.event_requests import EventRequests, build_api_app
from notifier.queues.passes import RepairOptions
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from notifier.queues.sqlite.row_passes import SqlitePass
from tests.contract.dead_letter_samples import DELIVERY, ISS, RULES, dead_letter, store_dead_letters
from tests.contract.test_waiting import delayed, delivery
from tests.network.listeners.described import require_described
from tests.publishing.serving import accept, serving, sources_of, token
from tests.system.waiting import until

OTHER = "https://other.example.com"
ELSEWHERE = dead_letter_delivery(replace(DELIVERY, id="o-1", iss=OTHER), DeadReason.EXPIRED, "too old", 1000.0)
STALE = dead_letter_delivery(replace(DELIVERY, id="stale", sid=None), DeadReason.EXPIRED, "too old", 1000.0)
LETTERS = (dead_letter("d-1"), dead_letter("d-2"), dead_letter("m-1", client_id="mail"), STALE, ELSEWHERE)


TOKENS = (
    token("sre", "read", "repair"),
    token("reader", "read"),
    token("tenant", "read", "repair", issuers=frozenset({OTHER})),
    token("idp", "publish"),
)


REGISTRY = Registry(
    issuers={iss: Issuer(iss=iss) for iss in (ISS, OTHER)},
    clients={
        ISS: {
            "shop": Client(iss=ISS, client_id="shop", backchannel_logout_uri="https://shop.example/out"),
            "silent": Client(iss=ISS, client_id="silent", backchannel_logout_uri=None),
        },
        OTHER: {"wiki": Client(iss=OTHER, client_id="wiki", backchannel_logout_uri=None)},
    },
)


class Api:
    """The listener, its queue and its audit lines."""

    def __init__(self, queue: SqliteQueue, http: aiohttp.ClientSession, jobs: Jobs) -> None:
        self.queue, self.http, self.jobs, self.url = queue, http, jobs, ""
        self.running: asyncio.Task[None] | None = None
        self.described: dict[str, Any] = {}
        self.audits: list[tuple[str, object, object]] = []
        self.repairs: dict[object, list[object]] = {}

    def write_audit(self, action: str, **details: object) -> None:
        """Record the actor, and the count or the IDs."""
        what = next(details[name] for name in ("done", "id", "wanted") if name in details)
        self.audits.append((action, details["who"], what))
        self.repairs.setdefault(details.get("repair_id"), []).append(what)

    async def ask(self, method: str, path: str = "", *, bearer: str = "sre", body: object = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {bearer}-secret"}
        more: dict[str, Any] = {} if body is None else {"json": body}
        where = f"{self.url}/v1/dead-letters{path}"
        async with self.http.request(method, where, headers=headers, **more) as answer:
            text = await answer.text()
            lines = [json.loads(line) for line in text.splitlines()]
            if answer.ok and answer.content_type == "application/json":
                require_described(self.described, method, answer.url.path, answer.status, lines[0])
            return answer.status, lines if answer.content_type == "application/x-ndjson" else lines[0]

    async def replayed(self, body: object, *, bearer: str = "sre") -> Any:
        """Return the account of a replay after it has ended, also if its client has disconnected."""
        return await self.account("POST", "/replay", bearer=bearer, body=body)

    async def account(self, method: str, path: str, *, bearer: str = "sre", body: object = None) -> Any:
        """Start a job and return its account after it has ended."""
        status, job = await self.ask(method, path, bearer=bearer, body=body)
        assert status == 202, job
        path = f"/../jobs/{job['id']}"
        return (
            await until(lambda: self.ask("GET", path, bearer=bearer), lambda answer: answer[1]["state"] == "ended")
        )[1]

    async def end_job(self, id_: str) -> Any:
        """End a job, and return its account after it has ended."""
        path = f"/../jobs/{id_}"
        assert (await self.ask("DELETE", path))[0] == 202
        return (await until(lambda: self.ask("GET", path), lambda answer: answer[1]["state"] == "ended"))[1]

    async def ready(self) -> dict[str, int]:
        return {name: depth.ready for name, depth in (await self.queue.depths()).items() if depth.ready}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """Five dead letters, one of which belongs to another issuer."""
    queue = SqliteQueue(SqliteOptions(path=tmp_path / "queue.db"))
    await queue.open()
    await store_dead_letters(queue, *LETTERS)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
        jobs_ = Jobs(queue, lambda: 5000.0, time.monotonic)
        subject = Api(queue, http, jobs_)
        running = subject.running = asyncio.create_task(jobs_.run())
        dependencies = RouteDependencies(
            queue=queue,
            rules=lambda force: replace(RULES, end_newer_sessions=force),
            registry=lambda: REGISTRY,
            jobs=jobs_,
            write_audit=subject.write_audit,
            clock=lambda: 5000.0,
            monotonic=time.monotonic,
            indexes=MessageIndexes(time.monotonic),
        )
        authorization = Authorization(lambda: TOKENS)
        routes = routes_of(DeadLetterRoutes(dependencies), authorization)
        routes += routes_of(WaitingRoutes(dependencies), authorization)
        routes += routes_of(JobRoutes(jobs_, subject.write_audit), authorization)
        async with serving(build_api_app(EventRequests(accept, sources_of(lambda: TOKENS)), routes)) as listener:
            subject.url, subject.described = listener.url, build_openapi(routes)
            yield subject
        running.cancel()
    await queue.close()


async def test_counts_and_rows(api: Api) -> None:
    """Groups are sorted by size, rows by age."""
    status, document = await api.ask("GET")
    assert (status, document["total"]) == (200, 5)
    assert document["groups"][0] == {
        "client_id": "shop",
        "iss": ISS,
        "reason": "refused",
        "count": 2,
        "oldest": "1970-01-01T00:16:40.000000Z",
        "newest": "1970-01-01T00:16:40.000000Z",
    }
    assert "letters" not in document
    _, document = await api.ask("GET", "?reason=refused&reason=expired&client_id=shop&rows=2&until=1h")
    assert document["total"] == 4
    assert [row["id"] for row in document["letters"]] == ["d-1", "d-2"]
    assert "alice" not in str(document)


async def test_one_or_all_entries_are_returned_in_full(api: Api) -> None:
    """The entry contains all that a replay needs. An unknown ID is 404."""
    status, document = await api.ask("GET", "/d-2", bearer="reader")
    assert (status, document["delivery"]["sub"]) == (200, "alice")
    assert (await api.ask("GET", "/d-9"))[0] == 404
    status, documents = await api.ask("GET", "/export?client_id=mail")
    assert (status, [each["id"] for each in documents]) == (200, ["m-1"])


async def test_reading_full_entries_writes_an_audit_line(api: Api) -> None:
    """Full entries contain `sub` and `sid`. Counts, rows and refused requests write no audit line.

    Monitoring reads counts continually.
    """
    for path in ("?rows=5", "?client_id=shop", "/page?reason=refused", "?since=1h"):
        assert (await api.ask("GET", path))[0] == 200
    assert (await api.ask("DELETE", "?client_id=shop&dry_run=true"))[0] == 200
    await api.ask("GET", "/export", bearer="idp")
    assert api.audits == []
    await api.ask("GET", "/d-2", bearer="reader")
    await api.ask("GET", "/export?client_id=mail", bearer="tenant")
    assert api.audits == [
        ("dead_letters_shown", "reader", {"ids": ["d-2"]}),
        ("dead_letters_exported", "tenant", {"client_id": "mail", "issuers": [OTHER]}),
    ]
    assert await api.ready() == {DEAD: 5}


async def test_token_of_one_issuer_lists_and_repairs_only_its_dead_letters(api: Api) -> None:
    """Dead letters of other issuers are absent, whatever the query."""
    assert (await api.ask("GET", bearer="tenant"))[1]["total"] == 1
    assert (await api.ask("GET", "/d-1", bearer="tenant"))[0] == 404
    assert [each["id"] for each in (await api.ask("GET", "/export", bearer="tenant"))[1]] == ["o-1"]
    assert (await api.ask("DELETE", "/d-1", bearer="tenant"))[0] == 404
    job = await api.replayed({"all": True}, bearer="tenant")
    assert job["replayed"] == 1
    assert (await api.ask("GET", f"/../jobs/{job['id']}", bearer="sre"))[0] == 200
    other = await api.replayed({"id": ["none"]})
    assert (await api.ask("GET", f"/../jobs/{other['id']}", bearer="tenant"))[0] == 404
    shown = (await api.ask("GET", "/../jobs", bearer="tenant"))[1]["jobs"]
    assert [each["id"] for each in shown] == [job["id"]]
    assert (await api.ask("GET"))[1]["total"] == 4


async def test_replay_reports_kept_dead_letters_and_writes_an_audit_line(api: Api) -> None:
    """The audit line names the token. A dry run writes none."""
    status, document = await api.ask("POST", "/replay", body={"client_id": "shop", "iss": ISS, "dry_run": True})
    assert (status, document["replayed"], document["kept"]) == (200, 2, {"would_end_newer_sessions": 1})
    assert (await api.ready(), api.audits) == ({DEAD: 5}, [])
    document = await api.replayed({"client_id": "shop", "iss": ISS, "limit": 1})
    assert (document["replayed"], document["more"]) == (1, True)
    document = await api.replayed({"client_id": "shop", "iss": ISS, "end_newer_sessions": True})
    assert (document["replayed"], document["more"], document["kept"]) == (2, False, {})
    assert await api.ready() == {DEAD: 2, Lane.RETRIES: 3}
    assert api.audits == [("dead_letters_replayed", "sre", 1), ("dead_letters_replayed", "sre", 2)]


async def test_stopping_worker_writes_the_audit_line_of_its_replay(api: Api) -> None:
    """The job reports its progress. The remaining dead letters stay."""
    _, job = await api.ask("POST", "/replay", body={"client_id": "shop", "iss": ISS, "rate": 0.01})
    answer = await until(lambda: api.ask("GET", f"/../jobs/{job['id']}"), lambda answer: answer[1]["replayed"] == 1)
    assert answer[1]["state"] == "running"
    assert api.audits == []
    assert api.running is not None
    api.running.cancel()
    await asyncio.wait({api.running})
    assert api.audits == [("dead_letters_replayed", "sre", 1)]
    assert await api.ready() == {DEAD: 4, Lane.RETRIES: 1}


async def test_job_is_503_while_a_worker_does_not_answer(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is 404 only after all workers have answered."""
    seen = 1

    async def nobody_answers(*_: object) -> tuple[int, Sequence[WorkerAnswer]]:
        return seen, ()

    monkeypatch.setattr(jobs, "send_to_workers", nobody_answers)
    for method in ("GET", "DELETE"):
        assert (await api.ask(method, "/../jobs/elsewhere"))[0] == 503
    seen = 0
    assert (await api.ask("GET", "/../jobs/elsewhere"))[0] == 404


async def test_stopping_worker_finishes_the_dead_letters_in_hand(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise one could remain although its delivery was published. New jobs repair nothing."""
    started, confirmed, move = asyncio.Event(), asyncio.Event(), SqlitePass.move

    async def slow(queue_pass: Any, transfers: Sequence[Transfer]) -> TransferResult:
        started.set()
        await confirmed.wait()
        return await move(queue_pass, transfers)

    monkeypatch.setattr(SqlitePass, "move", slow)
    one = (await api.ask("POST", "/replay", body={"client_id": "shop", "iss": ISS}))[1]["id"]
    await started.wait()
    stopped = asyncio.create_task(api.jobs.stop())
    two = await api.replayed({"client_id": "mail"})
    assert (two["replayed"], two["unfinished"]) == (0, "the worker ended; the rest is unchanged")
    assert not stopped.done()
    confirmed.set()
    await stopped
    assert (await api.ask("GET", f"/../jobs/{one}"))[1]["replayed"] == 2
    assert await api.ready() == {DEAD: 3, Lane.RETRIES: 2}


async def test_job_shows_that_it_holds_the_messages(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """And about how long: another command names it by this."""
    started, confirmed, move = asyncio.Event(), asyncio.Event(), SqlitePass.move

    async def slow(queue_pass: Any, transfers: Sequence[Transfer]) -> TransferResult:
        started.set()
        await confirmed.wait()
        return await move(queue_pass, transfers)

    monkeypatch.setattr(SqlitePass, "move", slow)
    path = f"/../jobs/{(await api.ask('POST', '/replay', body={'client_id': 'shop'}))[1]['id']}"
    await started.wait()
    assert (await api.ask("GET", path))[1]["holds"]
    confirmed.set()
    _, answer = await until(lambda: api.ask("GET", path), lambda answer: answer[1]["state"] == "ended")
    assert (answer["holds"], answer["seconds_left"]) == (False, None)


@pytest.mark.parametrize(("bearer", "named"), [("sre", True), ("tenant", False)])
async def test_holder_is_named_to_tokens_of_all_issuers(
    api: Api, monkeypatch: pytest.MonkeyPatch, bearer: str, *, named: bool
) -> None:
    """Other tokens may not see its job."""

    async def busy(_queue_pass: Any) -> None:
        raise QueueBusy("the dead letters are held by worker w-1 (job 7f, replay); wait for its end, or stop it")

    monkeypatch.setattr(SqlitePass, "begin", busy)
    requests = ("GET", "", None), ("GET", "/d-1", None), ("DELETE", "/d-1", None)
    for method, path, body in (*requests, ("POST", "/replay", {"client_id": "shop", "dry_run": True})):
        status, problem = await api.ask(method, path, bearer=bearer, body=body)
        assert (status, "worker w-1 (job 7f, replay)" in problem["title"]) == (503, named), path


async def test_replay_onto_a_full_disk_ends_with_the_cause(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job ends with a probable cause and without a file name."""

    async def refuse(*_: object) -> TransferResult:
        raise QueueUnavailable("the disk of the queue file queue.db is full")

    monkeypatch.setattr(SqlitePass, "move", refuse)
    answer = await api.replayed({"client_id": "mail"})
    assert answer["unfinished"] == "the queue is unavailable, or its disk is full; the rest is unchanged"


async def test_slow_replay_does_not_delay_other_requests(api: Api) -> None:
    """It keeps its rate by short passes."""
    _, job = await api.ask("POST", "/replay", body={"client_id": "shop", "iss": ISS, "rate": 0.001})
    path = f"/../jobs/{job['id']}"
    await until(lambda: api.ask("GET", path), lambda answer: answer[1]["replayed"] == 1)
    assert (await api.ask("GET", bearer="tenant"))[0] == 200
    assert (await api.ask("DELETE", "/m-1"))[1]["discarded"] == 1
    assert (await api.replayed({"all": True}, bearer="tenant"))["replayed"] == 1
    answer = (await api.ask("GET", path))[1]
    assert (answer["state"], answer["replayed"]) == ("running", 1)


async def test_token_of_one_issuer_has_a_job_limit(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have half of a worker's jobs. The error names the remedy."""

    async def wait_for_end(_replay: Replay, options: RepairOptions, _on_result: object) -> RepairResult:
        while not options.stop():
            await options.pause(60.0)
        return RepairResult(done=0, by_reason={}, unfinished=STOPPED_TEXT)

    monkeypatch.setattr(Replay, "run", wait_for_end)
    body = {"all": True}
    blocker = (await api.ask("POST", "/replay", body=body))[1]["id"]
    started = [await api.ask("POST", "/replay", bearer="tenant", body=body) for _ in range(4)]
    assert [status for status, _ in started] == [202] * 4
    status, refused = await api.ask("POST", "/replay", bearer="tenant", body=body)
    assert (status, refused["title"][:44]) == (429, "This token has 4 jobs of the kind replay und")
    assert "DELETE /v1/jobs/{id}" in refused["title"]
    for _ in range(3):
        assert (await api.ask("POST", "/replay", body=body))[0] == 202
    status, refused = await api.ask("POST", "/replay", body=body)
    assert (status, refused["title"][:44]) == (503, "This worker has 8 jobs of the kind replay un")
    assert (await api.ask("DELETE", "?reason=expired"))[0] == 202  # each kind has its own limit
    await api.end_job(started[3][1]["id"])
    assert (await api.ask("POST", "/replay", bearer="tenant", body=body))[0] == 202
    assert (await api.ask("GET", f"/../jobs/{blocker}"))[1]["state"] == "running"


async def test_replay_is_cancelled(api: Api) -> None:
    """By a token with repair permission for all its issuers. The account and the audit line show it."""
    job = (await api.ask("POST", "/replay", body={"client_id": "shop", "iss": ISS, "rate": 0.01}))[1]["id"]
    await until(lambda: api.ask("GET", f"/../jobs/{job}"), lambda answer: answer[1]["replayed"] == 1)
    assert (await api.ask("DELETE", f"/../jobs/{job}", bearer="tenant"))[0] == 404
    assert (await api.ask("DELETE", f"/../jobs/{job}", bearer="reader"))[0] == 403
    answer = await api.end_job(job)
    assert (answer["replayed"], answer["unfinished"]) == (1, "an operator ended it; the rest is unchanged")
    assert await api.ready() == {DEAD: 4, Lane.RETRIES: 1}
    assert set(api.audits) == {("job_ended", "sre", job), ("dead_letters_replayed", "sre", 1)}


async def test_discard_lists_each_dead_letter(api: Api) -> None:
    """By ID or by filter. A dry run lists none."""
    assert (await api.ask("DELETE", "?reason=expired&dry_run"))[1]["discarded"] == 2
    assert api.audits == []
    assert (await api.ask("DELETE", "/m-1"))[1]["discarded"] == 1
    assert (await api.ask("DELETE", "/m-1"))[0] == (await api.ask("GET", "/m-1"))[0] == 404
    assert (await api.account("DELETE", "?reason=expired"))["discarded"] == 2
    each = [dead_letter for action, _, dead_letter in api.audits if action == "dead_letter_discarded"]
    assert each == ["m-1", "stale", "o-1"]
    repairs = [lines for repair_id, lines in api.repairs.items() if repair_id]
    assert repairs == [["m-1", 1], [0], ["stale", "o-1", 2]], "the lines of one repair have its number"
    assert await api.ready() == {DEAD: 2}


@pytest.mark.parametrize(
    ("method", "path", "body", "path_of_mistake"),
    [
        ("GET", "?clientid=shop", None, "clientid"),
        ("GET", "?since=yesterday", None, "since"),
        ("GET", "?reason=bogus", None, "reason.0"),
        ("GET", "?rows=100000", None, "rows"),
        ("DELETE", "", None, ""),
        ("DELETE", "?client_id=", None, "client_id"),
        ("DELETE", "?client_id=shop&client_id=wiki", None, "client_id"),
        ("POST", "/replay", {"event_id": ""}, "event_id"),
        ("POST", "/replay", {}, ""),
        ("GET", "/page?subject=alice", None, "subject"),
        ("GET", "/page?age=6000", None, "age"),
        ("POST", "/find", {"client_id": "shop"}, ""),
        ("POST", "/replay", [], ""),
        ("POST", "/replay", {"all": "yes"}, "all"),
        ("POST", "/replay", {"all": True, "rate": 0}, "rate"),
        ("POST", "/replay", {"client_id": "x" * 1025}, "client_id"),
        ("POST", "/find", {"event_id": "e", "iss": "x" * 1025}, "iss"),
        ("POST", "/../retry", {"client_id": "x" * 1025, "iss": ISS}, "client_id"),
    ],
)
async def test_invalid_filters_are_refused_without_effect(
    api: Api, method: str, path: str, body: object, path_of_mistake: str
) -> None:
    """A misspelt filter must not select everything."""
    status, document = await api.ask(method, path, body=body)
    assert status == 400
    assert document["mistakes"][0]["path"] == path_of_mistake
    assert await api.ready() == {DEAD: 5}


async def test_unreachable_queue_is_503(api: Api) -> None:
    """503 without internal details."""
    await api.queue.close()
    for method, path, body in (("GET", "", None), ("DELETE", "/d-1", None), ("POST", "/replay", {"all": True})):
        status, document = await api.ask(method, path, body=body)
        assert status == 503
        assert "queue.db" not in str(document)
    await api.queue.open()
    assert await api.ready() == {DEAD: 5}


async def test_page_of_dead_letters(api: Api) -> None:
    """Sorted by newest first, with the counts of the other reasons and without users."""
    status, page = await api.ask("GET", "/page?reason=refused&rows=2&skip=1")
    assert (status, page["total"], page["skip"], page["left_off"]) == (200, 3, 1, 0)
    assert [row["id"] for row in page["letters"]] == ["d-2", "d-1"]
    assert page["reasons"] == {"refused": 3, "expired": 2}
    named = [(group["client_id"], group["iss"], group["reason"], group["count"]) for group in page["groups"]]
    assert (len(named), named[0], page["more_groups"]) == (4, ("shop", ISS, "refused", 2), 0)
    assert not {"alice", "s-1"} & set(json.dumps(page).replace('"', " ").split())
    assert page["as_of"] == "1970-01-01T01:23:20.000000Z"
    _, page = await api.ask("GET", f"/page?client_id=shop&iss={ISS}&oldest_first")
    assert [row["id"] for row in page["letters"]] == ["d-1", "d-2", "stale"]
    page = (await api.ask("GET", "/page", bearer="tenant"))[1]
    assert (page["total"], page["reasons"], len(page["groups"])) == (1, {"expired": 1}, 1)
    assert api.audits == []


async def test_page_uses_the_index_of_an_earlier_pass(api: Api) -> None:
    """A new pass follows only for a smaller `age` or after a repair. A dry run is not a repair."""

    async def total(query: str = "") -> int:
        return int((await api.ask("GET", f"/page{query}"))[1]["total"])

    assert await total() == 5
    await store_dead_letters(api.queue, dead_letter("d-3"))
    await api.ask("DELETE", "?all&dry_run")
    assert (await total("?skip=5"), await total("?age=0")) == (5, 6)
    await store_dead_letters(api.queue, dead_letter("d-4"))
    await api.ask("DELETE", "/d-3")
    assert await total() == 6
    assert (await api.account("DELETE", "?id=d-4"))["discarded"] == 1
    assert await total() == 5


async def test_pages_take_bounded_memory(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last dead letters and the start of their texts are kept, and for a limited time."""
    monkeypatch.setattr(message_index, "MAX_SUMMARIES", 3)
    monkeypatch.setattr(message_index, "MAX_TEXT_LENGTH", 5)
    monkeypatch.setattr(message_index, "UNUSED_INDEX_SECONDS", 0.0)
    _, page = await api.ask("GET", "/page")
    assert (page["total"], page["left_off"]) == (3, 2)
    assert [(row["id"], row["text"]) for row in page["letters"]] == [
        ("o-1", "too …"), ("stale", "too …"), ("m-1", "410 …"),
    ]  # fmt: skip
    await store_dead_letters(api.queue, dead_letter("d-3"))
    await until(lambda: api.ask("GET", "/page"), lambda answer: answer[1]["left_off"] == 3)


@pytest.mark.parametrize("subject", ["alice", "s-1"])
async def test_filters_by_user_or_event_find_its_dead_letters(api: Api, subject: str) -> None:
    """By `sub`, `sid` or event. The audit line has the actor, not the user."""
    status, found = await api.ask("POST", "/find", bearer="reader", body={"subject": subject, "client_id": "mail"})
    assert (status, found["total"], [row["id"] for row in found["letters"]]) == (200, 1, ["m-1"])
    assert subject not in json.dumps(found)
    assert (await api.ask("POST", "/find", body={"event_id": "e-1"}, bearer="tenant"))[1]["total"] == 1
    assert (await api.ask("POST", "/find", body={"subject": "bob"}))[1] == {"total": 0, "letters": []}
    assert api.audits == [
        ("dead_letters_looked_for", "reader", {"client_id": "mail", "subject": "[given]"}),
        ("dead_letters_looked_for", "tenant", {"event_id": "e-1", "issuers": [OTHER]}),
        ("dead_letters_looked_for", "sre", {"subject": "[given]"}),
    ]


@pytest.mark.parametrize(
    ("method", "path", "body", "wanted"),
    [
        ("GET", "?subject=alice", None, {"subject": "[given]"}),
        ("GET", "?event_id=e-1&rows=5", None, {"event_id": "e-1"}),
        ("GET", "/page?event_id=e-1", None, {"event_id": "e-1"}),
        ("DELETE", "?subject=alice&dry_run=true", None, {"subject": "[given]"}),
        ("POST", "/replay", {"subject": "alice", "dry_run": True}, {"subject": "[given]"}),
        ("POST", "/replay", {"event_id": "e-1", "dry_run": True}, {"event_id": "e-1"}),
        ("GET", "/../waiting?event_id=e-1", None, {"event_id": "e-1"}),
        ("GET", "/../waiting/page?event_id=e-1", None, {"event_id": "e-1"}),
        ("DELETE", "/../waiting?event_id=e-1&dry_run=true", None, {"event_id": "e-1"}),
    ],
)
async def test_counts_by_user_or_event_write_an_audit_line(
    api: Api, method: str, path: str, body: object, wanted: object
) -> None:
    """A count by user or event reveals its dead letters, so each form of it writes one audit line."""
    assert (await api.ask(method, path, body=body))[0] == 200
    room = "waiting" if "waiting" in path else "dead_letters"
    assert api.audits == [(f"{room}_looked_for", "sre", wanted)]


async def test_outcomes_of_a_dead_letter_contain_no_user(api: Api) -> None:
    """So it writes no audit line."""
    status, shown = await api.ask("GET", "/d-2?subject=false", bearer="reader")
    assert (status, shown["client_id"], shown["text"]) == (200, "shop", "410 Gone")
    assert [(each["reason"], each["status"]) for each in shown["outcomes"]] == [("server_error", 500), ("dns", None)]
    assert not {"alice", "s-1"} & set(json.dumps(shown).replace('"', " ").split())
    assert api.audits == []


@pytest.mark.parametrize("path", ["", "/page", "/export", "/d-1"])
async def test_head_returns_the_status_of_get(api: Api, path: str) -> None:
    """Without a body."""
    url, headers = f"{api.url}/v1/dead-letters{path}", {"Authorization": "Bearer sre-secret"}
    async with api.http.get(url, headers=headers) as got, api.http.head(url, headers=headers) as answer:
        assert (answer.status, answer.content_type) == (got.status, got.content_type) == (200, got.content_type)
        assert await answer.read() == b""


async def test_answers_about_pending_deliveries_match_the_schema(api: Api) -> None:
    """`ask` compares each answer with its schema."""
    await delayed(api.queue, delivery("w-1"), delivery("w-2", attempts=0, history=()))
    iss = delivery("w-1").iss
    for method, path in (
        ("GET", "?rows=2"), ("GET", "/page"), ("GET", "/w-1"), ("GET", "/w-2"), ("DELETE", "?all&dry_run"),
        ("DELETE", "/w-1"),
    ):  # fmt: skip
        assert (await api.ask(method, f"/../waiting{path}"))[0] == 200, path
    assert (await api.ask("POST", "/../waiting/find", body={"subject": "alice"}))[1]["total"] == 1
    body = {"client_id": "shop", "iss": iss, "dry_run": True}
    assert (await api.ask("POST", "/../retry", body=body))[0] == 200
    for path in ("?rows=2", "/page", "/d-1", "/d-1?subject=false"):
        assert (await api.ask("GET", path))[0] == 200, path
    assert (await api.ask("POST", "/replay", body={"all": True, "dry_run": True}))[1]["replayed"] > 0
    assert (await api.ask("DELETE", "?all&dry_run"))[1]["discarded"] > 0
