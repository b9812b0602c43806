"""The side channel on RabbitMQ: workers reply and report their states, and a fault there stops no logout."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import HeadersType
from structlog.testing import capture_logs

from notifier.model.message import DEAD, Lane
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.dead_letter_summary import read_summary
from notifier.operators.status.worker_presence import WorkerPresence
from notifier.queues.passes import make_pass_reader
from notifier.queues.rabbitmq import replies, side_channel, topology_watch
from notifier.queues.rabbitmq.administration import declare_topology
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.queue import RabbitQueue
from tests.contract.broker import Administrator, NamedWorkers, until_answered
from tests.contract.dead_letter_samples import dead_letter, store_dead_letters
from tests.contract.queues import PATIENCE, Inbox, eventually, names, outgoing, ready
from tests.support.rabbit_options import rabbit_options
from tests.system.waiting import until

ALL = DeadLetterFilter()
NEWS = f"{side_channel.UPDATES_PREFIX}news"


@pytest.fixture(autouse=True)
def _quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of consumers is soon known."""
    monkeypatch.setattr(topology_watch, "CHECK_INTERVAL_SECONDS", 0.5)


@pytest.fixture
def options(amqp_url: str, prefix: str) -> RabbitOptions:
    """This test's own corner of the broker."""
    return rabbit_options(amqp_url, prefix)


async def test_all_workers_answer_a_request(options: RabbitOptions, workers: NamedWorkers) -> None:
    """A request by command line or by a worker's connection, which receives its own reply too; a worker that has left
    does not reply.
    """
    first = await workers.start(options, b"first")
    await workers.start(options, b"second")
    third = await workers.start(options, b"third")
    await until_answered(options, {b"first", b"second", b"third"})
    await third.close()
    await until_answered(options, {b"first", b"second"})
    assert set((await first.read_overview(PATIENCE)).worker_states) == {b"first", b"second"}


async def test_workers_are_counted_by_presence(options: RabbitOptions, workers: NamedWorkers) -> None:
    """Also workers that do not consume. Every answer contains the number, so a request waits for all of them."""
    for name in (b"first", b"second", b"third"):
        await workers.start(options, name, announces=True, consumes=name == b"first")
    await eventually(lambda: [queue.worker_count() for queue in workers.queues] == [3, 3, 3])
    first = workers.queues[0]
    overview = await RabbitQueue(options).read_overview(PATIENCE)
    assert (overview.workers, len(overview.worker_states)) == (3, 3)
    assert (overview.depths["bulk"].consumers, first.worker_count()) == (1, 3)


@pytest.mark.parametrize("is_older", [True, False])
async def test_large_buckets_are_used_only_while_all_workers_have_them(
    options: RabbitOptions, workers: NamedWorkers, administrator: Administrator, *, is_older: bool
) -> None:
    """The announcements of an older worker do not name them, those of a worker whose broker lacks them deny it."""
    shop, queue = ("https://id.example.com", "shop"), await workers.start(options, b"newer", announces=True)
    await eventually(lambda: queue.worker_count() == 1)
    large = queue.bucket(shop, large=True)
    assert (large != queue.bucket(shop), queue.inherited_buckets(at_start=False)) == (True, ())
    exchange = await administrator.get_exchange(f"{options.prefix}.workers", ensure=False)
    headers: HeadersType = {} if is_older else {side_channel.LARGE_BUCKETS: False}
    older = WorkerPresence("older", "id-older", time.time, time.monotonic).document()
    await exchange.publish(aio_pika.Message(older, type=side_channel.PRESENCE, headers=headers), "")
    await eventually(lambda: queue.bucket(shop, large=True) == queue.bucket(shop))
    assert queue.inherited_buckets(at_start=False) == (large,)


async def test_request_does_not_wait_for_more_while_the_workers_are_not_counted(
    options: RabbitOptions, workers: NamedWorkers
) -> None:
    """As in the first seconds of a single worker: `notifier reload` would wait for a minute. Consumers count then."""
    queue = await workers.start(options, b"first")
    assert queue.worker_count() == 0
    overview = await asyncio.wait_for(RabbitQueue(options).read_overview(10 * PATIENCE), PATIENCE)
    assert (overview.workers, overview.worker_states) == (1, [b"first"])


@asynccontextmanager
async def forging(
    amqp_url: str, options: RabbitOptions, sent: asyncio.Event, *forgeries: aio_pika.Message
) -> AsyncIterator[None]:
    """Send these answers to the next request to workers. Set `sent` then."""

    async def forge() -> None:
        async with spied.iterator() as requests:
            async for request in requests:
                if request.type == replies.REQUEST:
                    for forgery in forgeries:
                        await channel.default_exchange.publish(forgery, request.reply_to or "")
                    sent.set()

    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        spied = await channel.declare_queue(exclusive=True)
        await spied.bind(f"{options.prefix}.workers")
        forger = asyncio.create_task(forge())
        yield
        forger.cancel()
        await asyncio.wait({forger})


