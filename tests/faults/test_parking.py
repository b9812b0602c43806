"""Faults while deliveries wait in buckets for a client that is down, and while they are delivered after its recovery.

Nothing is lost, and parked deliveries follow within seconds of the recovery.
"""

import asyncio
import itertools
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.conftest import Form, Record
from tests.faults.parking_rig import Down, Sick, parks, sick_in, until_parked
from tests.faults.rig import FORWARDED_AGAIN, Rig, kill, load, rig
from tests.faults.test_broker_restarts import BACK
from tests.faults.test_broker_restarts import KILLED as BROKER_KILLED
from tests.faults.test_network import LONG
from tests.faults.test_workers import KILLED
from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.worker_process import WorkerProcess, worker

RATE = 30  # events a second
MOST = 100_000  # events of one round
STEPS = ("parked:20", "probe:2", "parked:5", "fetched:5", "delivered:5")  # see parks.py


async def by_turns(sick: Sick, chance: random.Random, times: int) -> None:
    """Have the client go down in each of its ways, and recover each time."""
    for down in itertools.islice(itertools.cycle(Down), times):
        sick.fall(down)
        await asyncio.sleep(chance.uniform(2, 5))
        await sick.recover()
        await asyncio.sleep(chance.uniform(1, 3))


async def killed_now_and_then(
    made: Rig, chance: random.Random, over: asyncio.Event, last: asyncio.Event, ended: asyncio.Event
) -> int:
    """Kill a worker at random moments and start another, until it is `over`. The `last` one runs until all has `ended`.

    Returns how many were killed.
    """
    for kills in itertools.count():
        async with worker(made.site) as running:
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), chance.uniform(1, 8))
            if over.is_set():
                last.set()
                await ended.wait()
                assert await running.stop() == 0
                return kills
            await kill(running)
    raise AssertionError


async def until_told_more(made: Rig, count: int) -> None:
    """Wait until `sick` has received so many more requests."""
    before = len(made.clients.at("sick"))
    await made.clients.until(lambda: len(made.clients.at("sick")) >= before + count, BACK)


@pytest.mark.fault(
    "parking", "two workers killed by SIGKILL at random moments, while a client goes down and recovers repeatedly"
)
@pytest.mark.timeout(900)
async def test_workers_killed(made: Rig, form: Form[int], chance: random.Random, record: Record) -> None:
    """It answers 503, hangs and refuses connections. After its last recovery nothing waits for long."""
    async with sick_in(made) as sick:
        over, ended, last = asyncio.Event(), asyncio.Event(), [asyncio.Event() for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            crew = [group.create_task(killed_now_and_then(made, chance, over, each, ended)) for each in last]
            async with load(made.publisher, rate=RATE):
                await by_turns(sick, chance, form(2, 30))
                sick.fall(chance.choice(list(Down)))
                await asyncio.sleep(3)
                await until_parked(made, 20)
                over.set()
                for each in last:
                    await each.wait()
                await sick.recover()
                await sick.until_served()
            await made.until_settled()
            ended.set()
        record(await made.account(cause=KILLED), times=sum(each.result() for each in crew))
        sick.was_served_soon()


@pytest.mark.fault(
    "parking", "broker killed by SIGKILL and restarted, while deliveries are parked, and while they are fetched"
)
@pytest.mark.timeout(900)
async def test_broker_killed(
    tmp_path: Path, own_node: RabbitmqNode, new_queues: str, form: Form[int], record: Record
) -> None:
    """Confirmed parks are on its disk, and fetching that was cut off goes on."""
    times = form(1, 5)

    async def killed(*running: WorkerProcess) -> None:
        await asyncio.to_thread(own_node.kill)
        await asyncio.to_thread(own_node.start)
        for each in running:
            await each.until_ready(patience=BACK)

    async with (
        rig(tmp_path, own_node.url, new_queues) as made,
        sick_in(made) as sick,
        worker(made.site) as first,
        worker(made.site) as second,
    ):
        sick.takes = 0.1
        for nth in range(times):
            sick.fall(Down.ANSWERS_503)
            async with load(made.publisher, rate=2 * RATE, first=nth * MOST):
                await until_parked(made, 100)
            await killed(first, second)
            await sick.recover()
            await until_told_more(made, 30)
            await killed(first, second)
            await sick.until_served()
            sick.was_served_soon()
        await made.settle(first, second, patience=FORWARDED_AGAIN)
        record(await made.account(cause=BROKER_KILLED), times=2 * times)


@pytest.mark.fault(
    "parking",
    "worker killed as a delivery was parked or became a probe, was fetched, was delivered: each time before the ack",
)
@pytest.mark.timeout(900)
async def test_killed_at_each_step(made: Rig, form: Form[int], record: Record) -> None:
    """Other workers do not know the client. The next one finds parked deliveries by a probe, or by its first pass."""
    times = form(1, 5)
    async with sick_in(made) as sick:
        for nth in range(times):
            sick.fall(Down.ANSWERS_503)
            async with load(made.publisher, rate=RATE, first=nth * MOST):
                for step in STEPS:
                    if step.startswith("fetched"):
                        await sick.recover()
                    async with worker(made.site, command=parks(step), ready=False) as running:
                        assert await running.ended(LONG) == -signal.SIGKILL
            async with worker(made.site) as running:
                await sick.until_served()
                await made.settle(running)
        record(await made.account(cause=KILLED), times=times * len(STEPS))
        sick.was_served_soon()
