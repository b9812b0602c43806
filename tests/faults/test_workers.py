"""Workers die or freeze: the next one takes what they held, and nothing is lost."""

import asyncio
import random
import signal
from pathlib import Path

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.rig import rig
from tests.system.worker_process import worker

KILLED = "held by a worker that was killed"


@pytest.mark.fault("worker", "killed by SIGKILL at random moments, each time with deliveries in flight")
@pytest.mark.timeout(400)
async def test_killed_again_and_again(
    tmp_path: Path, amqp_url: str, prefix: str, form: Form[int], chance: random.Random, tell: Tell
) -> None:
    """Events are published meanwhile."""
    times = form(4, 20)
    async with rig(tmp_path, amqp_url, prefix) as made:
        async with worker(made.site) as running:
            assert await running.stop() == 0
        publishing = asyncio.create_task(made.publisher.publish(range(400 * times), rate=250))
        for _ in range(times):
            async with worker(made.site) as running:
                await made.more(1)
                await asyncio.sleep(chance.uniform(0, 1))
                running.send(signal.SIGKILL)
                await running.ended()
        async with worker(made.site) as running:
            await publishing
            await made.until_settled()
            assert await running.stop() == 0
        tell(await made.account(cause=KILLED), times=times)


@pytest.mark.fault("worker", "one of two killed by SIGKILL, the other goes on")
@pytest.mark.timeout(200)
async def test_one_of_two_killed(
    tmp_path: Path, amqp_url: str, prefix: str, form: Form[int], chance: random.Random, tell: Tell
) -> None:
    """The other one takes over what the first held."""
    times = form(2, 10)
    async with rig(tmp_path, amqp_url, prefix) as made, worker(made.site) as staying:
        publishing = asyncio.create_task(made.publisher.publish(range(400 * times), rate=250))
        for _ in range(times):
            async with worker(made.site) as running:
                await asyncio.sleep(chance.uniform(0, 1))
                running.send(signal.SIGKILL)
                await running.ended()
        await publishing
        await made.until_settled()
        assert await staying.stop() == 0
        tell(await made.account(cause=KILLED), times=times)


@pytest.mark.fault("worker", "frozen by SIGSTOP until the broker has given it up (three heartbeats), then continued")
@pytest.mark.timeout(300)
async def test_frozen_past_the_heartbeat(tmp_path: Path, amqp_url: str, prefix: str, tell: Tell) -> None:
    """The broker hands what it held to the other worker. Once awake, it goes on by itself."""
    async with rig(tmp_path, f"{amqp_url}?heartbeat=2", prefix) as made:
        async with worker(made.site) as first, worker(made.site) as second:
            publishing = asyncio.create_task(made.publisher.publish(range(1500), rate=100))
            await made.clients.until(lambda: len(made.clients.hits) > 300)
            first.send(signal.SIGSTOP)
            await asyncio.sleep(9)
            first.send(signal.SIGCONT)
            await first.until_said("queue_connection_lost")
            await first.until_ready()
            await publishing
            await made.until_settled()
            assert await first.stop() == 0
            assert await second.stop() == 0
        tell(await made.account(cause="held by the frozen worker"))
