"""A broker that refuses the worker: it closes connections and channels, and withdraws permissions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.conftest import Form, Record
from tests.faults.rig import Rig, judge, load, rig
from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.clients import Hit
from tests.system.worker_process import WorkerProcess, worker

BACK = 120.0  # seconds for a worker to come back: its pause between two tries grows to fifteen
LIVED_ON = "acked on a channel that was closed"


async def settled(made: Rig, running: WorkerProcess) -> None:
    """Wait until everything is settled, and stop the worker."""
    await made.until_settled()
    await running.until_ready(patience=BACK)
    assert await running.stop() == 0


@asynccontextmanager
async def environment(node: RabbitmqNode, **values: int) -> AsyncIterator[None]:
    """Configure the broker. Channels that open from now on use the values."""
    new = ", ".join(f"{{{name}, {value}}}" for name, value in values.items())
    # 4.x copies `max_message_size` when it starts, and its channels go by the copy.
    put = "application:set_env(rabbit, N, V), persistent_term:get(N, none) == none orelse persistent_term:put(N, V)"
    enter = (
        f"persistent_term:put(before, [{{N, application:get_env(rabbit, N)}} || {{N, _}} <- [{new}]]), "
        f"[begin {put} end || {{N, V}} <- [{new}]]."
    )
    leave = (
        f"[case Was of {{ok, V}} -> {put}; undefined -> application:unset_env(rabbit, N) end "
        "|| {N, Was} <- persistent_term:get(before)]."
    )
    await asyncio.to_thread(node.ctl, "eval", enter)
    try:
        yield
    finally:
        await asyncio.to_thread(node.ctl, "eval", leave)


@pytest.mark.fault("broker", "a channel closed by a precondition failure: a message not acked in time")
@pytest.mark.timeout(600)
async def test_the_ack_comes_too_late(
    tmp_path: Path, own_node: RabbitmqNode, queues: str, form: Form[int], record: Record
) -> None:
    """A client answers too late for the broker's ack timeout. Everything unacked comes again."""
    times = form(1, 5)
    waits = 4

    async def hangs_now_and_then(hit: Hit) -> int:
        if hit.path == "/healthy" and int(hit.who) % form(150, 400) == 50 and hit.nth == 1:
            await asyncio.sleep(waits)
        return await judge(hit)

    impatient = environment(own_node, consumer_timeout=2000, channel_tick_interval=500)
    async with impatient, rig(tmp_path, own_node.url, queues) as made:
        made.clients.judge = hangs_now_and_then
        made.site.config["delivery"]["timeout"] = "20s"
        made.site.write()
        async with worker(made.site) as running:
            await made.publisher.publish(range(form(150, 400) * times), rate=100)
            await running.until_logged("queue_consumer_lost", lambda line: "PRECONDITION" in line["reason"].upper())
            await settled(made, running)
        record(await made.account(cause=LIVED_ON), times=times)


@pytest.mark.fault("broker", "a channel closed by a precondition failure: retries larger than the broker takes")
@pytest.mark.timeout(600)
async def test_broker_refuses_publishes_until_sizes_fit(
    tmp_path: Path, own_node: RabbitmqNode, queues: str, form: Form[int], record: Record
) -> None:
    """Each publish closes the worker's channel, until the broker takes messages of that size again."""
    times = form(1, 5)
    async with rig(tmp_path, own_node.url, queues) as made, worker(made.site) as running:
        async with load(made.publisher, rate=100):
            for _ in range(times):
                await made.more(50, BACK)
                async with environment(own_node, max_message_size=200):
                    await asyncio.to_thread(own_node.ctl, "close_all_connections", "new channels")
                    await running.until_logged("queue_refuses", lambda line: "PRECONDITION" in line["reason"].upper())
                    await made.more(50, BACK)
                await asyncio.to_thread(own_node.ctl, "close_all_connections", "new channels")
        await settled(made, running)
        record(await made.account(cause=LIVED_ON), times=times)
