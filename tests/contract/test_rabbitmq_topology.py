"""The topology: its declarations, the errors found in it, and their texts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pamqp.common import FieldTable

from notifier.model.errors import TopologyMismatch
from notifier.model.message import Lane
from notifier.queues.rabbitmq.administration import declare_topology, delete_topology, survey_topology
from notifier.queues.rabbitmq.delays import HOP_SECONDS
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.queue import RabbitQueue
from notifier.queues.rabbitmq.settling import Settling
from notifier.queues.rabbitmq.topology import topology_of
from notifier.service.watches import list_queue_troubles
from tests.contract.broker import Administrator, OpenWorker
from tests.contract.queues import PATIENCE, Inbox, consuming, outgoing, ready
from tests.support.rabbit_options import BUCKETS, rabbit_options
from tests.support.topologies import verify_topology


@pytest.fixture
def options(amqp_url: str, bare_prefix: str) -> RabbitOptions:
    """This test's own corner of the broker."""
    return rabbit_options(amqp_url, bare_prefix)


@asynccontextmanager
async def opened(options: RabbitOptions) -> AsyncIterator[RabbitQueue]:
    """A worker's queue, which may never be ready."""
    queue = RabbitQueue(options)
    await queue.open()
    yield queue
    await queue.close()


def test_every_queue_is_quorum_with_a_finite_limit() -> None:
    """No `x-delivery-limit` means 20 on 4.x, and -1 drops at the first requeue on 3.10: it is given, and positive."""
    topology = topology_of(RabbitOptions(urls=("amqp://host/",)))
    assert len(topology.queues) == 1 + len(Lane) + len(HOP_SECONDS) + 64 + 16 + 1
    for queue in topology.queues:
        limit = queue.arguments["x-delivery-limit"]
        assert isinstance(limit, int)
        assert 0 < limit < 2**31
        assert queue.arguments["x-queue-type"] == "quorum"
        if queue.name not in ("notifier.dead", "notifier.pauses"):
            assert queue.arguments["x-dead-letter-strategy"] == "at-least-once"
            assert queue.arguments["x-overflow"] == "reject-publish"


def test_delays_are_one_constant_each() -> None:
    """Queue `delay.Ns` holds N seconds and hands on to `retries`, as a bucket does; each lane hands on to `dead`."""
    queues = {queue.name: queue.arguments for queue in topology_of(rabbit_options("amqp://host/", "p")).queues}
    for number in range(BUCKETS):
        assert queues[f"p.parked-{number:02d}.delay.1024s"] == queues["p.delay.1024s"]
    for hop in HOP_SECONDS:
        assert queues[f"p.delay.{hop}s"]["x-message-ttl"] == hop * 1000
        assert queues[f"p.delay.{hop}s"]["x-dead-letter-routing-key"] == "p.retries"
    for lane in Lane:
        assert queues[f"p.{lane}"]["x-dead-letter-routing-key"] == "p.dead"
        assert queues[f"p.{lane}"]["x-delivery-limit"] == 100


async def test_publishers_reach_no_queue_that_is_new(options: RabbitOptions) -> None:
    """The exchanges are declared only when the queues are safe (reason: `tests/faults/test_first_start.py`)."""
    waiting = asyncio.Event()
    settling = Settling(lambda _names, _seconds: waiting.set(), seconds=1)
    declaring = asyncio.create_task(declare_topology(options, settling))
    await asyncio.wait_for(waiting.wait(), PATIENCE)
    assert {each.what for each in await survey_topology(options) if each.missing} == {"exchange"}
    await declaring
    assert not any(each.missing for each in await survey_topology(options))


async def test_topology_mismatch_is_named(options: RabbitOptions, administrator: Administrator) -> None:
    """A queue or an exchange, with its name, the argument, both values and the way out."""
    name = f"{options.prefix}.events"
    arguments: FieldTable = {**topology_of(options).queues[1].arguments, "x-delivery-limit": 5}
    await administrator.declare_queue(name, durable=True, arguments=arguments)
    await administrator.declare_exchange(f"{options.prefix}.bulk", "fanout", durable=True)
    with pytest.raises(TopologyMismatch, match=rf"exchange {options.prefix}\.bulk: argument type is 'fanout'.*'topic'"):
        await declare_topology(options)
    for check in (declare_topology, verify_topology):
        with pytest.raises(TopologyMismatch) as caught:
            await check(options)
        text = str(caught.value)
        assert f"queue {name}: argument x-delivery-limit is '5', but should be '100'" in text
        assert "queue.prefix" in text
        assert "topology delete" in text


