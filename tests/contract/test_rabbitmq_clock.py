"""A broker whose wall clock was set back: quorum queues expire by it, and only at their head."""

import asyncio
import time

import pytest

from notifier.model.documents.documents import dump_delivery, load_delivery
from notifier.model.message import Kind, Lane, MessageDraft
from notifier.queues.rabbitmq.overdue import OVERDUE_SECONDS
from notifier.queues.rabbitmq.queue import RabbitQueue
from tests.contract.queues import Inbox, eventually
from tests.model.documents.test_documents import DELIVERY
from tests.support.rabbit_options import rabbit_options
from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.waiting import until

pytestmark = pytest.mark.full  # a dedicated node, and a minute of waiting

HOUR = 3600
WAIT = 20.0  # seconds, in which the node is killed


@pytest.mark.timeout(400)
async def test_messages_stuck_after_a_clock_set_back_are_moved(module_node: RabbitmqNode) -> None:
    """Restarted an hour back, a delay queue would hold its messages for an hour. What is 30 s overdue is moved."""
    queue, inbox = RabbitQueue(rabbit_options(module_node.url, "notifier")), Inbox()

    async def taken() -> bool:
        return not inbox.empty()

    await queue.open()
    await queue.wait_until_ready()
    await queue.consume(inbox)
    await eventually(lambda: queue.status().consuming)
    module_node.set_back(HOUR)  # from its next start on; it may install libfaketime, which takes longer than WAIT
    due = time.time() + WAIT
    message = MessageDraft(kind=Kind.DELIVERY, body=dump_delivery(DELIVERY, due=due), message_id=DELIVERY.id)
    await queue.publish_later(message, due=due)
    await asyncio.to_thread(module_node.kill)
    await asyncio.to_thread(module_node.start)
    began = time.monotonic()
    await until(taken, bool, 150)
    came = await inbox.next()
    assert (came.lane, load_delivery(came.body)) == (Lane.RETRIES, DELIVERY)
    assert time.monotonic() - began > OVERDUE_SECONDS / 2
    await eventually(lambda: queue.status().moved_on == 1)
    queue.ack(came)
    await queue.close()
