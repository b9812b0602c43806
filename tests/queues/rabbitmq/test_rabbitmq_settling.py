"""What is too new to be used, and until when."""

from collections.abc import Sequence
from uuid import uuid4

import pytest

from notifier.model.errors import QueueError, QueueUnavailable
from notifier.queues.rabbitmq.connection import connected
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.settling import NEW_QUEUES_PROBLEM, Settling
from notifier.queues.rabbitmq.topology import QueueSpec, Topology, declare


class RepairReport(list[tuple[Sequence[str], float]]):
    """The reported waits."""

    def __call__(self, names: Sequence[str], seconds: float) -> None:
        """Record a wait that `Settling` reports."""
        self.append((names, seconds))


async def test_complete_topology_needs_no_wait() -> None:
    """A start with all queues present is no slower, and logs nothing."""
    reported = RepairReport()
    settling = Settling(reported, seconds=3600)
    settling.on_declared("events")
    settling.check("events")
    assert settling.problem is None
    await settling.wait_until_usable()
    assert not reported


async def test_new_queue_refuses_messages_until_it_is_settled() -> None:
    """From before it is created, since others may try to publish to it at once."""
    reported = RepairReport()
    settling = Settling(reported, seconds=0.01)
    settling.on_missing("events")
    with pytest.raises(QueueUnavailable):
        settling.check("events")
    settling.check("dead")
    settling.on_declared("events")
    before = settling.problem
    with pytest.raises(QueueUnavailable):
        settling.check("events")
    await settling.wait_until_usable()
    assert (before, settling.problem) == (NEW_QUEUES_PROBLEM, None)
    settling.check("events")
    (only,) = reported
    assert only[0] == ["events"]
    assert 0 < only[1] <= 0.01


async def test_declare_that_is_refused_leaves_other_queues_usable(amqp_url: str) -> None:
    """The broker refuses names that begin with `amq.`, as it refuses others for a lack of permission."""

    async def trial() -> None:
        pass

    names = "amq.refused", f"accepted-{uuid4().hex}"
    queues = tuple(QueueSpec(name=name, arguments={"x-expires": 10_000}) for name in names)
    settling = Settling(RepairReport(), seconds=0)
    async with connected(RabbitOptions(urls=(amqp_url,)), "test") as connection:
        with pytest.raises(QueueError):
            await declare(connection, Topology(queues=queues, exchanges=()), settling, trial())
        settling.check(names[1])


async def test_interrupted_settling_continues_at_the_next_connection() -> None:
    """The queue stands then, and is as new as before."""
    reported = RepairReport()
    settling = Settling(reported, seconds=0.01)
    settling.on_missing("events")  # and the connection is lost before the broker's answer
    settling.on_declared("events")
    await settling.wait_until_usable()
    assert len(reported) == 1
