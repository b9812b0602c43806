"""The register on RabbitMQ: what a process that dies or freezes leaves, a lost message, and a missing queue."""

import asyncio
import time

import aiormq
import pytest
from pamqp import commands
from structlog.testing import capture_logs
from yarl import URL

from notifier.model.errors import QueueError, QueueUnavailable, TopologyMismatch
from notifier.model.pauses import NO_PAUSES, write_pauses
from notifier.model.record import copy_record
from notifier.queues.rabbitmq import register
from notifier.queues.rabbitmq.connection import channel_of, connected
from notifier.queues.rabbitmq.register import RabbitRegister
from tests.contract.broker import NamedWorkers, OpenWorker
from tests.contract.queues import Inbox, consuming, eventually
from tests.contract.test_register import pause, paused
from tests.support.rabbit_options import rabbit_options
from tests.support.topologies import declare_at_once
from tests.system.tcp_proxy import Ending, TcpProxy

LOST_SECONDS = 1.0


@pytest.fixture
def held_seconds(monkeypatch: pytest.MonkeyPatch) -> float:
    """A message that nobody has returned for so long is lost; it is 40 s otherwise."""
    monkeypatch.setattr(register, "HELD_SECONDS", LOST_SECONDS)
    return LOST_SECONDS


def process(url: str, prefix: str) -> RabbitRegister:
    """The register of another process."""
    return RabbitRegister(rabbit_options(url, prefix), lambda: None)


async def purge(url: str, prefix: str) -> None:
    """As an operator does."""
    async with await aiormq.connect(url) as connection:
        await (await connection.channel()).queue_purge(f"{prefix}.pauses")


async def test_process_that_dies_with_the_message_changes_nothing(amqp_url: str, prefix: str) -> None:
    """Before it has published: the document returns at once, for a reader that waits meanwhile."""
    first = process(amqp_url, prefix)
    await pause(first, "shop")
    async with connected(rabbit_options(amqp_url, prefix), "test") as holder:
        async with channel_of(holder) as channel:
            await channel.basic_get(f"{prefix}.pauses")
            reading = asyncio.ensure_future(first.read())
            await asyncio.wait({reading}, timeout=0.3)
            assert not reading.done()
        assert paused(await reading) == {"shop"}
    await first.close()


async def test_process_that_dies_after_its_publish_has_made_the_change(amqp_url: str, prefix: str) -> None:
    """The old message, which was not acked, does not return."""
    first, second = process(amqp_url, prefix), process(amqp_url, prefix)
    newer = await pause(process(amqp_url, prefix), "shop")
    newest = copy_record(NO_PAUSES, version=newer.version + 1)
    async with (
        connected(rabbit_options(amqp_url, prefix), "test") as holder,
        channel_of(holder, confirms=True) as channel,
    ):
        assert (await channel.basic_get(f"{prefix}.pauses")).delivery_tag
        await channel.basic_publish(write_pauses(newest), routing_key=f"{prefix}.pauses")
    assert [await first.read(), await second.read()] == [newest] * 2
    assert await first.change(lambda document: document) == newest
    await asyncio.gather(first.close(), second.close())


async def test_purged_document_is_restored(amqp_url: str, prefix: str, held_seconds: float) -> None:
    """By a process that has read it, which logs that; not before the message may be held by somebody."""
    reader = process(amqp_url, prefix)
    await pause(reader, "shop")
    await purge(amqp_url, prefix)
    began_at = time.monotonic()
    with capture_logs() as logged:
        assert paused(await reader.read()) == {"shop"}
        assert time.monotonic() - began_at >= held_seconds
        assert paused(await reader.read()) == {"shop"}
    assert [line["event"] for line in logged] == ["pauses_restored"]
    assert paused(await process(amqp_url, prefix).read()) == {"shop"}
    await reader.close()


async def test_change_after_a_purge_joins_what_others_remember(amqp_url: str, prefix: str, held_seconds: float) -> None:
    """A command starts with an empty document; a worker that finds it older than its copy writes both."""
    assert held_seconds == LOST_SECONDS
    worker = process(amqp_url, prefix)
    await pause(worker, "shop")
    await pause(worker, "crm")
    await purge(amqp_url, prefix)
    await pause(process(amqp_url, prefix), "wiki")
    assert paused(await worker.read()) == {"shop", "crm", "wiki"}
    assert paused(await process(amqp_url, prefix).read()) == {"shop", "crm", "wiki"}
    await worker.close()


