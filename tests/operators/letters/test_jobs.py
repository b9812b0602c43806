"""Jobs, whatever they do: how many there are, how they end, who hears of them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from notifier.network.listeners.problem import Refusal
from notifier.operators.letters import jobs as jobs_module
from notifier.operators.letters.jobs import ASK, LIST, Job, JobEnds, JobKind, Jobs
from notifier.operators.status.worker_requests import WorkerRequest
from tests.publishing.serving import ISS, token
from tests.system.waiting import until


class Turns:
    """Messages that are had one after another."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.wanted = False

    @asynccontextmanager
    async def turn(self, *, patient: bool) -> AsyncIterator[None]:
        """As the port says."""
        assert patient
        async with self.lock:
            yield


class Work:
    """Takes a turn, and goes on once it is told to."""

    wanted: Mapping[str, object] = {}

    def __init__(self, turns: Turns, kind: JobKind = "replay", issuers: frozenset[str] | None = None) -> None:
        self.kind, self.issuers = kind, issuers
        self.go_on = asyncio.Event()
        self.ended = ""
        self._turns = turns

    def account(self) -> Mapping[str, Any]:
        """As the port says."""
        return {"unfinished": self.ended or None}

    async def carry_out(self, job: Job) -> None:
        """As the port says."""
        try:
            async with job.turn(self._turns):
                await self.go_on.wait()
        except JobEnds as ends:
            self.ended = str(ends)
        if self.kind == "cancel":
            raise ZeroDivisionError


@pytest.fixture
async def jobs() -> AsyncIterator[Jobs]:
    """Of one worker, which does them."""
    subject = Jobs(cast("Any", None), lambda: 5000.0, asyncio.get_running_loop().time)
    running = asyncio.create_task(subject.run())
    yield subject
    running.cancel()


async def states(jobs: Jobs, issuers: list[str] | None = None) -> dict[str, str]:
    """The state of each that such a token hears of."""
    said = await jobs.act(WorkerRequest(name=LIST, who="sre", members={"issuers": issuers}))
    return {job["id"]: job["state"] for job in said["jobs"]}


async def settled(jobs: Jobs, *states_: str) -> None:
    """Wait until the jobs are in these states."""
    await until(lambda: states(jobs), lambda known: tuple(known.values()) == states_)


async def test_a_fault_of_ours_ends_its_job_alone(jobs: Jobs) -> None:
    """The next one has its turn."""
    turns = Turns()
    faulty, good = Work(turns, "cancel"), Work(turns)
    for work in (faulty, good):
        jobs.begin(work, None)
    await settled(jobs, "running", "waiting")
    faulty.go_on.set()
    await settled(jobs, "ended", "running")
    good.go_on.set()
    await settled(jobs, "ended", "ended")
    assert good.ended == ""


async def test_jobs_of_one_kind_take_no_places_of_another(jobs: Jobs) -> None:
    """A token with issuers has half of them."""
    turns, bound = Turns(), token("tenant", "repair", issuers=frozenset({ISS}))
    for _ in range(4):
        jobs.begin(Work(turns), bound)
    with pytest.raises(Refusal, match="429"):
        jobs.begin(Work(turns), bound)
    for _ in range(4):
        jobs.begin(Work(turns), None)
    with pytest.raises(Refusal, match="503"):
        jobs.begin(Work(turns), None)
    assert jobs.begin(Work(turns, "retry"), None)["state"] == "waiting"


async def test_a_worker_that_ends_waits_for_what_has_messages_at_hand(jobs: Jobs) -> None:
    """What waits ends at once, and so does what begins after that."""
    turns = Turns()
    at_hand, waiting, late = Work(turns), Work(turns), Work(turns)
    jobs.begin(at_hand, None)
    jobs.begin(waiting, None)
    await settled(jobs, "running", "waiting")
    stopping = asyncio.create_task(jobs.stop())
    await settled(jobs, "running", "ended")
    jobs.begin(late, None)
    await settled(jobs, "running", "ended", "ended")
    assert {waiting.ended, late.ended} == {"the worker ended; the rest is unchanged"}
    assert not stopping.done()
    at_hand.go_on.set()
    await stopping


async def test_a_job_that_waits_for_its_hour_ends(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has the messages all the time."""
    monkeypatch.setattr(jobs_module, "LONGEST", 0.0)
    turns = Turns()
    async with turns.lock:
        jobs.begin(late := Work(turns), None)
        await settled(jobs, "ended")
    assert late.ended == "its hour is over; the rest is unchanged"


async def test_a_job_is_told_to_those_whose_issuers_it_concerns(jobs: Jobs) -> None:
    """Whoever began it."""
    turns = Turns()
    of_all, of_one = (jobs.begin(Work(turns, issuers=issuers), None)["id"] for issuers in (None, frozenset({ISS})))
    assert list(await states(jobs)) == [of_all, of_one]
    assert list(await states(jobs, [ISS])) == [of_one]
    assert list(await states(jobs, ["https://other.example.com"])) == []
    asked = WorkerRequest(name=ASK, who="tenant", members={"id": of_all, "issuers": [ISS]})
    assert await jobs.act(asked) == {}


async def test_a_bounded_number_of_jobs_is_remembered(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that ended first are forgotten first."""
    monkeypatch.setattr(jobs_module, "REMEMBERED", 3)
    begun = list[str]()
    for number in range(5):
        work = Work(Turns())
        work.go_on.set()
        begun.append(jobs.begin(work, None)["id"])
        await settled(jobs, *["ended"] * min(number + 1, 3))
    assert list(await states(jobs)) == begun[2:]
