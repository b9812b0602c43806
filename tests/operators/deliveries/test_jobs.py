"""Test jobs of operators: limits, end, and the account of a replay."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from notifier.delivery.facts import AlreadyDelivered, Attempted, DeadLettered, Deferred, EventTaken, Skipped
from notifier.model.errors import QueueUnavailable
from notifier.model.outcome import Cause, DeadReason, Failed, Reason
from notifier.network.listeners.problem import Refusal
from notifier.operators.deliveries import jobs as jobs_module
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.job_documents import (
    DEAD_LETTER_JOBS,
    END_JOB,
    LIST_JOBS,
    SHOW_JOB,
    JobKind,
    name_holder,
)
from notifier.operators.deliveries.jobs import INTERNAL_ERROR_TEXT, Job, Jobs
from notifier.operators.deliveries.repair_jobs import RepairRequest, RepairWork, RetryWork
from notifier.operators.deliveries.repair_result import RepairResult
from notifier.operators.deliveries.replay_account import (
    MAX_FOLLOWED_MESSAGES,
    MAX_REPLAYS,
    ReplayAccount,
    ReplayAccounts,
    make_follow_requests,
    make_results_request,
)
from notifier.operators.deliveries.retry_request import RetryRequest
from notifier.operators.status.worker_requests import (
    Members,
    RequestHandler,
    WorkerAnswer,
    WorkerRequest,
)
from notifier.queues.passes import OnWait, hold_pass
from notifier.queues.queue_state import WorkerAnswers
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from notifier.telemetry.audit import recent_lines
from notifier.telemetry.observers import Observers
from tests.contract.dead_letter_samples import DELIVERY
from tests.publishing.serving import ISS, token
from tests.support.outcome_facts import delivered
from tests.system.waiting import until

# ── Jobs of all kinds: limits, end and visibility ────────────────────────────────────────────────────────────────────


class FakeWork:
    """Wait until the test releases the job, or ends it."""

    conditions: Mapping[str, object] = {}

    def __init__(self, kind: JobKind = "replay", issuers: frozenset[str] | None = None) -> None:
        self.kind, self.issuers = kind, issuers
        self.go_on = asyncio.Event()

    def account(self) -> Mapping[str, Any]:
        """Implement the port."""
        return {"unfinished": None}

    async def carry_out(self, job: Job) -> None:
        """Implement the port."""
        await self.go_on.wait()
        if self.kind == "cancel":
            raise ZeroDivisionError


@pytest.fixture
async def jobs() -> AsyncIterator[Jobs]:
    """The jobs of one worker."""
    subject = Jobs(cast("Any", None), lambda: 5000.0, asyncio.get_running_loop().time)
    running = asyncio.create_task(subject.run())
    yield subject
    running.cancel()


async def states(jobs: Jobs, issuers: list[str] | None = None) -> dict[str, str]:
    """Return the state of each job that such a token may see."""
    answer = await jobs.act(WorkerRequest(kind=LIST_JOBS, who="sre", members={"issuers": issuers}))
    return {job["id"]: job["state"] for job in answer["jobs"]}


async def settled(jobs: Jobs, *states_: str) -> None:
    """Wait until the jobs are in these states."""
    await until(lambda: states(jobs), lambda known: tuple(known.values()) == states_)


async def test_internal_error_ends_only_its_job(jobs: Jobs) -> None:
    """It says so, and the next job runs."""
    faulty, good = FakeWork("cancel"), FakeWork()
    id_ = jobs.begin(faulty, None)["id"]
    jobs.begin(good, None)
    await settled(jobs, "running", "running")
    faulty.go_on.set()
    await settled(jobs, "ended", "running")
    assert (await jobs.show(id_, None) or {})["unfinished"] == INTERNAL_ERROR_TEXT
    good.go_on.set()
    await settled(jobs, "ended", "ended")


async def test_repair_that_an_internal_error_ended_does_not_look_complete(jobs: Jobs) -> None:
    """Neither in its audit line nor in its account."""
    concluded = list[RepairResult]()

    async def run(*_: object) -> RepairResult:
        raise ZeroDivisionError

    request = RepairRequest(
        kind="discard", filter_=DeadLetterFilter(), issuers=None, run=run, reasons=Counter(), conclude=concluded.append
    )
    id_ = jobs.begin(RepairWork(request), None)["id"]
    await settled(jobs, "ended")
    assert [result.unfinished for result in concluded] == [INTERNAL_ERROR_TEXT]
    shown = await jobs.show(id_, None) or {}
    assert (shown["unfinished"], shown["more"]) == (INTERNAL_ERROR_TEXT, True)


async def test_job_is_visible_to_tokens_of_its_issuers(jobs: Jobs) -> None:
    """Also to tokens that did not start it."""
    of_all, of_one = (jobs.begin(FakeWork(issuers=issuers), None)["id"] for issuers in (None, frozenset({ISS})))
    assert list(await states(jobs)) == [of_all, of_one]
    assert list(await states(jobs, [ISS])) == [of_one]
    assert list(await states(jobs, ["https://other.example.com"])) == []
    asked = WorkerRequest(kind=SHOW_JOB, who="tenant", members={"id": of_all, "issuers": [ISS]})
    assert await jobs.act(asked) == {}


class WaitingWork(FakeWork):
    """Wait for messages that another process holds."""

    async def carry_out(self, job: Job) -> None:
        """Implement the port."""

        @asynccontextmanager
        async def open_pass(on_wait: OnWait) -> AsyncIterator[Any]:
            on_wait("worker w-2 (job j-2, replay)")
            await self.go_on.wait()
            yield object()

        async with hold_pass(open_pass, job.build_options()):
            await asyncio.Event().wait()


async def test_job_that_waits_for_messages_names_their_holder(jobs: Jobs) -> None:
    """To tokens of all issuers. It runs once it holds them."""
    work = WaitingWork(issuers=frozenset({ISS}))
    id_ = jobs.begin(work, None)["id"]

    async def shown(issuers: list[str] | None) -> tuple[str, str | None]:
        request = WorkerRequest(kind=SHOW_JOB, who="sre", members={"id": id_, "issuers": issuers})
        job = (await jobs.act(request))["job"]
        return job["state"], job["held_by"]

    await until(lambda: shown(None), lambda known: known == ("waiting", "worker w-2 (job j-2, replay)"))
    assert await shown([ISS]) == ("waiting", "another command or request")
    work.go_on.set()
    await settled(jobs, "running")
    assert await shown(None) == ("running", None)


async def test_job_that_waits_for_messages_ends_at_once(jobs: Jobs) -> None:
    """Although nobody releases them."""
    id_ = jobs.begin(WaitingWork(), None)["id"]
    await settled(jobs, "waiting")
    await jobs.end(id_, None)
    await settled(jobs, "ended")


async def test_list_of_jobs_with_long_conditions_is_bounded(jobs: Jobs) -> None:
    """The side channel drops larger answers. The oldest ended jobs are omitted."""
    ended = [FakeWork(issuers=frozenset({ISS})) for _ in range(5)]
    for work in ended:
        work.conditions = {"client_id": "x" * 200_000}
        work.go_on.set()
        jobs.begin(work, None)
    await settled(jobs, *["ended"] * 3)
    running = jobs.begin(FakeWork("discard"), None)["id"]
    known = await states(jobs)
    assert len(known) == 4
    assert known.keys() > {running}
    assert known[running] != "ended"


class Workers(SqliteQueue):
    """A queue whose workers have these jobs."""

    jobs: Mapping[str, Sequence[Mapping[str, object]]] = {}

    async def request(self, document: bytes, within: float) -> WorkerAnswers:
        """Implement the port."""
        if not self.jobs:
            raise QueueUnavailable("not connected")
        answers = []
        for worker, jobs in self.jobs.items():

            async def act(_request: WorkerRequest, jobs: Any = jobs) -> Members:
                return {"jobs": jobs}

            answers.append(
                await RequestHandler(worker, {LIST_JOBS: act}, self.side_channel.on_malformed).carry_out(document)
            )
        return WorkerAnswers(seen=len(answers), answers=answers)


async def test_holder_of_messages_is_named(tmp_path: Path) -> None:
    """By its worker, job and remaining time; only a job of these kinds that holds messages now."""
    queue, reported = Workers(SqliteOptions(path=tmp_path / "queue.db")), list[str]()
    assert await name_holder(queue, "sre", DEAD_LETTER_JOBS, reported.append) == "another command or request"
    common: Mapping[str, object] = {
        "kind": "replay",
        "who": "sre",
        "wanted": {},
        "state": "running",
        "began_at": "",
        "ended_at": None,
    }
    older = {"id": "j-0", **common}  # of a release without the members below
    holder = {"id": "j-2", **common, "holds": True, "seconds_left": 90.2}
    queue.jobs = {"w-1": [older, holder | {"id": "j-1", "holds": False}], "w-2": [holder | {"kind": "retry"}, holder]}
    assert await name_holder(queue, "sre", DEAD_LETTER_JOBS, reported.append) == (
        "worker w-2 (job j-2, replay, about 90 s more)"
    )
    assert reported == ["another command or request", "worker w-2 (job j-2, replay, about 90 s more)"]
    queue.jobs = {"w-1": [holder | {"id": 9000 * "x"}]}
    assert len(await name_holder(queue, "sre", DEAD_LETTER_JOBS)) == 300


WRONG_MEMBERS: Mapping[str, Any] = {
    "id": 5, "kind": "relay", "wanted": None, "seconds_left": "soon", "delivered": -1, "failed": {"x": "many"},
    "became": {"workers": []},
}  # fmt: skip


@pytest.mark.parametrize("name", [None, *WRONG_MEMBERS])
async def test_malformed_answers_are_dropped_and_counted(tmp_path: Path, name: str | None) -> None:
    """Of another release, or of anyone who may use the queue. The list of jobs has the others."""
    queue = Workers(SqliteOptions(path=tmp_path / "queue.db"))
    subject = Jobs(queue, time.time, time.monotonic)
    own = subject.begin(FakeWork(), None)
    wrong = {} if name is None else {**own, "id": "wrong", name: WRONG_MEMBERS[name]}
    queue.jobs = {"w-1": [{**own, "id": "good"}], "w-2": [wrong]}
    assert {job["id"] for job in (await subject.list_all(None))["jobs"]} == {own["id"], "good"}
    assert await name_holder(queue, "sre", DEAD_LETTER_JOBS) == "another command or request"
    assert queue.side_channel.dropped == 2


async def test_end_of_a_job_by_another_process_is_audited(jobs: Jobs) -> None:
    """Once, with a claimed name: anyone who may use the queue can request it. The API logs a token's name besides."""
    id_, counted = jobs.begin(FakeWork(), None)["id"], list[str]()
    handler = RequestHandler("w", {END_JOB: jobs.act}, lambda: counted.append("malformed"))
    wrong_members: Sequence[Mapping[str, object]] = ({"id": "unknown"}, {"id": 5}, {})
    for members in ({"id": id_}, {"id": id_}, *wrong_members):
        forged = {"v": 1, "asks": {"name": "end_job", "who": "sre", "members": members}}
        await handler.carry_out(json.dumps(forged).encode())
    lines = [line for line in recent_lines() if line["action"] == "job_ended"]
    assert [(line["who"], line["id"]) for line in lines] == [("sre (claimed)", id_)]
    assert len(counted) == 2


