"""What RabbitMQ does that one would not expect, each shown to be designed out; and what an outage may not cost.

Each trap was met on a real broker, 3.10 or 4.x. An administrator (another connection) does here what people do.
"""

import asyncio
import contextlib
import datetime as dt
import hashlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import aio_pika
import pytest
from aiormq.abc import ChannelFrame
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from notifier.adapters.queues.rabbitmq.queue import RabbitQueue
from notifier.domain.errors import QueueError, QueueUnavailable
from notifier.domain.message import DEAD, Kind, Lane, Outgoing, Whole
from tests.contract.queues import PATIENCE, Inbox, consuming, outgoing, ready
from tests.rabbit_options import rabbit_options
from tests.rabbitmq_node import RabbitmqNode

Open = Callable[..., Awaitable[RabbitQueue]]


@pytest.fixture
async def worker(amqp_url: str, prefix: str) -> AsyncIterator[Open]:
    """Opens queues like workers do; closed at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(inbox: Inbox | None = None, **options: object) -> RabbitQueue:
            queue = RabbitQueue(rabbit_options(amqp_url, prefix, **options))
            stack.push_async_callback(queue.close)
            await queue.open()
            await asyncio.wait_for(queue.ready(), PATIENCE)
            if inbox is not None:
                await queue.consume(inbox)
                await consuming(queue)
            return queue

        yield open_one


@pytest.fixture
async def administrator(amqp_url: str) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
    """Somebody else on the same broker."""
    async with await aio_pika.connect(amqp_url) as connection:
        yield connection


@pytest.fixture
def node(rabbitmq: RabbitmqNode | None) -> RabbitmqNode:
    """The shared node, where it is ours to control."""
    if rabbitmq is None:
        pytest.skip("needs rabbitmqctl on the node")
    return rabbitmq


async def eventually(true: Callable[[], bool]) -> None:
    """Wait for a state that has no event."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110  as the line above says
            await asyncio.sleep(0.02)


async def publish_until_durable(queue: RabbitQueue, name: str, message: Outgoing) -> None:
    """As the pipeline does: try again until it is confirmed."""
    async with asyncio.timeout(60):
        while True:
            try:
                await queue.publish(name, message)
            except QueueUnavailable:
                await queue.available()
            else:
                return


async def drop_connections(node: RabbitmqNode) -> None:
    """As an operator does by force."""
    await asyncio.to_thread(node.ctl, "close_all_connections", "operator says so")


# ── what is durable and what is not ─────────────────────────────────────────────────────────────────────────────


async def test_an_unroutable_publish_raises_and_is_mended(
    worker: Open, administrator: aio_pika.abc.AbstractConnection, prefix: str
) -> None:
    """aio-pika returns normally for a message that no queue took. Here it raises, and the queue is declared again."""
    queue = await worker()
    await (await administrator.channel()).queue_delete(f"{prefix}.delay.64s")
    with pytest.raises(QueueUnavailable, match=rf"{prefix}\.delay\.64s"):
        await queue.publish("delay.64s", outgoing("a"))
    await publish_until_durable(queue, "delay.64s", outgoing("a"))
    await ready(queue, "delay.64s", 1)


async def test_a_missing_exchange_raises_and_is_mended(
    worker: Open, administrator: aio_pika.abc.AbstractConnection, prefix: str
) -> None:
    """Publishing to an exchange that is gone closes the channel; the event is refused, then taken."""
    queue = await worker()
    await (await administrator.channel()).exchange_delete(f"{prefix}.events")
    assert queue.status().problem is None
    async with asyncio.timeout(PATIENCE):
        for attempt in range(100):
            try:
                await queue.send_event(Lane.EVENTS, b"{}", message_id="a")
            except QueueUnavailable:
                await queue.available()
            else:
                assert attempt > 0
                break
    assert "no exchange" in (queue.status().problem or "")
    await ready(queue, Lane.EVENTS, 1)


