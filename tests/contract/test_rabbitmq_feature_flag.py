"""A broker that takes the arguments of at-least-once dead-lettering, and drops what expires all the same."""

import asyncio

import pytest

from notifier.model.errors import QueueError
from notifier.queues.rabbitmq.administration import declare_topology, survey_topology
from notifier.queues.rabbitmq.examination import examine_broker
from notifier.queues.rabbitmq.queue import RabbitQueue
from tests.support.rabbit_options import rabbit_options
from tests.support.rabbitmq_installation import find_installation
from tests.support.rabbitmq_node import rabbitmq_node

OF_OLD = (
    "quorum_queue",
    "implicit_default_bindings",
    "virtual_host_metadata",
    "maintenance_mode_status",
    "user_limits",
)


@pytest.mark.full
async def test_doctor_checks_expiry_and_leaves_no_queue(amqp_url: str, prefix: str) -> None:
    state = await examine_broker(rabbit_options(amqp_url, prefix))
    assert state.keeps_expired is True


@pytest.mark.full
async def test_broker_that_drops_expired_messages_is_refused() -> None:
    """As a broker has it that was upgraded from before 3.9. The flag is turned on while it runs."""
    if not find_installation().version.startswith("3.10."):
        pytest.skip("from 3.12 on a broker does not start without the flag")
    with rabbitmq_node(flags=OF_OLD) as node:
        options = rabbit_options(node.url)
        queue = RabbitQueue(options)
        await queue.open()
        with pytest.raises(QueueError, match="rabbitmqctl enable_feature_flag stream_queue"):
            await queue.wait_until_ready()
        with pytest.raises(QueueError, match="rabbitmqctl enable_feature_flag stream_queue"):
            await declare_topology(options)
        assert all(each.missing for each in await survey_topology(options))
        assert (await examine_broker(options)).keeps_expired is False
        await asyncio.to_thread(node.ctl, "enable_feature_flag", "stream_queue")
        await declare_topology(options)
        assert (await examine_broker(options)).keeps_expired is True
        await queue.close()
