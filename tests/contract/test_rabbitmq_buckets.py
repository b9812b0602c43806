"""Buckets on a real broker: what is parked stays until it is fetched, and is lost by nobody's loss."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import aio_pika
import pytest
from aio_pika.abc import HeadersType

from notifier.model.errors import QueueUnavailable
from notifier.model.message import Kind, Lane, Message
from notifier.queues.passes import ReadMessage
from notifier.queues.rabbitmq import buckets
from notifier.queues.rabbitmq.administration import read_depths
from notifier.queues.rabbitmq.buckets import bucket_number
from notifier.queues.rabbitmq.connection import connected
from notifier.queues.rabbitmq.queue import RabbitQueue
from tests.contract.broker import Administrator, OpenWorker
from tests.contract.parking import fetched_again, park, parked
from tests.contract.queues import PATIENCE, Inbox, eventually, names, outgoing
from tests.simulator.virtual_time import VirtualLoop
from tests.support.rabbit_options import rabbit_options

SHOP = ("https://id.example.com", "shop")


@pytest.fixture
def worker(worker: OpenWorker) -> OpenWorker:
    """With one bucket."""
    return partial(worker, buckets=1)


def test_a_client_has_one_bucket_for_ever() -> None:
    """The number goes into the names that workers of all releases share: it may never change."""
    assert [bucket_number((SHOP[0], name), 64) for name in ("shop", "mail", "wiki")] == [42, 42, 28]
    assert bucket_number(("a", "bc"), 2**32) != bucket_number(("ab", "c"), 2**32)
    assert [bucket_number((SHOP[0], name), 64, large=True) - 64 for name in ("shop", "mail", "wiki")] == [8, 8, 11]
    queue = RabbitQueue(rabbit_options("amqp://host/", buckets=64))
    assert queue.bucket(SHOP) == f"parked-{bucket_number(SHOP, 64):02d}.delay.1024s"
    assert queue.bucket(SHOP, large=True) == f"parked-large-{bucket_number(SHOP, 64, large=True) - 64:02d}.delay.1024s"


def test_each_single_get_has_its_own_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the hook for messages, a batch of 64 over a long round trip takes longer than the timeout of one."""
    monkeypatch.setattr(buckets, "is_installed", lambda _hook: False)
    monkeypatch.setattr(buckets, "to_message", lambda _origin, message, *_tag, **_more: message)

    async def fetch(get_seconds: float) -> int:
        reader = buckets.BucketReader(rabbit_options("amqp://host/"), asyncio.Event())
        reader._busy["bucket"] = getter = buckets._Getter(cast("Any", SlowChannel(get_seconds)))
        try:
            return len(await reader.fetch("bucket", 64))
        finally:
            getter.forget()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(fetch(1.0)) == 64
        with pytest.raises(QueueUnavailable, match="cannot fetch from bucket"):
            runner.run(fetch(1000.0))


class SlowChannel:
    """A channel whose gets take so long, of a queue with many messages."""

    is_closed = True

    def __init__(self, get_seconds: float) -> None:
        self._get_seconds = get_seconds

    async def basic_get(self, _queue: str) -> "SlowChannel":
        """Return the next message."""
        await asyncio.sleep(self._get_seconds)
        return self

    delivery_tag = 1


@pytest.mark.parametrize("large", [False, True])
async def test_unfetched_message_returns_as_a_retry(worker: OpenWorker, *, large: bool) -> None:
    """By its TTL, even if nobody knows of it any more: the last worker that knew of large buckets has stopped. It comes
    back as a deferral does.

    That one takes an `x-death` of a queue whose name ends like a delay queue's, by the default exchange, expired.
    """
    inbox = Inbox()
    queue = await worker(inbox, parked_for=1)
    await queue.park(queue.bucket(SHOP, large=large), outgoing("a"), until=0)
    message = await inbox.next()
    assert (message.message_id, message.lane, message.kind) == ("a", Lane.RETRIES, Kind.DELIVERY)
    deaths = message.headers["x-death"]
    assert isinstance(deaths, list)
    [death] = deaths
    assert (death["exchange"], death["reason"]) == ("", "expired")
    assert re.search(rf"\.parked-{'large-' if large else ''}00\.delay\.1s$", death["queue"])
    assert {int(name.rpartition(".")[2][:-1]).bit_count() for name in (queue.bucket(SHOP), "delay.1024s")} == {1}


