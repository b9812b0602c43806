"""Workers die or freeze: the next one takes their messages, and nothing is lost."""

import asyncio
import random
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.faults.conftest import Form, Record
from tests.faults.rig import Rig, kill, load, rig
from tests.system.clients import Hit
from tests.system.site import client
from tests.system.waiting import until
from tests.system.worker_process import worker

KILLED = "held by a worker that was killed"
WHAT = "killed by SIGKILL at random moments, each time with deliveries in flight"


@pytest.mark.parametrize(
    "installation",
    [
        pytest.param("rabbitmq", marks=[pytest.mark.fault("worker", WHAT), pytest.mark.full]),
        pytest.param("sqlite", marks=pytest.mark.fault("embedded queue", WHAT)),
    ],
    indirect=True,
)
@pytest.mark.timeout(900)
async def test_killed_again_and_again(
    installation: Rig, form: Form[int], chance: random.Random, record: Record
) -> None:
    """Events are published meanwhile. On SQLite their publisher finds nobody, or an answer that is cut off."""
    times = form(2, 20)
    async with load(installation.publisher, rate=form(100, 250)) as end:
        for _ in range(times):
            async with worker(installation.site) as running:
                await installation.more(1)
                await asyncio.sleep(chance.uniform(0, 1))
                await kill(running)
        async with worker(installation.site) as running:
            await end()
            await installation.settle(running)
    record(await installation.account(cause=KILLED), times=times)


@pytest.mark.full
@pytest.mark.fault("worker", "killed by SIGKILL while 200 clients hang, and their messages are set aside")
@pytest.mark.parametrize("installation", ["rabbitmq", "sqlite"], indirect=True)
@pytest.mark.timeout(600)
async def test_killed_with_messages_set_aside(installation: Rig, record: Record) -> None:
    """On RabbitMQ the consumer is renewed meanwhile. Requests that hang fail in the end, all others are accepted."""
    names, recovered = [f"c{number}" for number in range(200)], asyncio.Event()
    made, times = installation, 2  # after a third death these messages would be suspects
    of_all = made.publisher.event

    async def hang(_hit: Hit) -> int:
        if recovered.is_set():
            return 200
        await recovered.wait()
        return 503

    made.site.write_clients([client(name, made.clients.url(name), timeout="60s") for name in names])
    made.publisher.event = lambda number: {**of_all(number), "clients": [names[number % 200]]}  # type: ignore[method-assign]
    made.clients.judge, made.expected = hang, {}
    async with load(made.publisher, rate=100) as end:
        for _ in range(times):
            async with worker(made.site) as running:
                # Of events and retries: what the former worker deferred returns as retries.
                await until(partial(running.metric, "queue_set_aside"), lambda count: count >= 150)
                await kill(running)
        async with worker(made.site) as running:
            await end()
            recovered.set()
            await made.settle(running)
    record(await made.account(cause=KILLED), times=times)


@pytest.mark.full
@pytest.mark.fault("worker", "frozen by SIGSTOP until the broker has given it up (three heartbeats), then continued")
@pytest.mark.timeout(600)
async def test_frozen_past_the_heartbeat(
    tmp_path: Path, amqp_url: str, prefix: str, form: Form[int], record: Record
) -> None:
    """The broker hands what it held to the other worker. Once awake, it goes on by itself."""
    async with rig(tmp_path, f"{amqp_url}?heartbeat=2", prefix) as made:
        async with worker(made.site) as first, worker(made.site) as second:
            publishing = asyncio.create_task(made.publisher.publish(range(form(400, 1500)), rate=100))
            await made.clients.until(lambda: len(made.clients.hits) > 100)
            first.send(signal.SIGSTOP)
            await asyncio.sleep(9)
            first.send(signal.SIGCONT)
            await first.until_logged("queue_connection_lost")
            await first.until_ready()
            await publishing
            await made.settle(first, second)
        record(await made.account(cause="held by the frozen worker"))