async def test_read_gives_up_while_another_process_holds_the_message(
    amqp_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen one, until the broker closes its connection."""
    monkeypatch.setattr(register, "READ_SECONDS", 0.2)
    reader = process(amqp_url, prefix)
    async with connected(rabbit_options(amqp_url, prefix), "test") as holder:
        async with channel_of(holder) as channel:
            await channel.basic_get(f"{prefix}.pauses")
            with pytest.raises(QueueUnavailable, match="another process holds"):
                await reader.read()
        assert await reader.read() == NO_PAUSES
    await reader.close()


async def test_read_after_a_lost_connection_opens_another(amqp_url: str, prefix: str) -> None:
    """A pause just after the loss is read at once, not 30 s later."""
    broker = URL(amqp_url)
    async with TcpProxy(broker.host or "", broker.port or 5672) as proxy:
        reader = process(str(broker.with_host("127.0.0.1").with_port(proxy.port)), prefix)
        assert await reader.read() == NO_PAUSES
        proxy.end(Ending.RESET)
        await eventually(lambda: proxy.connections == 0)
        await pause(process(amqp_url, prefix), "shop")
        assert paused(await reader.read()) == {"shop"}
        await reader.close()


async def test_message_that_is_held_twice_is_not_lost(
    amqp_url: str, prefix: str, held_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process did not look between: it was suspended, or reads every 30 s."""
    monkeypatch.setattr(register, "READ_SECONDS", 0.2)
    reader = process(amqp_url, prefix)
    await pause(reader, "shop")
    async with connected(rabbit_options(amqp_url, prefix), "test") as holder:
        began_at = time.monotonic()
        for _ in range(2):
            async with channel_of(holder) as channel:
                await channel.basic_get(f"{prefix}.pauses")
                with pytest.raises(QueueUnavailable, match="another process holds"):
                    await reader.read()
            await asyncio.sleep(began_at + held_seconds - time.monotonic())
    assert paused(await reader.read()) == {"shop"}
    await reader.close()


async def test_worker_without_the_queue_consumes(amqp_url: str, bare_prefix: str, worker: OpenWorker) -> None:
    """With `topology: verify`, after an upgrade: the error names the command, and the declared queue is found."""
    await declare_at_once(amqp_url, bare_prefix)
    async with await aiormq.connect(amqp_url) as connection:
        await (await connection.channel()).queue_delete(f"{bare_prefix}.pauses")
    queue = await worker(Inbox(), prefix=bare_prefix, topology="verify")
    await consuming(queue)
    with pytest.raises(TopologyMismatch, match=r"pauses: declare it with `notifier topology declare`"):
        await queue.register.read()
    await declare_at_once(amqp_url, bare_prefix)
    assert await queue.register.read() == NO_PAUSES
    assert paused(await pause(queue.register, "shop")) == {"shop"}


async def test_worker_declares_the_queue_when_it_is_missing(
    amqp_url: str, bare_prefix: str, worker: OpenWorker
) -> None:
    """And restores the pauses that it has read, without waiting as if another process held them."""
    queue = await worker(Inbox(), prefix=bare_prefix)
    await consuming(queue)
    await pause(queue.register, "shop")
    async with await aiormq.connect(amqp_url) as connection:
        await (await connection.channel()).queue_delete(f"{bare_prefix}.pauses")
    with pytest.raises(TopologyMismatch):
        await queue.register.read()
    async with asyncio.timeout(10):
        while True:
            try:
                assert paused(await queue.register.read()) == {"shop"}
                break
            except QueueError:  # on 4.x also while the new queue has no leader
                await asyncio.sleep(0.05)


async def test_worker_writes_the_first_document_at_its_second_read(
    amqp_url: str, bare_prefix: str, workers: NamedWorkers
) -> None:
    """Its first delivery does not wait for a change that changes nothing. A pause that is made meanwhile is kept."""
    queue = await workers.start(rabbit_options(amqp_url, bare_prefix), b"worker", consumes=False)
    assert await queue.register.read() == NO_PAUSES
    async with await aiormq.connect(amqp_url) as connection:
        channel = await connection.channel()
        counted = [(await channel.queue_declare(f"{bare_prefix}.pauses", passive=True)).message_count]
        pausing = asyncio.ensure_future(pause(process(amqp_url, bare_prefix), "shop"))
        assert await queue.register.read() == NO_PAUSES
        await pausing
        counted.append((await channel.queue_declare(f"{bare_prefix}.pauses", passive=True)).message_count)
    assert counted == [0, 1]
    assert paused(await queue.register.read()) == {"shop"}


async def test_malformed_message_is_kept(amqp_url: str, prefix: str) -> None:
    """It may be of a later release; the pauses that were read stay in force."""
    reader = process(amqp_url, prefix)
    async with (
        connected(rabbit_options(amqp_url, prefix), "test") as connection,
        channel_of(connection, confirms=True) as channel,
    ):
        properties = commands.Basic.Properties(delivery_mode=2)
        await channel.basic_publish(b"{}", routing_key=f"{prefix}.pauses", properties=properties)
    for _ in range(2):
        with pytest.raises(QueueError, match="malformed"):
            await reader.read()
    await reader.close()
