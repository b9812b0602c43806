"""What an operator or an outage does to a whole node, this module's own: alarms, forced closes, a power cut."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from yarl import URL

from notifier.features.feed.feed_event import feed_message
from notifier.model.errors import MessageRefused, QueueError, QueueUnavailable
from notifier.model.message import DEAD, Lane
from notifier.model.notice import ClientChange, ClientNotice
from notifier.queues.rabbitmq import connection, publishing, queue_window, register, side_channel, topology_watch
from notifier.queues.rabbitmq.administration import declare_topology, delete_topology
from notifier.queues.rabbitmq.examination import examine_broker
from notifier.queues.rabbitmq.feed_target import RabbitFeedTarget
from notifier.queues.rabbitmq.queue import RabbitQueue
from notifier.queues.rabbitmq.queue_window import MIN_WINDOW
from notifier.queues.rabbitmq.wire.aiormq_hooks import is_installed
from notifier.settings.queue_settings import QueueSettings
from tests.contract.broker import NamedWorkers, OpenWorker, emptied, until_answered
from tests.contract.parking import fetched_again, park
from tests.contract.queues import (
    PATIENCE,
    Inbox,
    consuming,
    delay_until_durable,
    eventually,
    fill,
    names,
    outgoing,
    publish_until_durable,
    ready,
)
from tests.contract.test_register import pause, paused
from tests.support.rabbit_options import rabbit_options
from tests.support.rabbitmq_node import RabbitmqNode
from tests.support.topologies import verify_topology
from tests.system.clients import Clients, Hit
from tests.system.site import ISSUER, Site, client
from tests.system.waiting import until
from tests.system.worker_process import worker as process

pytestmark = pytest.mark.full  # a dedicated node, and commands to it

SHOP = ("https://id.example.com", "shop")
NOTICE = ClientNotice(id="id-1", at=0.0, state=ClientChange.FAILING, iss="https://id.example.com", client_id="shop")


@pytest.fixture
def amqp_url(module_node: RabbitmqNode) -> str:
    """Return the URL of the node."""
    return module_node.url


@pytest.fixture
def prefix(amqp_url: str) -> str:
    """The only one there."""
    return emptied(amqp_url, "notifier")


@pytest.fixture(scope="module")
def humble(module_node: RabbitmqNode) -> str:
    """A URL with a user who may not configure."""
    module_node.ctl("add_user", "humble", "only-a-test")
    module_node.ctl("set_permissions", "humble", "^$", ".*", ".*")
    return str(URL(module_node.url).with_user("humble").with_password("only-a-test"))


@asynccontextmanager
async def alarm(node: RabbitmqNode) -> AsyncIterator[None]:
    """The node is out of memory."""
    await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.0000001")
    try:
        yield
    finally:
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.4")


async def drop_connections(node: RabbitmqNode) -> None:
    """As an operator does by force."""
    await asyncio.to_thread(node.ctl, "close_all_connections", "operator says so")


async def test_a_forced_close_is_survived(worker: OpenWorker, module_node: RabbitmqNode) -> None:
    """It consumes and publishes again without help. Unacked messages return with a count, and a late ack has no effect.

    Tags restart at 1 on a new channel: an old ack must not ack the message that has its number now.
    """
    inbox = Inbox()
    queue = await worker(inbox)
    for name in "ab":
        await queue.publish(Lane.EVENTS, outgoing(name))
    old = await inbox.some(2)
    await drop_connections(module_node)
    again = await inbox.some(2)
    assert {message.delivery_count for message in again} == {1}  # a lost connection counts as a nack does
    for message in old:
        queue.ack(message)
    await eventually(lambda: set(inbox.lost_lanes) == set(Lane))
    await publish_until_durable(queue, Lane.EVENTS, outgoing("c"))
    assert (await inbox.next()).message_id == "c"
    assert (await consuming(queue)).problem is None
    await queue.close()
    await ready(await worker(), Lane.EVENTS, 3)


def limit_message_size(node: RabbitmqNode, limit: int) -> None:
    """Set the limit of new channels on 3.10, and of all on 4.x."""
    setting = f"application:set_env(rabbit, max_message_size, {limit})"
    node.ctl("eval", f"{setting}, persistent_term:put(max_message_size, {limit}).")


async def test_a_message_that_the_broker_refuses_raises_another_error_than_a_full_queue(
    worker: OpenWorker, module_node: RabbitmqNode
) -> None:
    """The broker closes the channel. Another message is taken on the next one."""
    limit_message_size(module_node, 2000)
    try:
        queue = await worker()
        await publish_until_durable(queue, Lane.EVENTS, outgoing("small"))
        with pytest.raises(MessageRefused, match="message size 3000 is larger than"):
            await queue.publish(Lane.EVENTS, outgoing("large", body=b"x" * 3000))
        await publish_until_durable(queue, Lane.EVENTS, outgoing("other"))
    finally:
        limit_message_size(module_node, 134_217_728)


async def test_unacked_fetched_messages_return_after_a_lost_connection(
    worker: OpenWorker, module_node: RabbitmqNode
) -> None:
    """With its count; an ack of what the lost channel gave has no effect."""
    queue = await worker()
    bucket = await park(queue, SHOP, *"abc")
    taken = await queue.fetch(bucket, 3)
    await drop_connections(module_node)
    again = await fetched_again(queue, bucket, 3)
    assert names(again) == ["a", "b", "c"]
    assert {each.delivery_count for each in again} == {1}
    for each in taken:
        queue.ack(each)
    await queue.close()
    assert names(await fetched_again(await worker(), bucket, 3)) == ["a", "b", "c"]


async def test_a_memory_alarm_blocks_publishing_alone(
    worker: OpenWorker, module_node: RabbitmqNode, amqp_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the broker is out of memory a publish raises, taking and acking go on; afterwards it publishes again.

    The feed takes nothing meanwhile, so that the buffer before it fills. The doctor finds the alarm, whoever met it.
    """
    inbox = Inbox()
    queue = await worker(inbox)
    for name in "ab":
        await queue.publish(Lane.EVENTS, outgoing(name))
    taken = await inbox.some(2)
    feed = RabbitFeedTarget(rabbit_options(amqp_url, prefix), feed_message)
    feeding = asyncio.create_task(feed.run())
    await asyncio.wait_for(feed.wait_until_available(), PATIENCE)
    async with alarm(module_node):
        undecided: list[asyncio.Future[None]] = []

        async def told_so() -> bool:
            """The broker notifies a publisher at its next message, some time after the command."""
            undecided.append(asyncio.ensure_future(queue.publish(DEAD, outgoing("c"))))
            await asyncio.wait(undecided, timeout=0.1)
            return queue.status().blocked

        await until(told_so, bool)
        assert "alarm" in (queue.status().problem or "")
        with pytest.raises(QueueUnavailable, match=r"alarm"):
            await queue.publish(DEAD, outgoing("d"))
        assert queue.status().consuming
        for message in taken:
            queue.ack(message)
        again = await worker()  # another worker can still connect, and look
        await ready(again, Lane.EVENTS, 0)

        async def refused() -> bool:
            try:
                await feed.send([NOTICE])
            except QueueUnavailable:
                return True
            return False

        await until(refused, bool)
        monkeypatch.setattr(connection, "CLOSE_TIMEOUT_SECONDS", 0.5)  # a blocked connection's close is not answered
        assert (await examine_broker(rabbit_options(amqp_url, "of-another"))).blocked
    await asyncio.wait_for(queue.wait_until_available(), PATIENCE)
    assert (queue.status().blocked, queue.status().problem) == (False, None)
    await queue.publish(DEAD, outgoing("d"))
    await asyncio.gather(*undecided, return_exceptions=True)  # held back, then durable or refused
    await queue.close()
    await ready(await worker(), Lane.EVENTS, 0)  # the acks had come through
    await asyncio.wait_for(feed.wait_until_available(), PATIENCE)
    await feed.send([NOTICE])
    feeding.cancel()
    await asyncio.wait({feeding})
    assert not (await examine_broker(rabbit_options(amqp_url, "of-another"))).blocked


