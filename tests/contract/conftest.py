"""The places where a queue can live: each contract test runs on both, a RabbitMQ test on its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from notifier.adapters.queues.rabbitmq.queue import RabbitQueue
from notifier.adapters.queues.sqlite import SqliteOptions, SqliteQueue
from notifier.operations.queue_port import Queue
from tests.contract.queues import Place
from tests.rabbit_options import rabbit_options


def rabbit(amqp_url: str, prefix: str) -> Place:
    """A prefix on the test's broker."""
    return Place(lambda prefetch: RabbitQueue(rabbit_options(amqp_url, prefix, prefetch=prefetch)))


@pytest.fixture(params=["sqlite", "rabbitmq"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A file or a prefix. RabbitMQ is started only if it is asked for."""
    if request.param == "sqlite":
        return Place(lambda prefetch: SqliteQueue(SqliteOptions(path=tmp_path / "queue.db", prefetch=prefetch)))
    return rabbit(request.getfixturevalue("amqp_url"), request.getfixturevalue("prefix"))


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
