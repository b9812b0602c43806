"""Move to another broker by shovels, as in docs/kubernetes.md: all messages of the old broker arrive once.

Two virtual hosts of one node are the two brokers.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Record
from tests.faults.rig import CLIENTS, rig
from tests.support.rabbitmq_node import RabbitmqNode, rabbitmq_node
from tests.system.broker import broker
from tests.system.publisher import Publisher
from tests.system.waiting import until
from tests.system.worker_process import worker

PREFIX = "notifier"
USER, PASSWORD = "mover", "a-password"


class TwoBrokers:
    """A node with two virtual hosts: the old broker and the new."""

    def __init__(self, node: RabbitmqNode) -> None:
        self._node = node
        self.old, self.new = f"{node.url}old", f"{node.url}new"
        for vhost in ("old", "new"):
            node.ctl("add_vhost", vhost)
            node.ctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
        node.ctl("add_user", USER, PASSWORD)
        node.ctl("set_user_tags", USER, "impersonator")  # messages keep the user_id of who published them
        node.ctl("set_permissions", "-p", "new", USER, "^$", ".*", ".*")

    def shovel(self, queue: str) -> None:
        """Set up one shovel as an operator does. Delayed messages go to `retries`."""
        value = {
            "src-protocol": "amqp091",
            "src-uri": "amqp:///old",
            "src-queue": queue,
            "dest-protocol": "amqp091",
            "dest-uri": f"amqp://{USER}:{PASSWORD}@127.0.0.1:{self._node.port}/new",
            "dest-queue": f"{PREFIX}.retries" if ".delay." in queue else queue,
            "ack-mode": "on-confirm",
        }
        self._node.ctl("set_parameter", "-p", "old", "shovel", f"move-{queue}", json.dumps(value))


@pytest.fixture
def two_brokers() -> Iterator[TwoBrokers]:
    """The two brokers, on a node with the shovel plugin."""
    with rabbitmq_node(plugins=["rabbitmq_shovel"]) as node:
        yield TwoBrokers(node)


@pytest.mark.timeout(600)
async def test_moved_by_shovels(tmp_path: Path, two_brokers: TwoBrokers, record: Record) -> None:
    """Fresh events (some with `user_id`), delayed retries and dead letters are all moved."""
    async with rig(tmp_path, two_brokers.old, PREFIX) as made:
        made.site.config["delivery"]["retry"] = {"base": "16s", "max_delay": "16s"}
        made.site.write()
        async with worker(made.site) as leaving:
            await made.publisher.publish(range(150), rate=500)
            await made.clients.until(lambda: len(made.clients.hits) >= 150 * len(CLIENTS))
            assert await leaving.stop() == 0
        await made.publisher.publish(range(150, 250), rate=500)  # nobody takes them
        async with broker(two_brokers.old, PREFIX) as old:
            for number in range(250, 260):
                await old.publish(made.publisher.event(number), user_id="guest")
                made.publisher.confirmed[str(number)] = CLIENTS
            waiting = await old.depths()
            assert waiting["events"] == 110
            assert waiting["dead"] == 22
            assert any(name.startswith("delay.") for name in waiting)

            moved, made.urls = Publisher([two_brokers.new], PREFIX, CLIENTS), [two_brokers.new]
            moved.confirmed.update(made.publisher.confirmed)
            await made.publisher.close()
            made.publisher = moved
            made.site.config["queue"]["url"] = two_brokers.new
            made.site.write()
            async with worker(made.site) as staying:
                for name in {*waiting, "retries"}:
                    await asyncio.to_thread(two_brokers.shovel, f"{PREFIX}.{name}")
                await moved.publish(range(260, 300), rate=500)
                await until(old.depths, lambda left: left == {}, patience=120)
                await made.settle(staying)
        record(await made.account(), once=True)
