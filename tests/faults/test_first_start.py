"""A power cut just after queues were created: the broker must find them again, with what it has confirmed.

What is held here is a trap of RabbitMQ: see notifier/queues/rabbitmq/settling.py.
"""

import asyncio
import signal
from pathlib import Path

import aio_pika
import pytest

from notifier.queues.rabbitmq.topology import topology_of
from tests.faults.conftest import Form, Record
from tests.faults.rig import FORWARDED_AGAIN, judge, rig
from tests.support.rabbit_options import rabbit_options
from tests.support.rabbitmq_node import RabbitmqNode
from tests.support.topologies import declare_at_once
from tests.system.broker import broker
from tests.system.clients import Hit
from tests.system.worker_process import worker

EVENTS = 20  # at each power cut
ANSWERS_WITHIN = 10.0  # seconds; a queue without a leader answers after 65


async def too_slow(hit: Hit) -> int:
    """No client has taken a thing when the power goes."""
    await asyncio.sleep(3)
    return 503


async def until_each_answers(url: str, prefix: str) -> None:
    """Request a message from each queue. Without a leader a queue does not even report that it is empty."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for spec in topology_of(rabbit_options(url, prefix)).queues:
            queue = await channel.get_queue(spec.name, ensure=False)
            async with asyncio.timeout(ANSWERS_WITHIN):
                await queue.get(fail=False)


@pytest.mark.fault(
    "broker", "killed by SIGKILL with its worker, as soon as queues that were created have confirmed events"
)
@pytest.mark.timeout(900)
async def test_killed_as_soon_as_it_is_ready(
    tmp_path: Path, own_node: RabbitmqNode, new_queues: str, form: Form[int], record: Record
) -> None:
    """At the first start of all, then at starts that find `events` missing, so that it is the queue created last."""
    times = form(2, 10)
    async with rig(tmp_path, own_node.url, new_queues) as made:
        for nth in range(times):
            if nth:
                async with broker(own_node.url, new_queues) as rabbit:
                    await rabbit.delete_queue("events")
            made.clients.judge = too_slow
            async with worker(made.site) as running:
                await made.publisher.publish(range(nth * EVENTS, (nth + 1) * EVENTS), rate=1000)
                running.send(signal.SIGKILL)
                await asyncio.to_thread(own_node.kill)
            await asyncio.to_thread(own_node.start)
            made.clients.judge = judge
            async with worker(made.site) as running:
                assert not running.logged("queues_new")
                await made.settle(running, patience=FORWARDED_AGAIN)
        await until_each_answers(own_node.url, new_queues)
        record(await made.account(cause="held by a worker that was killed"), times=times)


async def test_confirmed_events_are_lost_without_the_settling_wait(own_node: RabbitmqNode, new_queues: str) -> None:
    """The trap itself. Once this fails, RabbitMQ has closed it, and nobody need wait for new queues any more."""
    await declare_at_once(own_node.url, new_queues)
    async with broker(own_node.url, new_queues) as rabbit:
        await rabbit.delete_queue("events")
        await rabbit.declare_queue("events")
        await rabbit.publish({"id": "1"})
        assert await rabbit.depths(["events"]) == {"events": 1}
        await asyncio.to_thread(own_node.kill)
    await asyncio.to_thread(own_node.start)
    async with broker(own_node.url, new_queues) as rabbit:
        assert await rabbit.depths(["events"]) == {}