async def test_two_with_one_id_do_not_answer_for_each_other(worker: Open) -> None:
    """aiormq knows a returned message by its id alone: of two under way, it would call the wrong one lost."""
    queue = await worker()
    tries = [queue.publish(name, outgoing("same")) for name in ("nowhere", DEAD, "nowhere", DEAD)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert [isinstance(result, QueueUnavailable) for result in results] == [True, False, True, False]
    await ready(queue, DEAD, 2)


async def test_those_with_one_id_hold_up_nobody_else(worker: Open) -> None:
    """They go one by one, in their order; whatever bears another id passes them, however many there are."""
    queue = await worker()
    twins = [
        asyncio.ensure_future(queue.publish(DEAD, outgoing("same", body=str(count).encode()))) for count in range(1200)
    ]
    await asyncio.sleep(0)  # now each has begun
    await asyncio.wait_for(queue.publish(DEAD, outgoing("other")), PATIENCE)
    assert sum(twin.done() for twin in twins) < 100
    await twins[9]
    twins[15].cancel()
    await twins[20]
    for twin in twins:
        twin.cancel()
    await asyncio.wait(twins)
    bodies = [int(message.body) for message in await queue.browse(DEAD, 1200) if message.message_id == "same"]
    assert bodies == sorted(bodies)
    assert {*range(21)} - {15} <= {*bodies}


async def test_a_full_queue_refuses(worker: Open, node: RabbitmqNode, prefix: str) -> None:
    """A queue at its length limit nacks (`reject-publish`), and that raises: nothing is dropped silently."""
    queue = await worker()

    async def fill() -> None:
        for count in range(2000):
            await queue.publish("delay.64s", outgoing(str(count)))

    policy = '{"max-length":1}'
    await asyncio.to_thread(node.ctl, "set_policy", prefix, rf"^{prefix}\.delay\.64s$", policy, "--apply-to", "queues")
    try:
        with pytest.raises(QueueUnavailable, match=r"nack"):
            await fill()
    finally:
        await asyncio.to_thread(node.ctl, "clear_policy", prefix)


async def test_a_message_can_go_round_and_round(worker: Open) -> None:
    """Sent on with its `x-death` it would be confirmed and then dropped as a cycle. Headers are built anew."""
    inbox = Inbox()
    queue = await worker(inbox)
    for _ in range(3):
        await queue.publish("delay.1s", outgoing("a", headers={"due": "1"}))
        message = await inbox.next()
        assert (message.lane, message.kind) == (Lane.RETRIES, Kind.DELIVERY)
        assert "x-death" in message.headers
        queue.ack(message)


# ── acks ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_late_ack_meets_nobody_else(worker: Open, node: RabbitmqNode) -> None:
    """Tags begin at 1 again on a new channel: an ack of the old one must not ack whatever has its number now."""
    inbox = Inbox()
    queue = await worker(inbox)
    for name in "ab":
        await queue.publish(Lane.EVENTS, outgoing(name))
    old = await inbox.some(2)
    await drop_connections(node)
    again = await inbox.some(2)
    assert {message.delivery_count for message in again} == {1}  # a lost connection counts as a nack does
    assert Lane.EVENTS in inbox.lost_lanes
    for message in old:
        queue.ack(message)
    await queue.close()
    await ready(await worker(), Lane.EVENTS, 2)


async def test_what_is_too_large_is_not_held(worker: Open) -> None:
    """The prefetch counts messages: of a publisher's mebibytes the beginning is held. Our own come whole."""
    inbox = Inbox()
    queue = await worker(inbox, max_event=1000)
    body = b"x" * 3_000_000
    await queue.send_event(Lane.EVENTS, body, message_id="a")
    await queue.publish(Lane.EVENTS, Outgoing(kind=Kind.EVENT, body=body, message_id="b"))
    cut, ours = await inbox.some(2)
    assert (cut.message_id, cut.body) == ("a", body[:1000])
    assert cut.cut_from == Whole(size=len(body), sha256=hashlib.sha256(body).hexdigest())
    assert (ours.message_id, ours.body, ours.cut_from) == ("b", body, None)


# ── losing things ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("lane", [Lane.EVENTS, Lane.RETRIES])
async def test_a_deleted_queue_is_consumed_again(
    worker: Open, administrator: aio_pika.abc.AbstractConnection, prefix: str, lane: Lane
) -> None:
    """The broker cancels the consumer of a deleted queue and keeps the connection.

    The queue is declared again at once, and consumed. For `retries` that matters most: a delay queue that has met
    it missing tries again only after three minutes.
    """
    inbox = Inbox()
    queue = await worker(inbox)
    await (await administrator.channel()).queue_delete(f"{prefix}.{lane}")
    await eventually(lambda: lane in inbox.lost_lanes)
    await consuming(queue)
    if lane is Lane.RETRIES:
        await queue.publish("delay.1s", outgoing("a"))
    else:
        await queue.send_event(lane, b"{}", message_id="a")  # so its binding is back as well
    assert (await inbox.next()).message_id == "a"


async def test_missing_retries_are_declared_though_nobody_consumes(
    worker: Open, administrator: aio_pika.abc.AbstractConnection, prefix: str
) -> None:
    """A publisher that finds `retries` gone has it declared."""
    queue = await worker()
    await (await administrator.channel()).queue_delete(f"{prefix}.retries")
    await publish_until_durable(queue, Lane.RETRIES, outgoing("a"))
    await ready(queue, Lane.RETRIES, 1)


async def test_a_forced_close_is_survived(worker: Open, node: RabbitmqNode) -> None:
    """After `rabbitmqctl close_all_connections` it consumes and publishes again by itself."""
    inbox = Inbox()
    queue = await worker(inbox)
    await drop_connections(node)
    await eventually(lambda: set(inbox.lost_lanes) == set(Lane))
    await publish_until_durable(queue, Lane.EVENTS, outgoing("a"))
    assert (await inbox.next()).message_id == "a"
    assert (await consuming(queue)).problem is None


async def test_a_closing_queue_tells_its_publishers(worker: Open) -> None:
    """A publish under way at the close is confirmed or raises QueueUnavailable; it is never cancelled."""
    queue = await worker()
    tries = [asyncio.ensure_future(queue.publish(DEAD, outgoing(str(count)))) for count in range(300)]
    await asyncio.wait(tries, return_when=asyncio.FIRST_COMPLETED)
    await queue.close()
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), QueueUnavailable}
    with pytest.raises(QueueUnavailable):
        await queue.publish(DEAD, outgoing("late"))


