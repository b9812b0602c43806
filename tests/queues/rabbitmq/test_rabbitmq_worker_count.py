"""The watch of the topology: the number of workers, of announcements and consumers, and what a repair waits for."""

import asyncio

import pytest

from notifier.queues.rabbitmq.connection import RPC_TIMEOUT_SECONDS, Connection
from notifier.queues.rabbitmq.topology_watch import ANNOUNCED_SECONDS, TopologyWatch, WorkerCount
from tests.simulator.virtual_time import VirtualLoop
from tests.support.rabbit_options import rabbit_options


def test_large_buckets_are_used_again_when_older_workers_are_gone() -> None:
    """They announce themselves every five seconds; a killed one announces no stop. Unannounced workers do not count."""
    now = 0.0
    workers = WorkerCount(lambda: now)
    used = [workers.may_use_large_buckets]
    workers.on_consumers(2, may_decrease=True)
    used.append(workers.may_use_large_buckets)
    workers.on_announced(2)
    used.append(workers.may_use_large_buckets)
    assert used == [True, False, True]
    for has_large_buckets in (False, True):
        workers.on_announcement(has_large_buckets=has_large_buckets)
        used.append(workers.may_use_large_buckets)
    now = ANNOUNCED_SECONDS
    used.append(workers.may_use_large_buckets)
    workers.has_large_buckets = False
    used.append(workers.may_use_large_buckets)
    assert used[3:] == [False, False, True, False]


@pytest.mark.parametrize("announced", [2, 3])
def test_brief_announcements_hide_no_worker_without_a_side_channel(announced: int) -> None:
    """Of three workers, one or two announce themselves. A killed worker counts for a while beside its replacement."""
    workers, values = WorkerCount(), list[int]()
    for count in (1, announced, announced + 1, 1, 1):
        workers.on_announced(count)
        workers.on_consumers(3, may_decrease=True)
        values.append(workers.value)
    assert values == [3, 3, max(3, announced + 1), 3, 3]
    assert not workers.by_presence


@pytest.mark.parametrize("established", [False, True])
def test_a_repair_waits_briefly_for_the_publishing_connection(*, established: bool) -> None:
    """A start waits until it is there, since its test comes before the first declare."""

    async def wait() -> float:
        async def get_connection() -> Connection:
            await asyncio.sleep(3600)
            raise AssertionError("too late")

        watch = TopologyWatch(rabbit_options("amqp://host/"), get_connection, WorkerCount())
        watch._established = established
        try:
            await watch._try_expiry()
        except AssertionError:
            assert not established
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(wait()) == (RPC_TIMEOUT_SECONDS if established else 3600)