async def test_queue_without_confirms_delays_no_other(
    worker: OpenWorker, module_node: RabbitmqNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 33 unconfirmed publishes to one queue, failed ones included, RabbitMQ soon stops reading the connection.

    The status names the queue. Its publishes succeed once it is back; messages with a delay wait in another meanwhile.
    """
    if not is_installed("confirms"):
        pytest.skip("without the hook a publish without a confirm frees its place")
    monkeypatch.setattr(publishing, "CONFIRM_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(queue_window, "LONG_REFUSAL_SECONDS", 1.0)
    queue = await worker()
    await queue.publish("delay.64s", outgoing("first"))
    process = "{'%2F_notifier.delay.64s', node()}"
    await asyncio.to_thread(module_node.ctl, "eval", f"sys:suspend({process}).")
    try:
        names = [f"stuck-{number}" for number in range(600)]
        stuck = [asyncio.create_task(publish_until_durable(queue, "delay.64s", outgoing(name))) for name in names]
        async with asyncio.timeout(PATIENCE):
            while "delay.64s" not in (queue.status().problem or ""):
                await queue.publish(DEAD, outgoing("other"))
            for number in range(1000):
                await queue.publish(DEAD, outgoing(f"other-{number}"))
        assert not any(publish.done() for publish in stuck)
    finally:
        await asyncio.to_thread(module_node.ctl, "eval", f"sys:resume({process}).")
    await asyncio.gather(*stuck)


async def test_few_messages_of_a_silent_delay_queue_wait_for_one_confirm(
    worker: OpenWorker, module_node: RabbitmqNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each further trial would delay one by ten seconds, and leave a copy in the silent queue."""
    if not is_installed("confirms"):
        pytest.skip("without the hook a publish without a confirm frees its place")
    monkeypatch.setattr(publishing, "CONFIRM_TIMEOUT_SECONDS", queue_window.PATIENCE_SECONDS + 0.5)
    queue = await worker()
    await delay_until_durable(queue, 4096, "first")
    process = "{'%2F_notifier.delay.4096s', node()}"
    await asyncio.to_thread(module_node.ctl, "eval", f"sys:suspend({process}).")
    try:
        for number in range(5):
            await delay_until_durable(queue, 4096, f"later-{number}")
        await ready(queue, "delay.2048s", 5)
    finally:
        await asyncio.to_thread(module_node.ctl, "eval", f"sys:resume({process}).")
    await ready(queue, "delay.4096s", 2)


@pytest.mark.parametrize(("is_known", "other", "neighbour"), [(True, 2048, 2048), (False, 16384, 8192)])
async def test_messages_of_a_silent_delay_queue_wait_in_another(
    worker: OpenWorker, module_node: RabbitmqNode, monkeypatch: pytest.MonkeyPatch,
    is_known: bool, other: int, neighbour: int,
) -> None:  # fmt: skip
    """They are durable while it is silent, as all others are. RabbitMQ stops reading a channel that did not know it."""
    if not is_installed("confirms"):
        pytest.skip("without the hook a publish without a confirm frees its place")
    monkeypatch.setattr(publishing, "CONFIRM_TIMEOUT_SECONDS", 3.0)
    monkeypatch.setattr(queue_window, "LONG_REFUSAL_SECONDS", 1.0)
    queue = await worker()
    if is_known:
        await delay_until_durable(queue, 4096, "first")
    process = "{'%2F_notifier.delay.4096s', node()}"
    await asyncio.to_thread(module_node.ctl, "eval", f"sys:suspend({process}).")
    try:
        async with asyncio.timeout(PATIENCE):
            for seconds in (4096, other):
                ids = [f"{seconds}-{number}" for number in range(600)]
                await asyncio.gather(*(delay_until_durable(queue, seconds, id_) for id_ in ids))
            await queue.publish(DEAD, outgoing("a"))
            await park(queue, SHOP, "a")
        for seconds, count in {neighbour: 600, 2048: 600 if neighbour != 2048 else 1200}.items():
            await ready(queue, f"delay.{seconds}s", count)
        assert "for notifier.delay." in (queue.status().problem or "")
    finally:
        await asyncio.to_thread(module_node.ctl, "eval", f"sys:resume({process}).")
    async with asyncio.timeout(PATIENCE):
        while queue.status().refusing:
            await asyncio.gather(*(delay_until_durable(queue, seconds, "last") for seconds in (4096, other)))
    assert (await queue.depths())["delay.4096s"].ready <= MIN_WINDOW + 2  # copies, the first and the last


@pytest.mark.parametrize(
    ("off", "on", "logged"),
    [
        ("set_disk_free_limit 1000000GB", "set_disk_free_limit 100MB", ("publishing_blocked", "publishing_unblocked")),
        ("set_permissions guest .* ^$ .*", "set_permissions guest .* .* .*", ("queue_refuses",)),
    ],
)
async def test_failed_delivery_is_retried_once_the_broker_accepts_it(
    tmp_path: Path, module_node: RabbitmqNode, prefix: str, off: str, on: str, logged: tuple[str, ...]
) -> None:
    """The worker keeps it and its message during a disk alarm, and while its user may not write."""

    async def refuse_first(hit: Hit) -> int:
        if hit.nth == 1:
            await asyncio.to_thread(module_node.ctl, *off.split())
            await asyncio.sleep(2)  # RabbitMQ caches the permissions of a channel until it is idle for a second
        return 503 if hit.nth == 1 else 200

    site = Site(tmp_path, module_node.url, prefix)
    site.config["delivery"]["timeout"] = "60s"  # longer than the command takes
    site.write()
    try:
        async with Clients(refuse_first) as clients:
            site.write_clients([client("shop", clients.url("shop"))])
            async with process(site) as running:
                assert (await running.post({"iss": ISSUER, "sid": "s-1", "clients": ["shop"]}))[0] == 202
                await running.until_logged(logged[0])
                assert await running.metric("queue_unsettled") == len(clients.hits) == 1
                await asyncio.to_thread(module_node.ctl, *on.split())
                await clients.until(lambda: clients.notified("shop") == ["s-1"] * 2)
                await running.until_logged(logged[-1])
                assert (await running.metric("dead_letters_total"), await running.stop()) == (0, 0)
    finally:
        await asyncio.to_thread(module_node.ctl, *on.split())


async def test_user_without_configure_permission_can_verify(humble: str, amqp_url: str, prefix: str) -> None:
    """Declaring fails for such a user with this reason; verifying another user's topology succeeds."""
    options = rabbit_options(humble, prefix, topology="verify")
    with pytest.raises(QueueError, match=r"ACCESS_REFUSED.*verify"):
        await declare_topology(rabbit_options(humble, "new"))
    await declare_topology(rabbit_options(amqp_url, prefix))
    await verify_topology(options)


async def test_workers_without_a_side_channel_are_counted_by_consumers(
    humble: str, amqp_url: str, prefix: str, workers: NamedWorkers
) -> None:
    """By those of a lane of which each worker has one consumer. One of a worker with a side channel counts, too."""
    options = rabbit_options(humble, prefix, topology="verify")
    silent = [await workers.start(options, name, announces=True) for name in (b"first", b"second", b"third")]
    await eventually(lambda: [queue.worker_count() for queue in silent] == [3, 3, 3])
    announcing = await workers.start(rabbit_options(amqp_url, prefix), b"fourth", announces=True)
    await eventually(lambda: announcing.worker_count() == 4)


@pytest.mark.parametrize("order", ["first", "last"])
async def test_a_worker_without_a_side_channel_is_counted_whenever_it_starts(
    humble: str, amqp_url: str, prefix: str, workers: NamedWorkers, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """Before or after two workers that announce themselves."""
    monkeypatch.setattr(topology_watch, "CHECK_INTERVAL_SECONDS", 0.2)
    options = [rabbit_options(amqp_url, prefix)] * 2
    options.insert(0 if order == "first" else 2, rabbit_options(humble, prefix, topology="verify"))
    for name, each in zip((b"1", b"2", b"3"), options, strict=True):
        await workers.start(each, name, announces=True)
        await eventually(lambda: {queue.worker_count() for queue in workers.queues} == {len(workers.queues)})
    overview = await RabbitQueue(options[0]).read_overview(1.0)
    assert (overview.workers, sorted(overview.worker_states)) == (3, [b"2", b"3"] if order == "first" else [b"1", b"2"])


async def test_user_without_declare_permission_can_still_reply(
    humble: str, amqp_url: str, prefix: str, workers: NamedWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `topology: verify` a worker's user needs no permission to configure."""
    monkeypatch.setattr(side_channel, "REOPEN_DELAY_SECONDS", 0.1)
    options = rabbit_options(amqp_url, prefix)
    replying = await workers.start(rabbit_options(humble, prefix, topology="verify"), b"humble")
    answering = await workers.start(options, b"worker")
    await until_answered(options, {b"worker"})

    async def reported() -> bool:
        replying.side_channel.reply(answering.side_channel.address, "c-1", b"told")
        return not workers.received.empty()

    assert await until(reported, bool)


async def test_user_without_write_to_workers_exchange_receives_and_replies(
    module_node: RabbitmqNode, amqp_url: str, prefix: str, workers: NamedWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker closes the channel at the first report. It is opened again, and no more reports are sent."""
    monkeypatch.setattr(side_channel, "REOPEN_DELAY_SECONDS", 0.1)
    await asyncio.to_thread(module_node.ctl, "add_user", "mute", "only-a-test")
    most = r"^(amq\.default|notifier\.(?!workers$).*)$"
    await asyncio.to_thread(module_node.ctl, "set_permissions", "mute", ".*", most, ".*")
    url = str(URL(amqp_url).with_user("mute").with_password("only-a-test"))
    queue = await workers.start(rabbit_options(url, prefix), b"mute")
    await workers.start(options := rabbit_options(amqp_url, prefix), b"worker")
    await until_answered(options, {b"mute", b"worker"})
    news = workers.news[b"mute"]
    news.put_nowait(b"saw")
    await eventually(news.empty)
    await eventually(lambda: not queue.side_channel._may_share)
    news.put_nowait(b"saw more")
    await until_answered(options, {b"mute", b"worker"})
    workers.news[b"worker"].put_nowait(b"saw")
    assert await asyncio.wait_for(workers.received_reports.get(), PATIENCE) == (b"mute", b"saw")
    assert (workers.received_reports.empty(), news.qsize()) == (True, 1)


async def test_reports_are_dropped_while_the_broker_blocks(
    module_node: RabbitmqNode, amqp_url: str, prefix: str, workers: NamedWorkers
) -> None:
    """Later reports are sent."""
    options = rabbit_options(amqp_url, prefix)
    first = await workers.start(options, b"first")
    await workers.start(options, b"second")
    await until_answered(options, {b"first", b"second"})
    async with alarm(module_node):
        with pytest.raises(QueueUnavailable, match="no confirm within"):
            await fill(first, DEAD)
        workers.news[b"first"].put_nowait(b"saw")
        await eventually(workers.news[b"first"].empty)
    await until_answered(options, {b"first", b"second"})
    workers.news[b"first"].put_nowait(b"saw more")
    assert await asyncio.wait_for(workers.received_reports.get(), PATIENCE) == (b"second", b"saw more")


async def test_permissions_of_a_user_are_examined_separately(humble: str, module_node: RabbitmqNode) -> None:
    """As the doctor finds it. The last test that needs this user's rights as they were."""
    state = await examine_broker(rabbit_options(humble, "doctored"))
    assert (state.may_configure, state.may_write, state.may_read) == (False, True, True)
    assert not state.may_announce
    await asyncio.to_thread(module_node.ctl, "set_permissions", "humble", r"^doctored\.worker(s|\..*)$", ".*", ".*")
    state = await examine_broker(rabbit_options(humble, "doctored"))
    assert (state.may_configure, state.may_announce) == (False, True)
    await asyncio.to_thread(module_node.ctl, "set_permissions", "humble", r"^doctored\.", "^$", "^$")
    state = await examine_broker(rabbit_options(humble, "doctored"))
    assert (state.may_configure, state.may_write, state.may_read) == (True, False, False)


@pytest.mark.parametrize(
    ("vhost", "says"),
    [
        ("missing", "vhost missing not found"),
        ("closed", "access to vhost 'closed' refused for user 'guest'"),
        ("full", "connection limit (0) is reached"),
        ("crowded", "limit"),
    ],
)
async def test_a_refused_connection_has_the_text_of_the_broker(
    module_node: RabbitmqNode, vhost: str, says: str
) -> None:
    """A missing virtual host, missing permissions, and limits of a virtual host and of a user have different texts."""
    node = module_node
    if vhost != "missing":
        node.ctl("add_vhost", vhost)
    if vhost in ("full", "crowded"):
        node.ctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
    if vhost == "full":
        node.ctl("set_vhost_limits", "-p", vhost, '{"max-connections": 0}')
    if vhost == "crowded":
        node.ctl("set_user_limits", "guest", '{"max-connections": 0}')
    try:
        url = str(URL(node.url).with_path(f"/{vhost}"))
        with pytest.raises(QueueError, match=f"refused virtual host '{vhost}': 530 NOT_ALLOWED") as caught:
            await connection.connect(rabbit_options(url, "notifier"), "test")
        assert says in str(caught.value)
    finally:
        if vhost == "crowded":
            node.ctl("clear_user_limits", "guest", "all")
        if vhost != "missing":
            node.ctl("delete_vhost", vhost)


@pytest.mark.parametrize("channel_max", [2, 5])
async def test_few_channels_are_enough_to_declare(module_node: RabbitmqNode, channel_max: int) -> None:
    """A broker may allow few channels. Declares use at most half of the free ones, and the test beside them another."""
    node, options = module_node, rabbit_options(module_node.url, "few")
    node.ctl("eval", f"application:set_env(rabbit, channel_max, {channel_max}).")
    try:
        await declare_topology(options)
        await verify_topology(options)
        await delete_topology(options)
    finally:
        node.ctl("eval", "application:set_env(rabbit, channel_max, 2047).")


def test_the_commands_that_show_all_policies_exist(module_node: RabbitmqNode) -> None:
    """The commands that the removed setting `queue.management` names show a policy on every supported broker."""
    commands = re.findall(r"rabbitmqctl ((?:\w+)(?: name \w+)?)", QueueSettings.gone["management"])
    module_node.ctl("set_policy", "limit", "^elsewhere$", '{"max-length": 1}')
    try:
        assert "elsewhere" in "".join(module_node.ctl(*command.split()) for command in commands)
    finally:
        module_node.ctl("clear_policy", "limit")


async def test_change_of_the_pauses_under_an_alarm_is_refused(
    module_node: RabbitmqNode, amqp_url: str, prefix: str
) -> None:
    """It changes nothing, and holds nothing: the pauses are read meanwhile, and changed afterwards."""
    options = rabbit_options(amqp_url, prefix)
    reader = register.RabbitRegister(options, lambda: None)
    await pause(reader, "shop")
    async with alarm(module_node):
        with pytest.raises(QueueUnavailable, match=r"nothing was changed|no channel"):
            await pause(register.RabbitRegister(options, lambda: None), "crm")
        assert paused(await reader.read()) == {"shop"}
    assert paused(await pause(reader, "wiki")) == {"shop", "wiki"}
    await reader.close()


async def test_killed_node_keeps_the_pauses(module_node: RabbitmqNode, amqp_url: str, prefix: str) -> None:
    """All changes that were confirmed."""
    first = register.RabbitRegister(rabbit_options(amqp_url, prefix), lambda: None)
    for name in ("shop", "crm", "wiki"):
        await pause(first, name)
    await asyncio.to_thread(module_node.kill)
    await asyncio.to_thread(module_node.start)
    other = register.RabbitRegister(rabbit_options(amqp_url, prefix), lambda: None)

    async def read() -> set[str]:
        try:
            return paused(await other.read())
        except QueueError:
            return set()

    await until(read, lambda found: found == {"shop", "crm", "wiki"})
    await asyncio.gather(first.close(), other.close())