async def test_a_memory_alarm_blocks_publishing_alone(worker: Open, node: RabbitmqNode) -> None:
    """While the broker is out of memory a publish raises, taking and acking go on; afterwards it publishes again."""
    inbox = Inbox()
    queue = await worker(inbox)
    for name in "ab":
        await queue.publish(Lane.EVENTS, outgoing(name))
    taken = await inbox.some(2)
    await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.0000001")
    try:
        first = asyncio.ensure_future(queue.publish(DEAD, outgoing("c")))  # the broker tells a publisher at its next
        await eventually(lambda: queue.status().blocked)
        assert "alarm" in (queue.status().problem or "")
        with pytest.raises(QueueUnavailable, match=r"alarm"):
            await queue.publish(DEAD, outgoing("d"))
        assert queue.status().consuming
        for message in taken:
            queue.ack(message)
        again = await worker()  # another worker can still connect, and look
        await ready(again, Lane.EVENTS, 0)
    finally:
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.4")
    await asyncio.wait_for(queue.available(), PATIENCE)
    assert (queue.status().blocked, queue.status().problem) == (False, None)
    await queue.publish(DEAD, outgoing("d"))
    await asyncio.gather(first, return_exceptions=True)  # undecided: held back, then durable or refused
    await queue.close()
    await ready(await worker(), Lane.EVENTS, 0)  # the acks had come through


async def test_a_killed_broker_loses_nothing_confirmed(own_node: RabbitmqNode) -> None:
    """Power cut and restart in the middle of publishing: everything confirmed comes, without anybody's doing."""
    queue, inbox = RabbitQueue(rabbit_options(own_node.url)), Inbox()
    await queue.open()
    await asyncio.wait_for(queue.ready(), PATIENCE)
    confirmed: set[str] = set()

    async def publish(name: str) -> None:
        await publish_until_durable(queue, Lane.BULK, outgoing(name))
        confirmed.add(name)

    publishing = [asyncio.ensure_future(publish(str(count))) for count in range(2000)]
    await eventually(lambda: len(confirmed) > 200)
    await asyncio.to_thread(own_node.kill)
    before = set(confirmed)
    await eventually(lambda: not queue.status().connected)
    await queue.consume(inbox)
    await asyncio.to_thread(own_node.start)
    await asyncio.gather(*publishing)
    assert 200 < len(before) < 2000
    missing = {str(count) for count in range(2000)}
    async with asyncio.timeout(30):
        while missing:
            message = await inbox.next()
            missing.discard(message.message_id or "")
            queue.ack(message)
    await queue.close()


