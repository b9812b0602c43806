"""What tests on RabbitMQ share: workers, and a topology that is emptied, in a twentieth of the time of a new one."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import aiormq
from aiormq.exceptions import ChannelNotFoundEntity

from notifier.adapters.queues.rabbitmq.administration import look_around
from notifier.adapters.queues.rabbitmq.options import RabbitOptions
from notifier.adapters.queues.rabbitmq.queue import RabbitQueue
from notifier.adapters.queues.rabbitmq.topology import topology_of
from notifier.domain.message import Lane
from tests.conftest import declare_at_once
from tests.contract.queues import PATIENCE, Inbox, consuming
from tests.rabbit_options import rabbit_options
from tests.system.waiting import until

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
    """Purge each queue, those that feed others first. A purge stands behind all that the queue confirmed before."""
    found = 0
    async with await aiormq.connect(url) as connection:
        channel = await connection.channel()
        try:
            for queue in reversed(topology_of(rabbit_options(url, prefix)).queues):
                found += (await channel.queue_purge(queue.name)).message_count or 0
            for lane in Lane:
                found += (await channel.queue_declare(f"{prefix}.{lane}", passive=True)).consumer_count or 0
        except ChannelNotFoundEntity:
            await declare_at_once(url, prefix)
            return False
    return not found


class NamedWorkers:
    """Workers that say their names, and keep what they hear."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.queues: list[RabbitQueue] = []

    async def start(self, options: RabbitOptions, name: bytes) -> RabbitQueue:
        """One more of them."""
        queue = RabbitQueue(options)
        queue.side_channel.listen(lambda: name, lambda who, body: self.heard.put_nowait((who, body)))
        self.queues.append(queue)
        await queue.open()
        await asyncio.wait_for(queue.ready(), PATIENCE)
        await queue.consume(Inbox())
        await consuming(queue)
        return queue


async def until_answered(options: RabbitOptions, names: set[bytes]) -> None:
    """Ask until exactly these answer."""

    async def ask() -> set[bytes]:
        return set((await look_around(options, within=1.0)).worker_states)

    await until(ask, lambda answers: answers == names)