async def test_operators_see_what_is_in_a_large_bucket(worker: OpenWorker) -> None:
    """Its messages are parked, and belong to their client."""
    queue = await worker()
    buckets = [await park(queue, SHOP, "a"), queue.bucket(SHOP, large=True)]
    await queue.park(buckets[1], outgoing("b"), until=0)
    await parked(queue, dict.fromkeys(buckets, 1))
    assert (await queue.depths())["parked"].ready == 2

    def read(message: Message) -> ReadMessage[str]:
        return ReadMessage(message=message, summary=message.message_id)

    found = []
    async with queue.waiting().open_pass(read, clients=[SHOP]) as waiting:
        while page := await waiting.next_page():
            found += [entry.summary for entry in page]
    assert found == ["a", "b"]


async def test_missing_bucket_is_declared_again(worker: OpenWorker, administrator: Administrator, prefix: str) -> None:
    """Parking, fetching and counting declare it again (no message is confirmed that is in no queue)."""
    queue = await worker()
    bucket = queue.bucket(SHOP)

    async def gone() -> None:
        await administrator.queue_delete(f"{prefix}.{bucket}")

    async def back(use: Callable[[], Awaitable[object]]) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(QueueUnavailable):
                    await use()
                    return
                await queue.wait_until_available()

    await gone()
    with pytest.raises(QueueUnavailable, match=re.escape(f"{prefix}.{bucket}")):
        await park(queue, SHOP, "a")
    await back(lambda: park(queue, SHOP, "a"))
    assert names(await queue.fetch(bucket, 1)) == ["a"]
    await gone()
    with pytest.raises(QueueUnavailable, match=re.escape(f"{prefix}.{bucket}")):
        await queue.fetch(bucket, 1)
    await back(lambda: queue.fetch(bucket, 1))
    await gone()
    assert await queue.count_parked() == {}
    await back(lambda: park(queue, SHOP, "b"))
    await eventually(lambda: queue.status().problem is None)


async def test_unreadable_bucket_does_not_affect_others(worker: OpenWorker) -> None:
    """Only its first failed fetch closes a channel: messages that others fetched through
    that channel are redelivered.
    """
    queue = await worker()
    bucket = await park(queue, SHOP, "a")
    await queue.fetch(bucket, 1)
    with pytest.raises(QueueUnavailable):
        await queue.fetch("none", 1)
    [again] = await fetched_again(queue, bucket, 1)
    for _ in range(3):
        with pytest.raises(QueueUnavailable):
            await queue.fetch("none", 1)
    assert list(await queue.fetch(bucket, 1)) == []
    queue.ack(again)
    await parked(queue, {})


async def test_publishers_cannot_write_to_a_bucket(
    worker: OpenWorker, administrator: Administrator, prefix: str
) -> None:
    """Neither by the routing key nor by `CC`, which both stay within the exchange; there it is an event like any."""
    inbox = Inbox()
    queue = await worker(inbox)
    name = f"{prefix}.{queue.bucket(SHOP)}"
    exchange = await administrator.get_exchange(f"{prefix}.events", ensure=False)
    ways: list[tuple[str, HeadersType]] = [(name, {}), ("x", {"CC": [name]}), ("x", {"BCC": [name]})]
    for key, headers in ways:
        await exchange.publish(aio_pika.Message(b"{}", type="notifier.delivery", headers=headers), key)
        assert (await inbox.next()).kind is None
    assert await queue.fetch(queue.bucket(SHOP), 1) == []


async def test_missing_queues_have_no_depth(amqp_url: str, prefix: str) -> None:
    """The broker closes the channel of such a question; those after it are asked again."""
    names = ["a", Lane.EVENTS, "b", "c", Lane.RETRIES, Lane.BULK] * 4
    async with connected(rabbit_options(amqp_url, prefix), "test") as connection:
        depths = await read_depths(connection, {f"{at} {name}": f"{prefix}.{name}" for at, name in enumerate(names)})
    assert list(depths) == [f"{at} {name}" for at, name in enumerate(names) if name in tuple(Lane)]
