"""A broker dies or freezes under load. Nobody helps, and everything goes on once it is back."""

import asyncio
import random
import time
from pathlib import Path

import pytest

from notifier.service.run_command import CLOSE_SECONDS
from tests.faults.conftest import Form, Record
from tests.faults.rig import FORWARDED_AGAIN, answers, judge, load, rig
from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.clients import Judge
from tests.system.waiting import PATIENCE, until
from tests.system.worker_process import WorkerProcess, worker

KILLED = "acked to a broker that was killed"
GRACE = 2.0  # seconds
POSTS = 20  # that wait for a confirm
BACK = 120.0  # seconds for a worker to find a broker that boots: its pause between two tries grows to fifteen


fails_at_first = answers(1)  # so that retries are published all the time


async def killed(node: RabbitmqNode, running: WorkerProcess) -> None:
    """Cut the node's power, and give it back."""
    await asyncio.to_thread(node.kill)
    await running.until_ready(ready=False)
    await asyncio.to_thread(node.start)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            judge, marks=pytest.mark.fault("broker", "killed by SIGKILL and restarted, while events are taken")
        ),
        pytest.param(
            fails_at_first,
            marks=[
                pytest.mark.full,
                pytest.mark.fault("broker", "killed by SIGKILL and restarted, while retries are published"),
            ],
        ),
    ],
)
@pytest.mark.timeout(900)
async def test_killed_and_restarted(
    tmp_path: Path, own_node: RabbitmqNode, new_queues: str, answer: Judge, form: Form[int], chance: random.Random,
    record: Record,
) -> None:  # fmt: skip
    """Confirmed events are on its disk, and the publisher sends the others again."""
    times = form(1, 10)
    async with rig(tmp_path, own_node.url, new_queues) as made:
        made.clients.judge = answer
        async with worker(made.site) as running:
            # A client that fails every delivery once is down as long as new ones are tried: it takes some 20 a second.
            async with load(made.publisher, rate=20 if answer is fails_at_first else form(60, 150)):
                for _ in range(times):
                    await made.more(100, BACK)
                    await asyncio.sleep(chance.uniform(0, 1))
                    await killed(own_node, running)
                    await running.until_ready(patience=BACK)
            await made.settle(running, patience=FORWARDED_AGAIN)
        record(await made.account(cause=KILLED), times=times)


@pytest.mark.full
@pytest.mark.fault("broker", "frozen by SIGSTOP for 30 s, then continued")
@pytest.mark.timeout(600)
async def test_frozen(tmp_path: Path, own_node: RabbitmqNode, queues: str, form: Form[int], record: Record) -> None:
    """Its sockets stay open and silent. Messages sent meanwhile may be handled later, or never."""
    # A connection silent for three heartbeats is given up: in 7 s in the short form, and after 33 s in the long one, so
    # that it lives through.
    seconds = form(10, 30)
    url = own_node.url + ("?heartbeat=2" if seconds == 10 else "")
    async with rig(tmp_path, url, queues) as made, worker(made.site) as running:
        async with load(made.publisher, rate=60):
            await made.more(100, BACK)
            await asyncio.to_thread(own_node.freeze)
            try:
                await asyncio.sleep(seconds)
            finally:
                await asyncio.to_thread(own_node.thaw)
        await made.until_settled()
        await running.until_ready(patience=BACK)
        assert await running.stop() == 0
        record(await made.account(cause="held by a worker that the frozen broker could not reach"))


@pytest.mark.full
@pytest.mark.fault("broker", "frozen by SIGSTOP when the worker is stopped")
@pytest.mark.timeout(300)
async def test_stopped_while_it_is_frozen(tmp_path: Path, own_node: RabbitmqNode, queues: str, record: Record) -> None:
    """The worker ends in time, whatever it still writes, answers and closes. Another finishes what it held."""
    async with rig(tmp_path, own_node.url, queues) as made:
        made.site.config |= {"shutdown_grace": f"{GRACE:.0f}s", "outcomes": "all"}
        made.site.write()
        made.clients.judge = fails_at_first
        async with worker(made.site) as stopping, load(made.publisher, rate=60):
            await made.more(100, BACK)
            await asyncio.to_thread(own_node.freeze)
            before = await stopping.descriptors()
            posting = [asyncio.create_task(stopping.post(made.publisher.event(0))) for _ in range(POSTS)]
            await until(stopping.descriptors, lambda now: now >= before + POSTS, PATIENCE)
            began = time.monotonic()
            try:
                assert await stopping.stop() == 0
                assert time.monotonic() - began < GRACE + CLOSE_SECONDS + 1
            finally:
                await asyncio.to_thread(own_node.thaw)
        await asyncio.gather(*posting, return_exceptions=True)
        async with worker(made.site) as second:
            await made.settle(second)
        record(await made.account(cause="held by a worker that the frozen broker could not reach"))
