"""What tests on RabbitMQ share: workers, and a topology that is emptied, in a twentieth of the time of a new one."""

import asyncio
import datetime as dt
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import aio_pika.abc
import aiormq
from aiormq.abc import ChannelFrame
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from notifier.model.message import Lane
from notifier.operators.status.worker_presence import WorkerPresence
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.queue import RabbitQueue
from notifier.queues.rabbitmq.register import RabbitRegister
from notifier.queues.rabbitmq.topology import topology_of
from tests.contract.queues import PATIENCE, Inbox, consuming
from tests.support.rabbit_options import rabbit_options
from tests.support.topologies import declare_at_once
from tests.system.waiting import until

Administrator = aio_pika.abc.AbstractChannel
OpenWorker = Callable[..., Awaitable[RabbitQueue]]
"""Opens a worker's queue; with an inbox it consumes. Other options are those of `RabbitOptions`."""


def emptied(url: str, prefix: str) -> str:
    """This prefix, under which every queue stands, holds nothing and is consumed by nobody."""
    with ThreadPoolExecutor(1) as pool:  # its caller may run in a loop
        pool.submit(asyncio.run, _empty(url, prefix)).result()
    return prefix


async def _empty(url: str, prefix: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await _was_empty(url, prefix):
            pass


async def _was_empty(url: str, prefix: str) -> bool:
    """Purge each queue but the register, upstream queues first. Return True if none had a message or a consumer.

    A purge follows everything that the queue confirmed before. The register gets its first document again.
    """
    found = 0
    async with await aiormq.connect(url) as connection:
        channel = await connection.channel()
        try:
            register, *queues = reversed(topology_of(rabbit_options(url, prefix)).queues)
            await channel.queue_purge(register.name)
            for queue in queues:
                found += (await channel.queue_purge(queue.name)).message_count or 0
            for lane in Lane:
                found += (await channel.queue_declare(f"{prefix}.{lane}", passive=True)).consumer_count or 0
        except ChannelNotFoundEntity:
            await declare_at_once(url, prefix)
            return False
    await fill_register(url, prefix)
    return not found


async def fill_register(url: str, prefix: str) -> None:
    """Write the first document into the empty queue of pauses, as its declarer does."""
    await RabbitRegister(rabbit_options(url, prefix), is_new=True).change(lambda document: document)


@asynccontextmanager
async def messages_held(url: str, queue: str, count: int) -> AsyncIterator[None]:
    """In the block, a cancelled consumer holds this many messages, as after the end of a pass that was killed."""
    async with await aiormq.connect(url) as connection:
        channel, taken = await connection.channel(), asyncio.Semaphore(0)

        async def take(_message: object) -> None:
            taken.release()

        await channel.basic_qos(prefetch_count=count)
        consumer = await channel.basic_consume(queue, take)
        for _ in range(count):
            await asyncio.wait_for(taken.acquire(), PATIENCE)
        await channel.basic_cancel(consumer.consumer_tag or "")
        yield


async def publish_undecodable(administrator: Administrator, exchange: str, message_id: bytes) -> None:
    """An event with a timestamp in microseconds and such an id, of five bytes: pamqp would encode neither.

    Placeholders are replaced on their way to the socket. Returns once the broker has it.
    """
    channel = await administrator.get_underlay_channel()
    properties = commands.Basic.Properties(message_id="#" * 5, timestamp=dt.datetime.fromtimestamp(123_456, tz=dt.UTC))
    publish = ChannelFrame.marshall(
        channel_number=channel.number,
        frames=[
            commands.Basic.Publish(exchange=exchange, routing_key="any"),
            ContentHeader(body_size=2, properties=properties),
            ContentBody(b"{}"),
        ],
    )
    payload = publish.payload.replace(b"#" * 5, message_id)
    payload = payload.replace((123_456).to_bytes(8), (1_767_225_600_000_000).to_bytes(8))
    await channel.connection.write_queue.put(ChannelFrame(payload=payload, should_close=False))
    await administrator.get_exchange(exchange)


class NamedWorkers:
    """Workers that report their names, send their `news` with it, and record the news they receive."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.news: defaultdict[bytes, asyncio.Queue[bytes]] = defaultdict(asyncio.Queue)
        self.received_reports: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
        self.queues: list[RabbitQueue] = []

    async def start(
        self, options: RabbitOptions, name: bytes, *, announces: bool = False, consumes: bool = True
    ) -> RabbitQueue:
        """Start and return a worker that reports this name as its state, and with `announces` its presence."""
        queue = RabbitQueue(options)
        queue.side_channel.listen(lambda: name, lambda who, body: self.received.put_nowait((who, body)))
        queue.side_channel.share_updates(
            self.news[name].get, lambda body: self.received_reports.put_nowait((name, body))
        )
        if announces:
            presence = WorkerPresence(name.decode(), f"id-{name.decode()}", time.time, time.monotonic)
            queue.side_channel.share_presence(presence)
        self.queues.append(queue)
        await queue.open()
        await asyncio.wait_for(queue.wait_until_ready(), PATIENCE)
        if not consumes:
            return queue
        await queue.consume(Inbox())
        await consuming(queue)
        return queue


async def until_answered(options: RabbitOptions, names: set[bytes]) -> None:
    """Request the states of workers until exactly these answer."""

    async def ask() -> set[bytes]:
        return set((await RabbitQueue(options).read_overview(within=1.0)).worker_states)

    await until(ask, lambda answers: answers == names)
