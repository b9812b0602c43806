"""Queues are deleted under load, and the worker or an administrator declares them again."""

import asyncio

import pytest
from aiohttp import web

from tests.faults.conftest import Form, Tell
from tests.faults.rig import Rig, judge
from tests.system.broker import Broker, broker
from tests.system.clients import Answer, Hit
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

DELAYS = [f"delay.{2**power}s" for power in range(6)]
COUNT = 30


class Down:
    """`flaky` rejects its tokens, and each is retried after some 8 s: nothing for it comes due within 4 s."""

    def __init__(self) -> None:
        self.over = False

    async def __call__(self, hit: Hit) -> Answer:
        """Answer a request."""
        if hit.path == "/flaky" and not self.over:
            return web.Response(status=400)
        answer = await judge(hit)
        return 200 if hit.path == "/flaky" else answer


async def all_delayed(made: Rig) -> None:
    """Publish, and wait until everything for `flaky` is in a delay queue and the rest has its fate."""
    await made.publisher.publish(range(COUNT), rate=200)
    await until(lambda: ready(made, DELAYS), lambda count: count == COUNT)
    await until(lambda: ready(made, ["dead"]), lambda count: count == len(made.to_die))


async def ready(made: Rig, queues: list[str]) -> int:
    """How many ready messages these queues have."""
    async with broker(made.urls[0], made.prefix) as rabbit:
        return sum((await rabbit.depths(queues)).values())


@pytest.mark.fault("broker", "the queue of retries deleted while deliveries are in the delay queues")
@pytest.mark.timeout(600)
async def test_retries_deleted(made: Rig, tell: Tell) -> None:
    """The worker declares the queue again before anything comes due, and the deliveries still wait."""
    made.clients.judge = down = Down()
    made.site.config["delivery"]["retry"] = {"base": "8s"}
    made.site.write()
    async with worker(made.site) as running:
        await all_delayed(made)
        async with broker(made.urls[0], made.prefix) as rabbit:
            await rabbit.delete_queue("retries")
        await running.until_said("queue_consumer_lost")
        await running.until_ready()
        assert await running.stop() == 0
    between = await made.account()
    assert (sum(between.waiting.values()), between.missing, between.wrong) == (COUNT, (), ())
    down.over = True
    async with worker(made.site) as running:
        await made.settle(running)
    tell(await made.account())


async def until_taken(rabbit: Broker, running: WorkerProcess) -> None:
    """Wait until the worker has begun every published event, even those whose clients must wait.

    What the broker has sent is read in the turn of the worker's loop that answers us, or before.
    """
    await until(lambda: rabbit.depths(["events"]), lambda found: not found)
    for _ in range(3):
        await running.get("/readyz")


@pytest.mark.parametrize(
    "by",
    [
        pytest.param(
            "declare",
            marks=pytest.mark.fault("broker", "the queue of events deleted, and declared again by the worker"),
        ),
        pytest.param(
            "verify", marks=pytest.mark.fault("broker", "the queue of events deleted, and declared again by hand")
        ),
    ],
)
@pytest.mark.timeout(600)
async def test_a_lane_deleted(made: Rig, by: str, form: Form[int], tell: Tell) -> None:
    """Deliveries in flight find their fate, though their messages are gone. The publisher finds no queue meanwhile."""
    times = form(1, 10)
    async with broker(made.urls[0], made.prefix) as rabbit:
        free = asyncio.Event()

        async def held(hit: Hit) -> int:
            await free.wait()
            return await judge(hit)

        made.clients.judge = held
        made.site.config["queue"]["topology"] = by
        made.site.write()
        async with worker(made.site) as running:
            for first in range(0, 100 * times, 100):
                free.set()
                await made.publisher.publish(range(first, first + 94), rate=200)
                await made.until_settled()
                await running.until_metric(0, "in_flight")
                free.clear()
                await made.publisher.publish(range(first + 94, first + 100), rate=1000)
                await until_taken(rabbit, running)
                await rabbit.delete_queue("events")
                free.set()
                if by == "verify":
                    await running.until_ready(ready=False)
                    await rabbit.declare_queue("events")
            await made.until_settled()
            await running.until_ready()
            assert await running.stop() == 0
        tell(await made.account(), times=times)
