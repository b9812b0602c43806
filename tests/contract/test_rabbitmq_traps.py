"""What RabbitMQ does that one would not expect, each shown to be designed out; and what an outage may not cost.

Each trap was met on a real broker, 3.10 or 4.x. An administrator (another connection) does here what people do.
"""

import asyncio
import hashlib
from contextlib import suppress
from typing import Any

import aio_pika
import aiormq
import pytest
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp.common import FieldTable

from notifier.model.errors import MessageRefused, QueueError, QueueUnavailable
from notifier.model.message import DEAD, CutBody, Kind, Lane, MessageDraft
from notifier.queues.rabbitmq.connection import channel_of, connected
from notifier.queues.rabbitmq.queue import RabbitQueue
from notifier.queues.rabbitmq.topology_watch import SECOND_CHECK_SECONDS, TopologyWatch, WorkerCount
from tests.contract.broker import Administrator, OpenWorker, publish_undecodable
from tests.contract.queues import (
    PATIENCE,
    Inbox,
    consuming,
    dead,
    eventually,
    fill,
    outgoing,
    publish_until_durable,
    ready,
)
from tests.support.rabbit_options import rabbit_options
from tests.system.waiting import until

# ── what is durable and what is not ─────────────────────────────────────────────────────────────────────────────


async def test_unroutable_publish_raises_and_queue_is_redeclared(
    worker: OpenWorker, administrator: Administrator, prefix: str
) -> None:
    """aio-pika returns normally for a message that no queue took. Here it raises, and the queue is declared again."""
    queue = await worker()
    await administrator.queue_delete(f"{prefix}.delay.64s")
    with pytest.raises(QueueUnavailable, match=rf"{prefix}\.delay\.64s"):
        await queue.publish("delay.64s", outgoing("a"))
    await publish_until_durable(queue, "delay.64s", outgoing("a"))
    await ready(queue, "delay.64s", 1)


async def test_missing_exchange_raises_and_is_redeclared(
    worker: OpenWorker, administrator: Administrator, prefix: str
) -> None:
    """Publishing to an exchange that is gone closes the channel; the event is refused, then taken."""
    queue = await worker()
    await administrator.exchange_delete(f"{prefix}.events")
    assert queue.status().problem is None
    async with asyncio.timeout(PATIENCE):
        for attempt in range(100):
            try:
                await queue.send_event(Lane.EVENTS, b"{}", message_id="a")
            except QueueUnavailable:
                await queue.wait_until_available()
            else:
                assert attempt > 0
                break
    assert "no exchange" in (queue.status().problem or "")
    await ready(queue, Lane.EVENTS, 1)


