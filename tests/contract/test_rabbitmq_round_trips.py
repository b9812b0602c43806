"""How often a worker waits for a distant broker: what awaits an answer is written apart, and a proxy counts writes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp.common import FieldTable
from yarl import URL

from notifier.model.errors import TopologyMismatch
from notifier.model.message import Lane
from notifier.model.pauses import NO_PAUSES
from notifier.queues.rabbitmq.administration import declare_topology, survey_topology
from notifier.queues.rabbitmq.connection import connected, open_channel
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.queue import RabbitQueue
from notifier.queues.rabbitmq.settling import Settling
from notifier.queues.rabbitmq.topology import topology_of
from notifier.queues.rabbitmq.wire.aiormq_hooks import is_installed
from tests.contract.broker import Administrator, NamedWorkers, OpenWorker
from tests.contract.queues import PATIENCE, Inbox, consuming, eventually, outgoing, publish_until_durable
from tests.support.rabbit_options import rabbit_options
from tests.support.topologies import verify_topology
from tests.system.tcp_proxy import Ending, TcpProxy, Way

MANY_BUCKETS = 60
EXCHANGE_DECLARE, QUEUE_BIND = b"\x00\x28\x00\x0a", b"\x00\x32\x00\x14"
QUEUE_DECLARE, CLOSE_OK = b"\x00\x32\x00\x0a", b"\x00\x14\x00\x29"
CLOSED_TOGETHER = 40


@pytest.fixture
def _hooked() -> None:
    """Skip the test if aiormq's own requests are used, each of which awaits its answer."""
    if not is_installed("messages"):
        pytest.skip("without the hook each request awaits its answer")


@pytest.fixture
def written() -> list[bytes]:
    """What was written to the broker by way of the proxy."""
    return []


@pytest.fixture
async def proxy(amqp_url: str, written: list[bytes]) -> AsyncIterator[TcpProxy]:
    """A proxy before the broker."""
    broker = URL(amqp_url)
    async with TcpProxy(broker.host or "", broker.port or 5672, on_written=written.append) as proxy:
        yield proxy


@pytest.fixture
def distant_url(amqp_url: str, proxy: TcpProxy) -> str:
    """The broker, by way of the proxy."""
    return str(URL(amqp_url).with_host("127.0.0.1").with_port(proxy.port))


@pytest.mark.usefixtures("_hooked")
async def test_queues_are_declared_and_counted_together(
    distant_url: str, bare_prefix: str, written: list[bytes]
) -> None:
    """86 queues, one after the other, took a start 67 s where each answer took 0.2 s."""
    options = rabbit_options(distant_url, bare_prefix, buckets=MANY_BUCKETS)

    async def write_count(request: Callable[[RabbitOptions], Awaitable[object]]) -> int:
        written.clear()
        await request(options)
        return len(written)

    async def declare(options: RabbitOptions) -> None:
        await declare_topology(options, Settling(seconds=0))

    counts = [await write_count(request) for request in (declare, declare, survey_topology, verify_topology)]
    queue = RabbitQueue(options)
    counts.append(await write_count(lambda _: queue.read_overview(0)))
    assert max(counts) < len(topology_of(options).queues)


@pytest.mark.usefixtures("_hooked")
async def test_exchange_is_bound_by_the_write_that_declares_it(
    distant_url: str, bare_prefix: str, written: list[bytes]
) -> None:
    """An event for an exchange without a queue is returned, or lost if its publisher did not ask for that."""
    await declare_topology(rabbit_options(distant_url, bare_prefix))
    for lane in (Lane.EVENTS, Lane.BULK):
        name = f"{bare_prefix}.{lane}".encode()
        [piece] = [piece for piece in written if EXCHANGE_DECLARE in piece and b"topic" in piece and name in piece]
        assert QUEUE_BIND in piece.partition(name)[2]


