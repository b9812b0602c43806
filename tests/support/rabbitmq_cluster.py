"""A RabbitMQ cluster for tests: nodes on this machine with one epmd and one cookie, which can be killed one by one.

Its quorum queues have a member on each of the three. It boots in about 15 s on an idle machine with two cores.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.rabbitmq_installation import find_installation
from tests.support.rabbitmq_node import RabbitmqNode


class RabbitmqCluster:
    """The cluster's nodes. `rabbitmq_cluster` creates them."""

    def __init__(self, nodes: tuple[RabbitmqNode, ...]) -> None:
        self.nodes = nodes

    @property
    def urls(self) -> list[str]:
        """Return the URL of each node."""
        return [node.url for node in self.nodes]

    def start(self) -> None:
        """Start each stopped node, and return once all accept connections."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(RabbitmqNode.start, [node for node in self.nodes if not node.running]))

    def leader(self, queue: str) -> RabbitmqNode:
        """Return the leader of that queue. It blocks for about a second, as `ctl` does."""
        asked = next(node for node in self.nodes if node.running)
        listed = dict(line.split("\t") for line in asked.ctl("list_queues", "name", "leader").splitlines())
        return next(node for node in self.nodes if node.name == listed[queue])

    def stop(self) -> None:
        """Stop all nodes, the first one last because the others use its epmd."""
        for node in reversed(self.nodes):
            node.kill()
        for node in reversed(self.nodes):
            node.stop()


@contextlib.contextmanager
def rabbitmq_cluster(*, advanced: str = "[].", count: int = 3) -> Iterator[RabbitmqCluster]:
    """Run a cluster; delete all its data at the end. Raise RabbitmqMissing."""
    installation = find_installation()
    with contextlib.ExitStack() as stack:
        homes = [
            Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="notifier-rabbitmq-", ignore_cleanup_errors=True)
                )
            )
            for _ in range(count)
        ]
        first = RabbitmqNode(homes[0], installation, advanced=advanced)
        others = [RabbitmqNode(home, installation, beside=first, advanced=advanced) for home in homes[1:]]
        cluster = RabbitmqCluster((first, *others))
        stack.callback(cluster.stop)
        first.start()
        cluster.start()
        yield cluster
