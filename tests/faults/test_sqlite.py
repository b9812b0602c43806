"""The embedded queue under load: a disk that fills, a file that somebody else has locked or damages."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from tests.faults.conftest import Form, Record
from tests.faults.embedded_rig import embedded
from tests.faults.rig import load
from tests.queues.sqlite.test_sqlite_queue import overwrite
from tests.support.small_disk import filled, small_disk
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

UNUSABLE = "queue_file_unusable"
USABLE = "queue_file_usable"


async def until_problem(running: WorkerProcess, text: str | None) -> None:
    """Wait until `/readyz` reports this problem; None: no problem."""

    def good(answer: tuple[int, str]) -> bool:
        return '"problem": null' in answer[1] if text is None else text in answer[1]

    await until(lambda: running.get("/readyz"), good)


@pytest.mark.fault("embedded queue", "disk full while events come, then free again")
@pytest.mark.timeout(900)
async def test_disk_full(tmp_path: Path, form: Form[int], record: Record) -> None:
    """While the disk is full, publishers get 503, and probe and log report why. Then the worker recovers by itself."""
    times = form(1, 10)
    with small_disk(tmp_path / "disk", mib=12) as disk:
        async with embedded(tmp_path, disk / "queue.db") as made, worker(made.site) as running:
            async with load(made.publisher, rate=100):
                for _ in range(times):
                    await made.more(200)
                    refused = made.publisher.answers[503]
                    with filled(disk):
                        await made.publisher.until_answered(503, refused + 20, 60)
                        await until_problem(running, "is full (less than 2 MiB is free)")
                    await until_problem(running, None)
            await made.until_settled()
            assert {str(made.file) in line["reason"] for line in running.logged(UNUSABLE)} == {True}
            assert len(running.logged(USABLE)) >= times
            assert await running.stop() == 0
            record(await made.account(cause="disk full"), times=times)


@pytest.mark.fault("embedded queue", "file locked by another process for longer than the worker waits for it")
@pytest.mark.timeout(900)
async def test_locked(tmp_path: Path, form: Form[int], record: Record) -> None:
    """Publishers get 503, and probe and log report why. Once the lock is released, the worker recovers by itself."""
    seconds = form(7, 20)
    async with embedded(tmp_path) as made, worker(made.site) as running:
        async with load(made.publisher, rate=100):
            await made.more(100)
            with contextlib.closing(sqlite3.connect(made.file, isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                await asyncio.sleep(seconds)
                await until_problem(running, "database is locked")
                assert made.publisher.answers[503] > 0
                assert (await running.get("/livez"))[0] == 200
                other.execute("ROLLBACK")
        await made.until_settled()
        await until_problem(running, None)
        assert {str(made.file) in line["reason"] for line in running.logged(UNUSABLE)} == {True}
        assert running.logged(USABLE)
        assert await running.stop() == 0
        record(await made.account(cause="file locked"), times=1)


@pytest.mark.timeout(600)
async def test_damage_under_a_running_worker(tmp_path: Path) -> None:
    """The worker ends and logs the reason."""
    async with embedded(tmp_path) as made:
        async with worker(made.site) as running:
            await made.publisher.publish(range(0, 350, 7), rate=200)  # more than one page of dead letters
            await made.until_settled(120)
            with contextlib.closing(sqlite3.connect(made.file)) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            text = overwrite(made.file)
            assert (await running.post(made.publisher.event(1000)))[0] == 503
            assert await running.ended() == 1
        assert f"the queue file {made.file} is damaged" in running.log
        assert text in running.log
        assert "Traceback" not in running.log
