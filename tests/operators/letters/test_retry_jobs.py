"""A retry over the API: what it tells while it waits, and where it cannot."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from notifier.operators.letters.jobs import Jobs
from notifier.operators.letters.repair_jobs import RetryWork
from notifier.operators.letters.retry_now import RetryWish
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from tests.contract.letters import ISS
from tests.system.waiting import until


class Turns:
    """Nobody else wants what waits, but one who holds `lock`."""

    wanted = False

    def __init__(self) -> None:
        self.lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, *, patient: bool) -> AsyncIterator[None]:
        """As the port says."""
        assert patient
        async with self.lock:
            yield


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[SqliteQueue]:
    """In which nothing waits."""
    queue = SqliteQueue(SqliteOptions(path=tmp_path / "queue.db"))
    await queue.open()
    yield queue
    await queue.close()


@pytest.fixture
async def jobs(queue: SqliteQueue) -> AsyncIterator[Jobs]:
    """Of one worker, which does them."""
    subject = Jobs(queue, time.time, time.monotonic)
    running = asyncio.create_task(subject.run())
    yield subject
    running.cancel()


async def told(jobs: Jobs, id_: str, state: str) -> dict[str, Any]:
    """The job, once it is in this state."""

    async def ask() -> dict[str, Any]:
        return await jobs.told(id_, None) or {}

    return await until(ask, lambda job: job["state"] == state)


async def test_what_waits_is_not_known_until_it_is_counted(queue: SqliteQueue, jobs: Jobs) -> None:
    """Somebody else goes through it meanwhile. Whoever ends the job before that has none of it tried."""
    turns, written = Turns(), list[str]()
    wish = RetryWish(key=(ISS, "shop"), who="sre")
    async with turns.lock:
        one, two = (
            jobs.begin(RetryWork(queue, wish, turns, lambda action, **_: written.append(action)), None)["id"]
            for _ in range(2)
        )
        assert (await told(jobs, one, "waiting"))["waited"] is None
        await jobs.end(two, None)
        ended = await told(jobs, two, "ended")
        assert (ended["waited"], ended["unfinished"]) == (None, "somebody ended it; the rest is unchanged")
    counted = await told(jobs, one, "ended")
    assert (counted["waited"], counted["unfinished"]) == (0, None)
    assert written == ["retried_now"] * 2


async def test_a_retry_while_the_queue_is_away(queue: SqliteQueue, jobs: Jobs) -> None:
    """It ends, and names no file."""
    await queue.close()
    work = RetryWork(queue, RetryWish(key=(ISS, "shop"), who="sre"), Turns(), lambda action, **_: None)
    job = await told(jobs, jobs.begin(work, None)["id"], "ended")
    assert job["unfinished"] == "the queue is away, or its disk is full; the rest is unchanged"