async def test_messages_with_equal_ids_are_confirmed_separately(worker: OpenWorker) -> None:
    """aiormq knows a returned message by its id alone: of two under way, it would call the wrong one lost."""
    queue = await worker()
    tries = [queue.publish(name, outgoing("same")) for name in ("nowhere", DEAD, "nowhere", DEAD)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert [isinstance(result, QueueUnavailable) for result in results] == [True, False, True, False]
    await ready(queue, DEAD, 2)


async def test_messages_with_equal_ids_delay_no_others(worker: OpenWorker) -> None:
    """They go one by one, in order; messages with other ids pass them, however many there are."""
    queue = await worker()
    twins = [
        asyncio.ensure_future(queue.publish(DEAD, outgoing("same", body=str(count).encode()))) for count in range(1200)
    ]
    await asyncio.sleep(0)  # now each has started
    await asyncio.wait_for(queue.publish(DEAD, outgoing("other")), PATIENCE)
    assert sum(twin.done() for twin in twins) < 100
    await twins[9]
    twins[15].cancel()
    await twins[20]
    for twin in twins:
        twin.cancel()
    await asyncio.wait(twins)
    bodies = [int(message.body) for message in await dead(queue) if message.message_id == "same"]
    assert bodies == sorted(bodies)
    assert {*range(21)} - {15} <= {*bodies}


async def test_a_full_queue_refuses(worker: OpenWorker, administrator: Administrator, prefix: str) -> None:
    """A queue at its length limit nacks (`reject-publish`), and that raises: nothing is dropped silently."""
    queue, name = await worker(), f"{prefix}.delay.64s"
    limited: FieldTable = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    await administrator.queue_delete(name)
    await administrator.declare_queue(name, durable=True, arguments=limited)
    try:
        with pytest.raises(QueueUnavailable, match=r"nack") as refused:
            await fill(queue, "delay.64s")
        assert not isinstance(refused.value, MessageRefused)  # another message would fare no better
    finally:
        await administrator.queue_delete(name)


async def test_message_may_pass_a_delay_queue_repeatedly(worker: OpenWorker) -> None:
    """With its `x-death` header it would be confirmed and then dropped as a cycle. Headers are built again."""
    inbox = Inbox()
    queue = await worker(inbox)
    for _ in range(2):
        await queue.publish("delay.1s", outgoing("a", headers={"due": "1"}))
        message = await inbox.next()
        assert (message.lane, message.kind) == (Lane.RETRIES, Kind.DELIVERY)
        assert "x-death" in message.headers
        queue.ack(message)


# ── acks ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_oversized_body_is_cut(worker: OpenWorker) -> None:
    """The prefetch counts messages: of a publisher's mebibytes the beginning is held. Our own come whole."""
    inbox = Inbox()
    queue = await worker(inbox, max_event=1000)
    body = b"x" * 3_000_000
    await queue.send_event(Lane.EVENTS, body, message_id="a")
    await queue.publish(Lane.EVENTS, MessageDraft(kind=Kind.EVENT, body=body, message_id="b"))
    await queue.send_event(Lane.EVENTS, body[:1000], message_id="c")
    cut, ours, fitting = await inbox.some(3)
    assert (cut.message_id, cut.body) == ("a", body[:1000])
    assert cut.cut_from == CutBody(size=len(body), sha256=hashlib.sha256(body).hexdigest())
    assert (ours.message_id, ours.body, ours.cut_from) == ("b", body, None)
    assert (fitting.body, fitting.cut_from) == (body[:1000], None)


# ── losing things ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("lane", [Lane.EVENTS, Lane.RETRIES])
async def test_a_deleted_queue_is_consumed_again(
    worker: OpenWorker, administrator: Administrator, prefix: str, lane: Lane
) -> None:
    """The broker cancels the consumer of a deleted queue and keeps the connection.

    The queue is declared again at once, and consumed. For `retries` that matters most: a delay queue that has met
    it missing tries again only after three minutes.
    """
    inbox = Inbox()
    queue = await worker(inbox)
    await administrator.queue_delete(f"{prefix}.{lane}")
    await eventually(lambda: lane in inbox.lost_lanes)
    await consuming(queue)
    if lane is Lane.RETRIES:
        await queue.publish("delay.1s", outgoing("a"))
    else:
        await queue.send_event(lane, b"{}", message_id="a")  # so its binding is back as well
    assert (await inbox.next()).message_id == "a"


async def test_a_new_channel_has_another_number_than_a_closed_one(amqp_url: str, prefix: str) -> None:
    """The broker closes a connection that opens a number before it has confirmed the broker's close of that channel."""
    numbers = []
    async with connected(rabbit_options(amqp_url, prefix), "test") as connection:
        for _ in range(3):
            async with channel_of(connection) as channel:
                numbers.append(channel.number)
                with suppress(ChannelNotFoundEntity):
                    await channel.queue_declare(f"{prefix}.missing", passive=True)
    assert len(set(numbers)) == 3


async def test_closing_queue_fails_pending_publishes(worker: OpenWorker) -> None:
    """A publish under way at the close is confirmed or raises QueueUnavailable; it is never cancelled."""
    queue = await worker()
    tries = [asyncio.ensure_future(queue.publish(DEAD, outgoing(str(count)))) for count in range(300)]
    await asyncio.wait(tries, return_when=asyncio.FIRST_COMPLETED)
    await queue.close()
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), QueueUnavailable}
    with pytest.raises(QueueUnavailable):
        await queue.publish(DEAD, outgoing("late"))


# ── who speaks, and how ─────────────────────────────────────────────────────────────────────────────────────────


async def test_publisher_cannot_forge_our_message_kinds(
    worker: OpenWorker, administrator: Administrator, prefix: str
) -> None:
    """A message with `type: notifier.delivery` through an exchange is a publisher's, also as a dead letter.

    The broker moves messages at the delivery limit through the default exchange, to which only the service may write;
    they have `x-death` then.
    """
    queue = await worker()
    exchange = await administrator.get_exchange(f"{prefix}.events", ensure=False)
    await exchange.publish(aio_pika.Message(b"{}", type=Kind.DELIVERY.value, message_id="forged"), "any")
    lane = await administrator.get_queue(f"{prefix}.events", ensure=False)
    while (taken := await lane.get(fail=False)) is not None:
        await taken.nack(requeue=True)
    await ready(queue, DEAD, 1)
    (moved,) = await dead(queue)
    assert (moved.message_id, moved.kind) == ("forged", None)
    assert "x-death" in moved.headers