async def test_worker_reports_a_topology_mismatch(options: RabbitOptions, administrator: Administrator) -> None:
    """A mismatch is raised at the start and shown in the status; after its repair the worker continues by itself."""
    await administrator.declare_queue(f"{options.prefix}.bulk", durable=True)  # a classic queue
    async with opened(options) as queue:
        with pytest.raises(TopologyMismatch, match=rf"{options.prefix}\.bulk: argument .* is none, but should be '"):
            await asyncio.wait_for(queue.wait_until_ready(), PATIENCE)
        assert not queue.status().connected
        assert f"{options.prefix}.bulk" in (queue.status().problem or "")
        await administrator.queue_delete(f"{options.prefix}.bulk")
        await queue.consume(Inbox())
        assert (await consuming(queue)).problem is None


async def test_verify_declares_nothing(options: RabbitOptions) -> None:
    """With `topology: verify` everything missing is named, at once, and left missing.

    Declared, once or twice, it verifies.
    """
    for _ in range(2):
        with pytest.raises(TopologyMismatch) as caught:
            await verify_topology(options)
        for name in ("events", "retries", "bulk", "dead", "delay.1s", "delay.65536s", "outcomes"):
            assert f"{options.prefix}.{name}" in str(caught.value)
        assert f"{options.prefix}.parked-00.delay.1024s and 1 more bucket" in str(caught.value)
        assert "topology declare" in str(caught.value)
    for _ in range(2):
        await declare_topology(options)
        await verify_topology(options)


async def test_verify_continues_once_declared(options: RabbitOptions, amqp_url: str) -> None:
    """A worker with `topology: verify` waits, and starts when somebody has declared."""
    async with opened(rabbit_options(amqp_url, options.prefix, topology="verify")) as queue:
        with pytest.raises(TopologyMismatch):
            await asyncio.wait_for(queue.wait_until_ready(), PATIENCE)
        await declare_topology(options)
        await queue.consume(Inbox())
        await consuming(queue)


async def test_large_buckets_may_be_missing(
    options: RabbitOptions, amqp_url: str, administrator: Administrator
) -> None:
    """With `topology: verify` after an update. A worker uses the others, and asks the broker for no missing queue."""
    await declare_topology(options)
    shop, large = ("https://id.example.com", "shop"), f"{options.prefix}.parked-large-00.delay.1024s"
    await administrator.queue_delete(large)
    async with opened(rabbit_options(amqp_url, options.prefix, topology="verify")) as queue:
        await asyncio.wait_for(queue.wait_until_ready(), PATIENCE)
        await queue.consume(Inbox())
        status = await consuming(queue)
        assert (status.problem, status.lacks_large_buckets) == (None, True)
        [trouble] = list_queue_troubles(status)
        assert (trouble.mild, "`notifier topology declare`" in trouble.text) == (True, True)
        assert queue.bucket(shop, large=True) == queue.bucket(shop)
        assert not any("large" in bucket for bucket in queue.inherited_buckets(at_start=True))
        assert queue.inherited_buckets(at_start=False) == ()
        assert (await queue.examine()).missing == (f"queue {large}",)
    assert [state.name for state in await survey_topology(options) if state.missing] == [large]


async def test_delete_takes_messages_and_leaves_the_connection(options: RabbitOptions) -> None:
    """Deleting returns the number of messages. It never uses `if-empty`, which closes the
    connection on quorum queues.
    """
    async with opened(options) as queue:
        await queue.wait_until_ready()
        await queue.publish("dead", outgoing("a"))
        await ready(queue, "dead", 1)
    lost = await delete_topology(options)
    assert lost[f"{options.prefix}.dead"] == 1
    assert set(await delete_topology(options)) == set(lost)  # a missing queue is not an error


async def test_the_prefix_is_honoured(worker: OpenWorker, bare_prefix: str) -> None:
    """Two prefixes are two systems: an event of one never meets the other."""
    inboxes = Inbox(), Inbox()
    for queue, name in ((await worker(inboxes[0]), "a"), (await worker(inboxes[1], prefix=bare_prefix), "b")):
        await queue.send_event(Lane.EVENTS, b"{}", message_id=name)
    assert [(await inbox.next()).message_id for inbox in inboxes] == ["a", "b"]
    assert all(inbox.empty() for inbox in inboxes)
