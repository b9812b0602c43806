"""The places where a queue can live: each contract test runs on both, a RabbitMQ test on its own.

A topology takes a broker half a second to declare and as long to delete. So one stands for all tests of a process:
each test gets it whole and empty.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from notifier.queues.queue_port import Queue
from notifier.queues.rabbitmq import settling
from notifier.queues.rabbitmq.queue import RabbitQueue
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from tests.contract.broker import Administrator, NamedWorkers, OpenWorker, emptied
from tests.contract.queues import PATIENCE, Inbox, Place, consuming
from tests.support.rabbit_options import rabbit_options
from tests.support.topologies import clear_topology


@pytest.fixture(autouse=True)
def _soon_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is declared again is used at once: nobody kills the broker in the next second."""
    monkeypatch.setattr(settling, "SETTLE_SECONDS", 0.05)


@pytest.fixture(scope="session")
def standing_prefix(amqp_url: str) -> Iterator[str]:
    """The prefix of the topology that the tests of this process share."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, clear_topology(amqp_url, name)).result()


@pytest.fixture
def prefix(amqp_url: str, standing_prefix: str) -> str:
    """A prefix whose queues stand, and are empty. Who leaves more behind than messages takes `bare_prefix`."""
    return emptied(amqp_url, standing_prefix)


@pytest.fixture(params=["sqlite", "rabbitmq"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A file or a prefix. RabbitMQ is started only if it is asked for."""
    if request.param == "sqlite":
        return Place(lambda prefetch: SqliteQueue(SqliteOptions(path=tmp_path / "queue.db", prefetch=prefetch)))
    return rabbit(request.getfixturevalue("amqp_url"), request.getfixturevalue("prefix"))


def rabbit(amqp_url: str, prefix: str) -> Place:
    """A prefix on the test's broker."""
    return Place(lambda prefetch: RabbitQueue(rabbit_options(amqp_url, prefix, prefetch=prefetch)))


@pytest.fixture
async def place(new_place: Place) -> AsyncIterator[Place]:
    """One of the two places. At the end every queue there is closed."""
    yield new_place
    await new_place.leave()


@pytest.fixture
async def rabbit_place(amqp_url: str, prefix: str) -> AsyncIterator[Place]:
    """A place on RabbitMQ. At the end every queue there is closed."""
    made = rabbit(amqp_url, prefix)
    yield made
    await made.leave()


@pytest.fixture
async def queue(place: Place) -> Queue:
    """A queue that nobody consumes."""
    return await place.open()


@pytest.fixture
async def worker(amqp_url: str, prefix: str) -> AsyncIterator[OpenWorker]:
    """Opens queues on RabbitMQ as workers do; closed at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(inbox: Inbox | None = None, **options: Any) -> RabbitQueue:
            queue = RabbitQueue(rabbit_options(amqp_url, **{"prefix": prefix, **options}))
            stack.push_async_callback(queue.close)
            await queue.open()
            await asyncio.wait_for(queue.wait_until_ready(), PATIENCE)
            if inbox is not None:
                await queue.consume(inbox)
                await consuming(queue)
            return queue

        yield open_one


@pytest.fixture
async def workers() -> AsyncIterator[NamedWorkers]:
    """See `NamedWorkers`."""
    made = NamedWorkers()
    yield made
    for queue in made.queues:
        await queue.close()


@pytest.fixture
async def administrator(amqp_url: str) -> AsyncIterator[Administrator]:
    """Somebody else on the same broker."""
    async with await aio_pika.connect(amqp_url) as connection:
        yield await connection.channel(on_return_raises=True)