def forged(body: bytes, count: int) -> aio_pika.Message:
    """Return an answer with this number of workers."""
    return aio_pika.Message(body, headers={replies.WORKER_COUNT: count}, correlation_id="c")


async def test_a_forged_answer_ends_no_wait(amqp_url: str, options: RabbitOptions, workers: NamedWorkers) -> None:
    """It contains a number of workers of one, and arrives before the answers of the workers. A huge one is dropped."""
    sent, huge = asyncio.Event(), bytes(replies.MAX_PENDING_BYTES + 1)

    async def answer(_request: bytes) -> bytes:
        await sent.wait()
        return b"answer"

    for name in (b"first", b"second"):
        (await workers.start(options, name)).side_channel.handle_requests(answer)
    async with forging(amqp_url, options, sent, forged(huge, 1), forged(b"forged", 1)):
        received = await RabbitQueue(options).request(b"request", PATIENCE)
    assert sorted(received.answers) == [b"answer", b"answer", b"forged"]


async def test_a_forged_count_hides_no_worker(amqp_url: str, options: RabbitOptions, workers: NamedWorkers) -> None:
    """A negative number does not count. Two workers do not answer."""

    async def hang(_request: bytes) -> bytes:
        await asyncio.get_running_loop().create_future()
        return b""

    for name in (b"first", b"second"):
        (await workers.start(options, name)).side_channel.handle_requests(hang)
    sent = asyncio.Event()
    async with forging(amqp_url, options, sent, forged(b"forged", -5)):
        received = await RabbitQueue(options).request(b"request", 1.0)
        await sent.wait()
    assert (received.seen, received.answers) == (2, [b"forged"])


@pytest.mark.parametrize("announces", [True, False])
async def test_the_counted_lane_is_renewed_only_if_workers_announce_themselves(
    amqp_url: str, prefix: str, workers: NamedWorkers, *, announces: bool
) -> None:
    """Otherwise its consumers are counted as workers. Two messages of a prefetch of one arrive with a renewal only.

    The broker counts a former consumer until its last message is acked, and announcements contain that there is one.
    """
    queue, inbox = RabbitQueue(rabbit_options(amqp_url, prefix, prefetch={Lane.BULK: 1})), Inbox()
    if announces:
        queue.side_channel.listen(lambda: b"worker", lambda _name, _request: None)
        queue.side_channel.share_presence(WorkerPresence("worker", "id", time.time, time.monotonic))
    workers.queues.append(queue)
    await queue.open()
    await asyncio.wait_for(queue.wait_until_ready(), PATIENCE)
    await queue.consume(inbox)
    await eventually(lambda: queue._workers.value == 1 and queue._workers.may_renew(Lane.BULK) is announces)
    for name in ("late", "second"):
        await queue.publish(Lane.BULK, outgoing(name))
    late = await inbox.next()
    queue.set_aside(late)
    if not announces:
        await queue.publish(Lane.EVENTS, outgoing("event"))
        assert (await inbox.next()).lane is Lane.EVENTS
        assert (await queue.depths())[Lane.BULK].ready == 1
        queue.ack(late)
    assert names([await inbox.next()]) == ["second"]
    assert ((await queue.depths())[Lane.BULK].consumers, queue.side_channel._is_renewed()) == (1 + announces, announces)
    queue.ack(late)
    await eventually(lambda: not queue.side_channel._is_renewed())

    async def count() -> int:
        return (await queue.depths())[Lane.BULK].consumers

    await until(count, lambda consumers: consumers == 1)


async def test_requests_beyond_the_limit_are_ignored(options: RabbitOptions, workers: NamedWorkers) -> None:
    """Eight that hang take all places of a worker. It sends its state meanwhile, and answers others after them."""
    begun, may_end = asyncio.Queue[bytes](), asyncio.Event()

    async def handle(request: bytes) -> bytes:
        begun.put_nowait(request)
        await may_end.wait()
        return request

    worker = await workers.start(options, b"worker", announces=True)
    worker.side_channel.handle_requests(handle)
    await eventually(lambda: worker.worker_count() == 1)
    asker = RabbitQueue(options)
    names = [str(number).encode() for number in range(side_channel.MAX_RUNNING_REQUESTS)]
    hanging = [asyncio.create_task(asker.request(name, PATIENCE)) for name in names]
    assert sorted([await asyncio.wait_for(begun.get(), PATIENCE) for _ in names]) == names
    assert not (await asker.request(b"one more", 1.0)).answers
    assert [*(await asker.read_overview(PATIENCE)).worker_states] == [b"worker"]
    may_end.set()
    assert [answer for task in hanging for answer in (await task).answers] == names
    assert [*(await asker.request(b"later", PATIENCE)).answers] == [b"later"]
    assert [begun.get_nowait() for _ in range(begun.qsize())] == [b"later"]


