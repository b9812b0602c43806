"""The ledger can fail: a worker that acks before it delivers is caught, and every kind of remainder is named."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import Record
from tests.faults.rig import judge, kill, rig
from tests.system.clients import Hit
from tests.system.worker_process import ROOT, worker

ACKS_FIRST = [sys.executable, str(ROOT / "tests" / "faults" / "acks_first.py")]


async def lose(folder: Path, amqp_url: str, prefix: str, record: Record) -> None:
    """Have a worker ack each message as it comes, and kill it while its clients take their time."""
    killed = asyncio.Event()

    async def slowly(hit: Hit) -> int:
        if killed.is_set():
            return await judge(hit)
        await killed.wait()
        return 503

    async with rig(folder, amqp_url, prefix) as made:
        made.clients.judge = slowly
        async with worker(made.site, command=ACKS_FIRST) as running:
            await made.publisher.publish(range(60), rate=600)
            await made.clients.until(lambda: bool(made.clients.at("healthy")))
            await kill(running)
        killed.set()
        async with worker(made.site) as running:
            await running.until_metric(0, "queue_messages", queue="events")
            await running.until_metric(0, "in_flight")
            assert await running.stop() == 0
        record(await made.account())


@pytest.mark.timeout(600)
async def test_a_worker_that_acks_first_is_caught(tmp_path: Path, amqp_url: str, prefix: str, record: Record) -> None:
    """The ledger finds what is lost."""
    with pytest.raises(pytest.fail.Exception, match="LOST"):
        await lose(tmp_path, amqp_url, prefix, record)