async def test_reconnected_worker_consumes_before_it_declares(
    worker: OpenWorker, administrator: Administrator, bare_prefix: str, proxy: TcpProxy, distant_url: str
) -> None:
    """It has declared before. A queue that differs now is a problem to report, but delays no event."""
    inbox, name = Inbox(), f"{bare_prefix}.delay.64s"
    queue = await worker(inbox, urls=(distant_url,), prefix=bare_prefix)
    proxy.refuse()
    proxy.end(Ending.RESET)
    await administrator.queue_delete(name)
    await administrator.declare_queue(name, durable=True)
    await proxy.accept()
    await publish_until_durable(queue, Lane.EVENTS, outgoing("a"))
    assert (await inbox.next()).message_id == "a"
    await eventually(lambda: name in (queue.status().problem or ""))
    assert queue.status().consuming


async def test_queue_deleted_during_a_cut_is_declared_before_it_is_consumed(
    worker: OpenWorker, administrator: Administrator, bare_prefix: str, proxy: TcpProxy, distant_url: str
) -> None:
    """With its binding: events published afterwards arrive."""
    inbox = Inbox()
    queue = await worker(inbox, urls=(distant_url,), prefix=bare_prefix)
    proxy.refuse()
    proxy.end(Ending.RESET)
    for lane in Lane:
        await administrator.queue_delete(f"{bare_prefix}.{lane}")
    await proxy.accept()
    await eventually(lambda: queue.status().consuming)
    await queue.send_event(Lane.EVENTS, b"{}", message_id="a")
    assert (await inbox.next()).message_id == "a"
    assert (await consuming(queue)).problem is None


async def test_worker_connects_for_the_pauses_before_it_reads_them(
    workers: NamedWorkers, bare_prefix: str, proxy: TcpProxy, distant_url: str
) -> None:
    """At the start beside the declares, and after a cut: a delivery does not wait for a third connection."""
    queue = await workers.start(rabbit_options(distant_url, bare_prefix), b"worker", consumes=False)
    await proxy.until_made(3, PATIENCE)
    assert await queue.register.read() == NO_PAUSES
    assert proxy.made == 3
    await queue.register.read()  # the second one writes the first document, by another connection
    expected = proxy.made + 3
    proxy.end(Ending.RESET)
    await proxy.until_made(expected, PATIENCE)
    await queue.register.read()
    assert proxy.made == expected
    await asyncio.wait_for(queue.wait_until_ready(), PATIENCE)


async def test_all_differences_on_one_channel_are_named(
    administrator: Administrator, amqp_url: str, bare_prefix: str
) -> None:
    """The broker closes the channel at each, and does not handle what was written after it."""
    options = rabbit_options(amqp_url, bare_prefix)
    different = topology_of(options).queues[1::8]
    for queue in different:
        arguments: FieldTable = {**queue.arguments, "x-delivery-limit": 5}
        await administrator.declare_queue(queue.name, durable=True, arguments=arguments)
    with pytest.raises(TopologyMismatch) as caught:
        await declare_topology(options)
    assert all(f"queue {queue.name}: argument x-delivery-limit is '5'" in str(caught.value) for queue in different)
    states = await survey_topology(options)
    assert {each.name for each in states if each.difference} == {queue.name for queue in different}
    assert not any(each.missing for each in states)


async def test_every_closed_channel_is_confirmed(distant_url: str, proxy: TcpProxy, written: list[bytes]) -> None:
    """Many channels may end at once. Without the confirmation the broker keeps the unacked messages of a channel."""
    async with connected(rabbit_options(distant_url), "test") as connection:
        channels = [await open_channel(connection) for _ in range(CLOSED_TOGETHER)]
        proxy.stall(Way.DOWN)
        written.clear()
        asking = [asyncio.ensure_future(channel.queue_declare("none", passive=True)) for channel in channels]
        await eventually(lambda: b"".join(written).count(QUEUE_DECLARE) == CLOSED_TOGETHER)
        proxy.flow()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(answer) for answer in answers} == {ChannelNotFoundEntity}
        await eventually(lambda: b"".join(written).count(CLOSE_OK) == CLOSED_TOGETHER)