async def test_equal_job_of_other_issuers_is_not_returned(tmp_path: Path) -> None:
    """Also while the queue is unreachable, so that only the worker's own jobs are known."""
    subject = Jobs(Workers(SqliteOptions(path=tmp_path / "queue.db")), time.time, time.monotonic)
    work = FakeWork("retry", issuers=frozenset({ISS}))
    id_ = subject.begin(work, None)["id"]
    other = token("other", "repair", issuers=frozenset({"https://other.example.com"}))
    assert await subject.find_equal(work, other) is None
    found = await subject.find_equal(work, replace(other, issuers=frozenset({ISS})))
    assert found is not None
    assert found["id"] == id_


TENANTS = [token(name, "repair", issuers=frozenset({ISS})) for name in ("one", "two", "three", "four")]


async def test_callers_that_use_all_places_leave_one_to_each_other(jobs: Jobs) -> None:
    """A replay at a low rate takes days. Each caller can start one, also without issuers."""
    for tenant in TENANTS[:2]:
        for _ in range(4):
            jobs.begin(FakeWork(), tenant)
    for other in (*TENANTS[2:], None):
        jobs.begin(FakeWork(), other)
        with pytest.raises(Refusal):
            jobs.begin(FakeWork(), other)


async def test_jobs_of_one_caller_do_not_evict_records_of_others(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The records of the caller with the most go first."""
    monkeypatch.setattr(jobs_module, "MAX_REMEMBERED_JOBS", 3)
    kept = list[str]()
    for tenant in (*TENANTS[:2], *[TENANTS[2]] * 4):
        work = FakeWork(issuers=frozenset({ISS}))
        work.go_on.set()
        id_ = jobs.begin(work, tenant)["id"]
        await job_in_state(jobs, id_, "ended")
        kept.append(id_)
    assert list(await states(jobs)) == [kept[0], kept[1], kept[-1]]


async def test_a_bounded_number_of_jobs_is_remembered(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job that ended first is removed first."""
    monkeypatch.setattr(jobs_module, "MAX_REMEMBERED_JOBS", 3)
    begun = list[str]()
    for number in range(5):
        work = FakeWork()
        work.go_on.set()
        begun.append(jobs.begin(work, None)["id"])
        await settled(jobs, *["ended"] * min(number + 1, 3))
    assert list(await states(jobs)) == begun[2:]


# ── A retry over the API: its account while it waits, and where it fails ─────────────────────────────────────────────


@pytest.fixture
async def empty_queue(tmp_path: Path) -> AsyncIterator[SqliteQueue]:
    """A queue without pending deliveries."""
    empty_queue = SqliteQueue(SqliteOptions(path=tmp_path / "queue.db"))
    await empty_queue.open()
    yield empty_queue
    await empty_queue.close()


@pytest.fixture
async def retry_jobs(empty_queue: SqliteQueue) -> AsyncIterator[Jobs]:
    """The jobs of one worker."""
    subject = Jobs(empty_queue, time.time, time.monotonic)
    running = asyncio.create_task(subject.run())
    yield subject
    running.cancel()


async def job_in_state(retry_jobs: Jobs, id_: str, state: str) -> dict[str, Any]:
    """Return the job once it is in this state."""

    async def ask() -> dict[str, Any]:
        return await retry_jobs.show(id_, None) or {}

    return await until(ask, lambda job: job["state"] == state)


async def test_pending_count_is_absent_until_the_pass_has_run(empty_queue: SqliteQueue, retry_jobs: Jobs) -> None:
    """A job shows `waited` as null before that, and writes its audit line at its end."""
    written = list[str]()
    wish = RetryRequest(key=(ISS, "shop"), who="sre")
    job = retry_jobs.begin(RetryWork(empty_queue, wish, lambda action, **_: written.append(action)), None)
    assert (job["state"], job["waited"]) == ("waiting", None)
    counted = await job_in_state(retry_jobs, job["id"], "ended")
    assert (counted["waited"], counted["unfinished"]) == (0, None)
    assert written == ["retried_now"]


async def test_retry_with_an_unreachable_queue_ends(empty_queue: SqliteQueue, retry_jobs: Jobs) -> None:
    """The job ends without a file name."""
    await empty_queue.close()
    work = RetryWork(empty_queue, RetryRequest(key=(ISS, "shop"), who="sre"), lambda action, **_: None)
    job = await job_in_state(retry_jobs, retry_jobs.begin(work, None)["id"], "ended")
    assert job["unfinished"] == "the queue is unavailable, or its disk is full; the rest is unchanged"


# ── Counts of a replay by one worker, and their sum over all workers ─────────────────────────────────────────────────


def taken(event_id: str, deliveries: int) -> EventTaken:
    """Return the fact that an event was processed."""
    return EventTaken(result="accepted", event_id=event_id, iss=ISS, publisher=None, deliveries=deliveries, dated=False)


def dead_lettered(name: str, event_id: str = "e-1") -> DeadLettered:
    """Return the fact that a delivery was given up."""
    delivery = replace(DELIVERY, id=name, event_id=event_id)
    return DeadLettered(
        iss=ISS, client_id="shop", event_id=event_id, reason=DeadReason.EXPIRED, text="", delivery=delivery
    )


async def account(accounts: ReplayAccounts, id_: str = "r") -> ReplayAccount:
    """Return the worker's counts."""
    answer = await accounts.act(make_results_request(id_, "sre"))
    return ReplayAccount.sum_of([WorkerAnswer(worker="w", version="1", result=answer)])


async def test_only_followed_dead_letters_are_counted() -> None:
    """Each is counted once, also when copies of it are finished."""
    accounts = ReplayAccounts(lambda: 0.0, Observers())
    for request in make_follow_requests("r", "sre", ["d-1", "d-2", "d-3"], ["e-9"]):
        await accounts.act(request)
    assert (await account(accounts)).count_waiting(3, 1) == 4
    one, two = (replace(DELIVERY, id=name) for name in ("d-1", "d-2"))
    failed = Failed(reason=Reason.SERVER_ERROR, status=503, text="no")
    accounts.observe(
        Attempted(delivery=two, number=1, jti="j", alg="ES256", outcome=failed, seconds=1, at=0, next_due=9)
    )
    for _ in range(2):
        accounts.observe(delivered(one))
    accounts.observe(delivered(replace(DELIVERY, id="other")))
    accounts.observe(Deferred(iss=ISS, client_id="shop", event_id="e-1", cause=Cause.CIRCUIT, due=9, delivery=two))
    accounts.observe(dead_lettered("d-3"))
    accounts.observe(dead_lettered("of-the-event", "e-9"))
    accounts.observe(Skipped(iss=ISS, client_id="none", event_id="e-9"))
    accounts.observe(taken("e-9", 2))
    known = await account(accounts)
    assert known.document() == {
        "delivered": 1,
        "failed": {"server_error": 1},
        "dead": {"expired": 2},
        "put_off": {"circuit": 1},
        "text": "503 no",
        "skipped": 1,
    }
    assert (known.count_waiting(3, 1), known.reported) == (2, 4)  # d-2, and one of the event's two


async def test_delivery_that_had_succeeded_is_not_pending() -> None:
    """A dead letter and clients of an event whose delivery the broker dead-lettered after it had succeeded."""
    accounts = ReplayAccounts(lambda: 0.0, Observers())
    for request in make_follow_requests("r", "sre", ["d-1"], ["e-9"]):
        await accounts.act(request)
    for _ in range(2):
        accounts.observe(AlreadyDelivered(delivery=replace(DELIVERY, id="d-1")))
    accounts.observe(delivered(replace(DELIVERY, id="new", event_id="e-9")))
    accounts.observe(replace(taken("e-9", 3), copies=2))
    known = await account(accounts)
    assert (known.results.delivered, known.count_waiting(1, 1), known.reported) == (2, 0, 2)


async def test_a_bounded_number_of_dead_letters_is_followed() -> None:
    """Anyone who may use the queue can send requests of one replay again and again."""
    accounts = ReplayAccounts(lambda: 0.0, Observers())
    ids = [f"d-{number}" for number in range(MAX_FOLLOWED_MESSAGES + 1)]
    for request in make_follow_requests("r", "eve", ids, []):
        await accounts.act(request)
    for delivery_id in (ids[0], ids[-1]):
        accounts.observe(delivered(replace(DELIVERY, id=delivery_id)))
    assert (await account(accounts)).reported == 1


async def test_replays_of_one_operator_do_not_evict_accounts_of_others() -> None:
    """The oldest account of the operator with the most goes first."""
    accounts = ReplayAccounts(lambda: 0.0, Observers())
    operators = {"mine": "sre", **{f"r{number}": "tenant" for number in range(MAX_REPLAYS + 5)}, "last": "other"}
    for id_, who in operators.items():
        for request in make_follow_requests(id_, who, [f"d-{id_}"], []):
            await accounts.act(request)
        accounts.observe(delivered(replace(DELIVERY, id=f"d-{id_}")))
    assert [(await account(accounts, id_)).results.delivered for id_ in ("mine", "r0", "r24", "last")] == [1, 0, 1, 1]


async def test_a_bounded_number_of_replays_is_followed() -> None:
    """The oldest is removed first, and each an hour after its last request."""
    now = 0.0
    observers = Observers()
    accounts = ReplayAccounts(lambda: now, observers)
    for number in range(MAX_REPLAYS + 1):
        for request in make_follow_requests(f"r{number}", "sre", [f"d-{number}"], []):
            await accounts.act(request)
    for number in range(MAX_REPLAYS + 1):
        observers.observe(delivered(replace(DELIVERY, id=f"d-{number}")))
    assert [(await account(accounts, f"r{number}")).results.delivered for number in (0, 1, MAX_REPLAYS)] == [0, 1, 1]
    now = 3601.0
    accounts.forget()
    assert (await account(accounts, "r1")).results.delivered == 0
