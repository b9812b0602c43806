"""The watch of the topology: the number of workers, of announcements and consumers, and what a repair waits for."""

import asyncio
from dataclasses import dataclass

import pytest

from notifier.queues.rabbitmq.administration import COUNTED_LANE
from notifier.queues.rabbitmq.connection import RPC_TIMEOUT_SECONDS, Connection
from notifier.queues.rabbitmq.topology_watch import (
    ANNOUNCED_SECONDS,
    CHECK_INTERVAL_SECONDS,
    TopologyWatch,
    WorkerCount,
)
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
        workers.on_announcement(has_large_buckets=has_large_buckets, is_renewed=False)
        used.append(workers.may_use_large_buckets)
    now = ANNOUNCED_SECONDS
    used.append(workers.may_use_large_buckets)
    workers.has_large_buckets = False
    used.append(workers.may_use_large_buckets)
    assert used[3:] == [False, False, True, False]


@dataclass
class Group:
    """What a worker sees of a group: the count after each announcement and each check of the consumers."""

    now: float = 0.0

    def __post_init__(self) -> None:
        self.workers = WorkerCount(lambda: self.now)

    def announced(self, count: int, *, is_renewed: bool = False) -> int:
        """Return the count after another announcement."""
        self.workers.on_announcement(has_large_buckets=True, is_renewed=is_renewed)
        self.workers.on_announced(count)
        return self.workers.value

    def consumers(self, count: int) -> int:
        """Return the count after another check."""
        self.now += CHECK_INTERVAL_SECONDS
        self.workers.on_consumers(count, may_decrease=True)
        return self.workers.value


@pytest.mark.parametrize("announced", [2, 3])
def test_brief_announcements_hide_no_worker_without_a_side_channel(announced: int) -> None:
    """Of three workers, one or two announce themselves. A killed worker counts for a while beside its replacement."""
    group, values = Group(), list[int]()
    for count in (1, announced, announced + 1, 1, 1):
        group.announced(count)
        values.append(group.consumers(3))
    assert values == [3, 3, max(3, announced + 1), 3, 3]


def test_a_worker_without_a_side_channel_is_counted_after_two_checks() -> None:
    """A worker that stops is counted until the next check."""
    group = Group()
    counts = [group.announced(2), *(group.consumers(2) for _ in range(5)), *(group.consumers(3) for _ in range(2))]
    assert counts == [2, 2, 2, 2, 2, 2, 2, 3]
    assert (group.announced(1), group.consumers(2), group.consumers(1)) == (3, 2, 1)


def test_former_consumers_are_no_workers() -> None:
    """Also those of a renewal just before a check, and those that the broker still counted at the last check."""
    group = Group()
    counts = [group.announced(2), group.consumers(2), group.consumers(3), group.announced(2, is_renewed=True)]
    counts += [group.consumers(5), group.announced(2), group.consumers(2), group.announced(2), group.consumers(2)]
    assert counts == [2] * 9


def test_workers_start_and_stop_while_there_are_former_consumers() -> None:
    """Those without a side channel still count. With such a worker the counted lane is not renewed any more."""
    group, renewals = Group(), list[bool]()
    for count in (2, 3, 3):
        group.announced(2)
        group.consumers(count)
        renewals.append(group.workers.may_renew(COUNTED_LANE))
    assert renewals == [True, True, False]
    counts = [group.announced(count, is_renewed=True) for count in (2, 4, 2)]
    assert (counts, group.consumers(7)) == ([3, 5, 3], 3)
    group.now += ANNOUNCED_SECONDS
    assert (group.announced(2), group.consumers(7), group.consumers(3)) == (3, 7, 3)


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