async def test_properties_that_cannot_be_decoded_close_nothing(
    worker: OpenWorker, administrator: Administrator, prefix: str
) -> None:
    """A timestamp in microseconds or a name in invalid UTF-8 must not close the connection at every redelivery."""
    inbox = Inbox()
    queue = await worker(inbox)
    for message_id in (b"micro", b"\xff\xfe!!!"):
        await publish_undecodable(administrator, f"{prefix}.events", message_id)
    micro, unreadable = await inbox.some(2)
    assert (micro.message_id, micro.timestamp, micro.body) == ("micro", None, b"{}")
    assert unreadable.message_id == "\ufffd\ufffd!!!"
    assert inbox.lost_lanes == []
    assert queue.status().consuming


# ── connecting ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_credentials_are_read_again(amqp_url: str, prefix: str) -> None:
    """A refused password gives an error without the password; a corrected password is used without a restart."""
    passwords = iter(["wrong-secret"] * 2)
    queue = RabbitQueue(rabbit_options(amqp_url, prefix, credentials=lambda: ("guest", next(passwords, "guest"))))
    await queue.open()
    try:
        with pytest.raises(QueueError, match=r"refused the user name or the password") as caught:
            await asyncio.wait_for(queue.wait_until_ready(), PATIENCE)
        assert "wrong-secret" not in str(caught.value) + str(queue.status())
        await eventually(lambda: queue.status().connected)
        assert queue.status().problem is None
    finally:
        await queue.close()


async def test_another_host_of_the_cluster_serves(worker: OpenWorker, amqp_url: str) -> None:
    """A host that is down is passed over."""
    assert (await worker(urls=("amqp://guest:guest@127.0.0.1:1/", amqp_url))).status().connected


async def test_workers_count_each_other(worker: OpenWorker) -> None:
    """The number of workers is known soon after connecting, for the sharing out of limits.

    A lane whose consumer was renewed has two consumers until the last message of the former one is acked.
    """
    inbox = Inbox()
    renewed = await worker(inbox, prefetch={Lane.EVENTS: 1})
    await renewed.publish(Lane.EVENTS, outgoing("late"))
    renewed.set_aside(await inbox.next())
    await until(renewed.depths, lambda depths: depths[Lane.EVENTS].consumers == 2)
    await worker(Inbox())
    third = await worker()
    await eventually(lambda: third.worker_count() == 2)
    assert (await third.read_overview(0.1)).depths[Lane.EVENTS].consumers == 3


async def test_stop_during_a_slow_renewal_leaves_no_consumer(
    worker: OpenWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stops does not wait for it, and the renewed consumer would take further messages."""
    queue = await worker(inbox := Inbox(), prefetch={Lane.EVENTS: 1})
    await queue.publish(Lane.EVENTS, outgoing("late"))
    late = await inbox.next()
    begun, may_end, consume = asyncio.Event(), asyncio.Event(), aiormq.Channel.basic_consume

    async def consume_slowly(*arguments: Any, **options: Any) -> object:
        begun.set()
        await may_end.wait()
        return await consume(*arguments, **options)

    monkeypatch.setattr(aiormq.Channel, "basic_consume", consume_slowly)
    queue.set_aside(late)
    await begun.wait()
    stopping = asyncio.create_task(queue.stop_consuming())
    for _ in range(3):  # it begins to wait for the renewal
        await asyncio.sleep(0)
    stopping.cancel()
    may_end.set()
    queue.ack(late)
    await until(queue.depths, lambda depths: depths[Lane.EVENTS].consumers == 0)


@pytest.mark.full
async def test_a_new_connection_counts_no_fewer_workers(worker: OpenWorker, amqp_url: str, prefix: str) -> None:
    """After a restart of the broker the others return later: each worker keeps to its share until they may be back."""
    other, _ = [await worker(Inbox()) for _ in range(2)]
    options = rabbit_options(amqp_url, prefix)
    async with connected(options, "test") as connection:
        watch = TopologyWatch(options, asyncio.get_running_loop().create_future, workers := WorkerCount())
        for _ in range(2):
            with suppress(TimeoutError):
                async with asyncio.timeout(2 * SECOND_CHECK_SECONDS):
                    await watch.run(connection)
            assert workers.value == 2
            await other.close()
