"""A cluster of three nodes: a queue outlives any one of them, stands still without two, and then goes on.

Worker and publisher know all three hosts, and use the first that takes them.

A delay queue hands what is due to `retries` at least once: up to 32 messages at a time wait for the confirm. Where that
dies with a leader, the broker hands them over again only after three minutes, and until then no queue shows them. The
short form has it try again after five seconds.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from notifier.queues.rabbitmq.administration import declare_topology
from notifier.queues.rabbitmq.options import RabbitOptions
from tests.faults.conftest import Form, Record
from tests.faults.rig import FORWARDED_AGAIN, Rig, answers, rig
from tests.faults.rig import load as rig_load
from tests.support.rabbit_options import BUCKETS
from tests.support.rabbitmq_cluster import RabbitmqCluster, rabbitmq_cluster
from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

pytestmark = pytest.mark.xdist_group("cluster")  # one for all, whatever process runs them
CAUSE = "its ack died with a node"
RATE = 60  # three nodes, a worker and a publisher share two cores
PATIENCE = 90.0  # seconds until an election, or the next attempt of a worker, has brought the next delivery
HAND_OVER_AGAIN = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 5000}]}]."


@pytest.fixture(scope="module")
def cluster() -> Iterator[RabbitmqCluster]:
    """Three nodes. Every test leaves them running."""
    long = os.environ.get("NOTIFIER_TEST_FAULTS") == "long"
    with rabbitmq_cluster(advanced="[]." if long else HAND_OVER_AGAIN) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def amqp_url(cluster: RabbitmqCluster) -> str:
    """The URL by which `prefix` cleans up."""
    return cluster.urls[0]


@pytest.fixture
def prefix(bare_prefix: str) -> str:
    """Nothing stands yet: `members` declares, and waits, since nodes are killed here."""
    return bare_prefix


@pytest.fixture
async def members(cluster: RabbitmqCluster, prefix: str) -> list[RabbitmqNode]:
    """The nodes, the leader of `events` first; the queues stand and have a member on each."""
    await declare_topology(RabbitOptions(urls=tuple(cluster.urls), prefix=prefix, buckets=BUCKETS))
    leader = await leader_of(cluster, prefix)
    return [leader, *(node for node in cluster.nodes if node is not leader)]


async def leader_of(cluster: RabbitmqCluster, prefix: str) -> RabbitmqNode:
    """The node that leads `events` now."""
    return await asyncio.to_thread(cluster.leader, f"{prefix}.events")


@contextlib.asynccontextmanager
async def load(made: Rig) -> AsyncIterator[WorkerProcess]:
    """Run a worker, and publish while the block lasts. At the end, every delivery is settled and the worker stops."""
    made.clients.judge = answers(30)  # a client that fails more often has its deliveries deferred by minutes
    async with worker(made.site) as running, rig_load(made.publisher, RATE) as end:
        await more(made, 200)
        yield running
        await end()
        await made.settle(running, patience=FORWARDED_AGAIN)


async def more(made: Rig, count: int) -> None:
    """Wait until so many more deliveries were taken."""
    wanted = len(made.clients.accepted) + count
    await made.clients.until(lambda: len(made.clients.accepted) >= wanted, PATIENCE)


async def outlive(made: Rig, node: RabbitmqNode) -> None:
    """Go on while this node is dead, and once it is back."""
    await asyncio.to_thread(node.kill)
    await more(made, 200)
    await asyncio.to_thread(node.start)
    await more(made, 200)


def urls(first: RabbitmqNode, members: list[RabbitmqNode]) -> list[str]:
    """All hosts, this one first, which worker and publisher will use."""
    return [first.url, *(node.url for node in members if node is not first)]


@pytest.mark.fault("cluster", "leader of `events` killed, to which worker and publisher are connected; restarted")
@pytest.mark.timeout(600)
async def test_leader_killed_that_was_the_host(
    tmp_path: Path, cluster: RabbitmqCluster, members: list[RabbitmqNode], prefix: str, form: Form[int], record: Record
) -> None:
    """Worker and publisher go on at another host, with another leader, while the dead node is down."""
    times = form(1, 10)
    async with rig(tmp_path, urls(members[0], members), prefix) as made:
        async with load(made):
            for _ in range(times):
                await outlive(made, await leader_of(cluster, prefix))
        record(await made.account(cause=CAUSE), times=times)


@pytest.mark.parametrize(
    "host",
    [
        pytest.param(
            False,
            marks=pytest.mark.fault(
                "cluster", "two of three nodes killed, the worker's host is left; restarted one after the other"
            ),
        ),
        pytest.param(
            True,
            marks=pytest.mark.fault(
                "cluster", "two of three nodes killed, the worker's host one of them; restarted one after the other"
            ),
        ),
    ],
)
@pytest.mark.timeout(600)
async def test_two_of_three_killed(
    tmp_path: Path, members: list[RabbitmqNode], prefix: str, form: Form[int], record: Record, host: bool
) -> None:
    """One node confirms nothing and hands out nothing. With two of three, all goes on.

    If its host is left, the worker keeps its connections. Otherwise it connects to the node that is left, cannot
    consume there, and reports why.
    """
    async with rig(tmp_path, urls(members[0], members), prefix) as made:
        async with load(made) as running:
            await killed_and_restarted(
                made, members[:2] if host else members[1:], form(3, 60), running if host else None
            )
            assert host or running.logged("queue_connection_lost") == []
        record(await made.account(cause=CAUSE))


async def killed_and_restarted(
    made: Rig, nodes: list[RabbitmqNode], seconds: int, unready: WorkerProcess | None = None
) -> None:
    """Kill two of three nodes for so long. One that is back is enough to go on."""
    await asyncio.gather(*(asyncio.to_thread(node.kill) for node in nodes))

    async def still() -> bool:
        before = len(made.publisher.confirmed)
        await asyncio.sleep(1)
        return len(made.publisher.confirmed) == before

    await until(still, bool, PATIENCE)  # publishes in flight are confirmed, or fail
    confirmed = len(made.publisher.confirmed)
    await asyncio.sleep(seconds)
    assert len(made.publisher.confirmed) == confirmed
    if unready is not None:
        await until(lambda: unready.get("/readyz"), lambda answer: "needs most of its nodes" in answer[1])
    for node in nodes:
        await asyncio.to_thread(node.start)
        await more(made, 200)