# ── who speaks, and how ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_publisher_cannot_pass_for_us(
    worker: Open, administrator: aio_pika.abc.AbstractConnection, prefix: str
) -> None:
    """`type: notifier.delivery` through an exchange is a publisher's message, in the dead letters too.

    The broker moves what reached the delivery limit by the default exchange, which only we write to; but then it bears
    `x-death`.
    """
    channel = await administrator.channel()
    queue = await worker()
    exchange = await channel.get_exchange(f"{prefix}.events", ensure=False)
    await exchange.publish(aio_pika.Message(b"{}", type=Kind.DELIVERY.value, message_id="forged"), "any")
    lane = await channel.get_queue(f"{prefix}.events", ensure=False)
    while (taken := await lane.get(fail=False)) is not None:
        await taken.nack(requeue=True)
    await ready(queue, DEAD, 1)
    (dead,) = await queue.browse(DEAD, 10)
    assert (dead.message_id, dead.kind) == ("forged", None)
    assert "x-death" in dead.headers


async def test_properties_that_cannot_be_decoded_close_nothing(
    worker: Open, administrator: aio_pika.abc.AbstractConnection, prefix: str
) -> None:
    """A timestamp in microseconds, or a name that is no UTF-8, must not close our connection at every redelivery."""
    inbox = Inbox()
    queue = await worker(inbox)
    for message_id in (b"micro", b"\xff\xfe!!!"):
        await _publish_raw(administrator, f"{prefix}.events", message_id, 1_767_225_600_000_000)
    micro, unreadable = await inbox.some(2)
    assert (micro.message_id, micro.timestamp, micro.body) == ("micro", None, b"{}")
    assert unreadable.message_id == "\ufffd\ufffd!!!"
    assert inbox.lost_lanes == []
    assert queue.status().consuming


async def _publish_raw(
    connection: aio_pika.abc.AbstractConnection, exchange: str, message_id: bytes, timestamp: int
) -> None:
    """Publish what pamqp would not encode: placeholders, replaced on their way to the socket."""
    channel = await (await connection.channel()).get_underlay_channel()
    properties = commands.Basic.Properties(message_id="#" * 5, timestamp=dt.datetime.fromtimestamp(123_456, tz=dt.UTC))
    frame = ChannelFrame.marshall(
        channel_number=channel.number,
        frames=[
            commands.Basic.Publish(exchange=exchange, routing_key="any"),
            ContentHeader(body_size=2, properties=properties),
            ContentBody(b"{}"),
        ],
    )
    payload = frame.payload.replace(b"#" * 5, message_id).replace(
        struct.pack(">Q", 123_456), struct.pack(">Q", timestamp)
    )
    await channel.connection.write_queue.put(ChannelFrame(payload=payload, should_close=False))


# ── connecting ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_credentials_are_read_again(amqp_url: str, prefix: str) -> None:
    """A refused password is said in words, without the password; a corrected one is used without a restart."""
    passwords = iter(["wrong-secret"] * 2)
    queue = RabbitQueue(rabbit_options(amqp_url, prefix, credentials=lambda: ("guest", next(passwords, "guest"))))
    await queue.open()
    try:
        with pytest.raises(QueueError, match=r"refused the user name or the password") as caught:
            await asyncio.wait_for(queue.ready(), PATIENCE)
        assert "wrong-secret" not in str(caught.value) + str(queue.status())
        await eventually(lambda: queue.status().connected)
        assert queue.status().problem is None
    finally:
        await queue.close()


async def test_another_host_of_the_cluster_serves(worker: Open, amqp_url: str) -> None:
    """A host that is down is passed over."""
    assert (await worker(urls=("amqp://guest:guest@127.0.0.1:1/", amqp_url))).status().connected


async def test_a_virtual_host_that_is_not_there(amqp_url: str) -> None:
    """The refusal names it."""
    queue = RabbitQueue(rabbit_options(f"{amqp_url.rstrip('/')}/nowhere"))
    await queue.open()
    try:
        with pytest.raises(QueueError, match=r"virtual host 'nowhere'"):
            await asyncio.wait_for(queue.ready(), PATIENCE)
    finally:
        await queue.close()


async def test_workers_count_each_other(worker: Open) -> None:
    """The number of consumers of `events` is known soon after connecting, for the sharing out of limits."""
    for _ in range(2):
        await worker(Inbox())
    third = await worker()
    await eventually(lambda: third.consumers() == 2)