async def test_request_without_workers_declares_nothing(amqp_url: str, bare_prefix: str) -> None:
    """Looking declares no queue."""
    options = rabbit_options(amqp_url, bare_prefix)
    overview = await RabbitQueue(options).read_overview(within=0.2)
    assert (overview.depths, overview.worker_states) == ({}, [])
    await declare_topology(options)
    overview = await RabbitQueue(options).read_overview(within=0.2)
    assert (overview.depths["events"].consumers, overview.worker_states) == (0, [])


async def test_reply_without_recipient_has_no_effect(options: RabbitOptions, workers: NamedWorkers) -> None:
    """Who asked has gone, or wrote a name at which the broker closes the connection: no logout's has noticed.

    Whoever asks next is answered.
    """
    queue = await workers.start(options, b"worker")
    await until_answered(options, {b"worker"})
    for gone in ("amq.gen-nobody", "amq.rabbitmq.reply-to.nonsense", "amq.rabbitmq.reply-to.g1h2AA5yZXBseUAx.x"):
        queue.side_channel.reply(gone, None, b"told")
        await queue.publish("dead", outgoing(gone))
        await until_answered(options, {b"worker"})


@pytest.mark.parametrize("correlation_id", ["\N{REPLACEMENT CHARACTER}" * 255, "x" * 256, "\ud800"])
async def test_invalid_reply_name_ends_no_other_reply(
    options: RabbitOptions, workers: NamedWorkers, correlation_id: str
) -> None:
    """255 bytes of invalid UTF-8 become 765. That reply is dropped, and the connection for replies stays open."""
    queue = await workers.start(options, b"worker")
    received: asyncio.Queue[str | None] = asyncio.Queue()

    async def hear(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        received.put_nowait(message.correlation_id)

    async with await aio_pika.connect(options.urls[0]) as connection:
        here = await (await connection.channel()).declare_queue(exclusive=True)
        await here.consume(hear, no_ack=True)
        with capture_logs() as log:
            queue.side_channel.reply(here.name, "before", b"told")
            assert await asyncio.wait_for(received.get(), PATIENCE) == "before"
            queue.side_channel.reply(here.name, correlation_id, b"told")
            queue.side_channel.reply(here.name, "behind", b"told")
            assert await asyncio.wait_for(received.get(), PATIENCE) == "behind"
    assert queue.side_channel.dropped == 1
    assert [line for line in log if line["log_level"] == "error"] == []


async def test_full_outbox_drops_and_counts(options: RabbitOptions, workers: NamedWorkers) -> None:
    """It never waits, and holds a bounded memory."""
    queue = await workers.start(options, b"worker")
    await until_answered(options, {b"worker"})
    for _ in range(replies.MAX_PENDING_REPLIES + 7):
        queue.side_channel.reply("amq.gen-nobody", None, b"x")
    assert queue.side_channel.dropped == 7
    await until_answered(options, {b"worker"})  # behind all of them, so that the outbox is empty again
    before = queue.side_channel.dropped
    for _ in range(3):
        queue.side_channel.reply("amq.gen-nobody", None, b"x" * (replies.MAX_PENDING_BYTES // 2))
    assert queue.side_channel.dropped == before + 1


async def test_closed_side_channel_is_reopened_and_deliveries_continue(
    options: RabbitOptions, workers: NamedWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has declared the exchange otherwise: nobody can be asked until it is gone, and all else works."""
    monkeypatch.setattr(side_channel, "REOPEN_DELAY_SECONDS", 0.1)
    async with await aio_pika.connect(options.urls[0]) as connection:
        channel = await connection.channel()
        wrong = await channel.declare_exchange(f"{options.prefix}.workers", aio_pika.ExchangeType.TOPIC)
        queue = await workers.start(options, b"worker")
        await queue.publish("dead", outgoing("a"))
        assert (await RabbitQueue(options).read_overview(within=0.2)).worker_states == []
        await wrong.delete()
    await until_answered(options, {b"worker"})
    assert queue.status().connected


async def publish_to_workers(options: RabbitOptions, kind: str, body: bytes, **properties: Any) -> None:
    """As any worker could."""
    async with await aio_pika.connect(options.urls[0]) as connection:
        exchange = await (await connection.channel()).get_exchange(f"{options.prefix}.workers", ensure=False)
        await exchange.publish(aio_pika.Message(body, type=kind, **properties), "")


async def test_report_reaches_all_other_workers(options: RabbitOptions, workers: NamedWorkers) -> None:
    """The sender does not receive it, and a request or reply sends no report."""
    names = {b"first", b"second", b"third"}
    for name in sorted(names):
        await workers.start(options, name)
    await until_answered(options, names)
    for name in sorted(names):
        workers.news[name].put_nowait(name + b" saw")
        workers.news[name].put_nowait(name + b" saw more")
    expected = {(who, name + logged) for who in names for name in names - {who} for logged in (b" saw", b" saw more")}
    received = {await asyncio.wait_for(workers.received_reports.get(), PATIENCE) for _ in expected}
    await until_answered(options, names)  # behind all of them
    assert (received, workers.received_reports.empty(), workers.received.empty()) == (expected, True, True)


async def test_delayed_report_is_dropped(options: RabbitOptions, workers: NamedWorkers) -> None:
    """It has an expiration, after which the broker drops it, and is not persistent."""
    queue = await workers.start(options, b"worker")
    await until_answered(options, {b"worker"})
    async with await aio_pika.connect(options.urls[0]) as connection:
        channel = await connection.channel()
        here = await channel.declare_queue(exclusive=True)
        await here.bind(f"{options.prefix}.workers")
        workers.news[b"worker"].put_nowait(b"saw")
        async with here.iterator(timeout=PATIENCE) as messages:
            message = await anext(messages)
    assert (message.type, message.body) == (NEWS, b"saw")
    assert message.delivery_mode == aio_pika.DeliveryMode.NOT_PERSISTENT
    assert message.expiration == side_channel.MESSAGE_TTL_MILLISECONDS / 1000
    assert queue.side_channel.dropped == 0


async def test_huge_messages_on_the_side_channel_are_dropped(options: RabbitOptions, workers: NamedWorkers) -> None:
    """Reading 17 MiB would block the event loop for a second."""
    requests = list[bytes]()

    async def handle(request: bytes) -> bytes:
        requests.append(request)
        return b"answer"

    worker = await workers.start(options, b"worker")
    worker.side_channel.handle_requests(handle)
    await until_answered(options, {b"worker"})
    huge = bytes(replies.MAX_PENDING_BYTES + 1)
    for kind in (replies.REQUEST, NEWS, replies.REPLY_TYPE):
        await publish_to_workers(
            options, kind, huge, app_id="x", correlation_id="c", reply_to="amq.rabbitmq.reply-to.x"
        )
    assert (await RabbitQueue(options).request(b"small", PATIENCE)).answers == [b"answer"]
    assert (requests, workers.received_reports.empty(), workers.received.empty()) == ([b"small"], True, True)


async def test_unknown_kind_on_the_side_channel_has_no_effect(options: RabbitOptions, workers: NamedWorkers) -> None:
    """So workers of several releases may share the exchange. One without a sender is another's."""
    await workers.start(options, b"worker")
    await until_answered(options, {b"worker"})
    with capture_logs() as log:
        await publish_to_workers(options, "notifier.later", b"{}", app_id="x")
        await publish_to_workers(options, NEWS, b"\xff")
        await until_answered(options, {b"worker"})
    assert await asyncio.wait_for(workers.received_reports.get(), PATIENCE) == (b"worker", b"\xff")
    assert (workers.received.empty(), log) == (True, [])


async def test_dead_letters_held_by_a_pass_are_counted(options: RabbitOptions, workers: NamedWorkers) -> None:
    """By workers, while another process lists or discards; and not any more once it has given them back."""
    worker = await workers.start(options, b"worker")
    await until_answered(options, {b"worker"})
    await store_dead_letters(worker, *(dead_letter(f"d-{number}") for number in range(20)))
    await ready(worker, DEAD, 20)
    async with (
        RabbitQueue(options)
        .dead_letters()
        .open_pass(make_pass_reader(read_summary, ALL.matches, whole=False)) as queue_pass
    ):
        seen = [*await queue_pass.next_page(), *await queue_pass.next_page()]
        assert len(seen) == 20
        overview = await RabbitQueue(options).read_overview(within=1.0)
        assert (overview.dead_letters_held, worker.status().dead_letters) == (True, 20)
        await queue_pass.remove([found.message for found in seen[:5]])
        assert (await worker.depths())[DEAD].ready == 20
    await ready(worker, DEAD, 15)
    assert not (await RabbitQueue(options).read_overview(within=1.0)).dead_letters_held
