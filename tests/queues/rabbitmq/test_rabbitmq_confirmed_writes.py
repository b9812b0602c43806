"""Publishes written together and confirmed one by one, by a real broker."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count

import aiormq
import pytest
from pamqp.common import FieldTable

from notifier.model.errors import QueueUnavailable
from notifier.queues.rabbitmq import publishing as publishing_module
from notifier.queues.rabbitmq.connection import connect, open_channel
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.publishing import Publishing
from notifier.queues.rabbitmq.queue_window import MIN_WINDOW
from notifier.queues.rabbitmq.wire import publish as wire_publish
from notifier.queues.rabbitmq.wire.aiormq_hooks import install
from notifier.queues.rabbitmq.wire.publish import MAX_GATHERED, Confirmation, ConfirmedWrites, Publish
from tests.support.library_changes import HOOKS


@pytest.fixture
def singly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hook for publishes does not fit: each is written by aiormq."""
    HOOKS["confirms"](monkeypatch.setattr)
    install.cache_clear()
    yield
    monkeypatch.undo()
    install.cache_clear()


@asynccontextmanager
async def writes_to(
    url: str, seconds: float = 30.0, *, writing: bool = True
) -> AsyncIterator[tuple[ConfirmedWrites, str]]:
    """Open writes on a dedicated channel, and declare a queue."""
    connection = await connect(RabbitOptions(urls=(url,)), "test")
    try:
        channel = await open_channel(connection, confirms=True)
        queue = (await channel.queue_declare(exclusive=True)).queue
        assert queue is not None
        writes = ConfirmedWrites(channel, seconds)
        task = asyncio.create_task(writes.run()) if writing else None
        yield writes, queue
        if task is not None:
            task.cancel()
    finally:
        await connection.close()


def begin(
    writes: ConfirmedWrites, queue: str, body: bytes, message_id: str, *, exchange: str = "", patient: bool = False
) -> Confirmation:
    """Start to publish a persistent message, and return its confirmation."""
    publish = Publish(
        exchange=exchange,
        routing_key=queue,
        body=body,
        message_id=message_id,
        content_type="text/plain",
        patient=patient,
    )
    return writes.write(publish)


async def test_patient_write_waits_briefly_for_others(amqp_url: str) -> None:
    """Alone it is written all the same, and the next that cannot wait takes it along, in order."""
    async with writes_to(amqp_url) as (writes, queue):
        patient = begin(writes, queue, b"1", "a", patient=True)
        assert not writes._wake.is_set()
        async with asyncio.timeout(30):
            await patient
            again = begin(writes, queue, b"2", "b", patient=True)
            at_once = begin(writes, queue, b"3", "c")
            assert writes._wake.is_set()
            await asyncio.gather(again, at_once)
            for body in (b"4", b"5"):  # on either side of the moment when those before would have been written
                await begin(writes, queue, body, body.decode(), patient=True)
        channel = writes._channel
        for body in (b"1", b"2", b"3", b"4", b"5"):
            assert (await channel.basic_get(queue, no_ack=True)).body == body


async def test_patient_writes_do_not_wait_when_enough(amqp_url: str) -> None:
    """If every message of a lane is deferred again, the broker sends more only after their acks."""
    async with writes_to(amqp_url, writing=False) as (writes, queue):
        for number in range(MAX_GATHERED - 1):
            begin(writes, queue, b"", f"m{number}", patient=True)
        assert not writes._wake.is_set()
        begin(writes, queue, b"", "last", patient=True)
        assert writes._wake.is_set()


async def test_write_without_a_confirm_ends_at_its_deadline(amqp_url: str) -> None:
    """Those that have time left, or are confirmed, are left alone."""
    async with writes_to(amqp_url, seconds=0.0, writing=False) as (writes, queue):
        overdue = begin(writes, queue, b"", "a")
        writes._timeout = 60.0
        in_time = begin(writes, queue, b"", "b")
        writes.end_overdue()
        with pytest.raises(TimeoutError):
            await overdue
        assert not in_time.done()


async def test_channel_closed_by_the_broker_keeps_the_connection(amqp_url: str) -> None:
    """Nothing is written behind the goodbye, however much is under way: RabbitMQ would close the connection over it."""
    connection = await connect(RabbitOptions(urls=(amqp_url,)), "test")
    try:
        channel = await open_channel(connection, confirms=True)
        writes = ConfirmedWrites(channel, 30.0)
        task = asyncio.create_task(writes.run())
        begun = [begin(writes, "", b"", "first", exchange="no-such-exchange")]
        async with asyncio.timeout(30):
            for number in count():
                if channel.is_closed:
                    break
                begun.append(begin(writes, "no-such-queue", b"", f"m{number}"))
                await asyncio.sleep(0)
        task.cancel()
        writes.end(ConnectionError("gone"))
        await asyncio.gather(*begun, return_exceptions=True)
        other = await open_channel(connection)
        async with asyncio.timeout(30):
            assert (await other.queue_declare(exclusive=True)).queue
    finally:
        await connection.close()


async def test_cancelled_publish_keeps_its_place(amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its confirm, since the broker counts it as long."""
    held = asyncio.Event()
    write = ConfirmedWrites.run

    async def hold(writes: ConfirmedWrites) -> None:
        await held.wait()
        await write(writes)

    monkeypatch.setattr(ConfirmedWrites, "run", hold)
    connection = await connect(RabbitOptions(urls=(amqp_url,)), "test")
    publishing, opened = Publishing(asyncio.Event()), asyncio.Semaphore(0)
    serving = asyncio.create_task(publishing.serve(connection, opened.release))
    try:
        queue = (await (await open_channel(connection)).queue_declare(exclusive=True)).queue or ""
        async with asyncio.timeout(30):
            await opened.acquire()
            begun = [asyncio.create_task(publishing.publish(message(f"m{n}", queue))) for n in range(MIN_WINDOW)]
            await asyncio.sleep(0)
            for publish in begun:
                publish.cancel()
            await asyncio.wait(begun)
            assert publishing._windows[queue]._places.locked()
            held.set()
            await publishing.publish(message("next", queue))
    finally:
        serving.cancel()
        await connection.close()


@pytest.mark.usefixtures("singly")
@pytest.mark.parametrize("ends_by", ["timeout", "cancellation"])
async def test_public_publish_keeps_its_place(amqp_url: str, monkeypatch: pytest.MonkeyPatch, ends_by: str) -> None:
    """Until the late confirm, since the broker counts it as long."""
    if ends_by == "timeout":
        monkeypatch.setattr(publishing_module, "CONFIRM_TIMEOUT_SECONDS", 0.0)
    connection = await connect(RabbitOptions(urls=(amqp_url,)), "test")
    publishing, opened = Publishing(asyncio.Event()), asyncio.Semaphore(0)
    serving = asyncio.create_task(publishing.serve(connection, opened.release))
    try:
        queue = (await (await open_channel(connection)).queue_declare(exclusive=True)).queue or ""
        async with asyncio.timeout(30):
            await opened.acquire()
            begun = [asyncio.create_task(publishing.publish(message(f"m{n}", queue))) for n in range(MIN_WINDOW)]
            if ends_by == "cancellation":
                for _ in range(3):
                    await asyncio.sleep(0)
                for publish in begun:
                    publish.cancel()
            ends = await asyncio.gather(*begun, return_exceptions=True)
            assert {type(end) for end in ends} <= {QueueUnavailable, asyncio.CancelledError}
            places = publishing._windows[queue]._places
            assert places.locked()
            for _ in range(MIN_WINDOW):
                await places.acquire()
    finally:
        serving.cancel()
        await connection.close()


@pytest.mark.usefixtures("singly")
async def test_public_publish_keeps_the_connection_too(amqp_url: str) -> None:
    """Of a channel that the broker closes: publishes under way fail, each once, and later ones go by a new channel."""
    connection = await connect(RabbitOptions(urls=(amqp_url,)), "test")
    publishing = Publishing(asyncio.Event())
    opened = asyncio.Semaphore(0)
    serving = asyncio.create_task(publishing.serve(connection, opened.release))
    try:
        async with asyncio.timeout(30):
            await opened.acquire()
            refused = [asyncio.create_task(publishing.publish(message("first", exchange="no-such-exchange")))]
            while publishing.refusal is None:
                refused.append(asyncio.create_task(publishing.publish(message(f"m{len(refused)}"))))
                await asyncio.sleep(0)
            ends = await asyncio.gather(*refused, return_exceptions=True)
            assert all(isinstance(end, QueueUnavailable) for end in ends)
            await opened.acquire()
            queue = (await (await open_channel(connection)).queue_declare(exclusive=True)).queue
            await publishing.publish(message("last", queue or ""))
    finally:
        serving.cancel()
        await connection.close()


@pytest.mark.usefixtures("singly")
async def test_replaced_channel_stays_open_for_a_public_publish(amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in flight when nacks for another queue replace its channel, and is confirmed later."""
    released, publish_singly = asyncio.Event(), wire_publish.publish_singly

    async def hold(publish: Publish, channel: aiormq.Channel, *, replies: bool = False) -> None:
        if publish.message_id == "held":
            await released.wait()
        await publish_singly(publish, channel, replies=replies)

    monkeypatch.setattr(wire_publish, "publish_singly", hold)
    monkeypatch.setattr(publishing_module, "CHECK_INTERVAL_SECONDS", 0.01)
    connection = await connect(RabbitOptions(urls=(amqp_url,)), "test")
    publishing, opened = Publishing(asyncio.Event()), asyncio.Semaphore(0)
    serving = asyncio.create_task(publishing.serve(connection, opened.release))
    try:
        channel = await open_channel(connection)
        full: FieldTable = {"x-max-length": 1, "x-overflow": "reject-publish"}
        refusing = (await channel.queue_declare(exclusive=True, arguments=full)).queue or ""
        other = (await channel.queue_declare(exclusive=True)).queue or ""
        async with asyncio.timeout(30):
            await opened.acquire()
            held = asyncio.create_task(publishing.publish(message("held", other)))
            await publishing.publish(message("first", refusing))
            while opened.locked():
                with pytest.raises(QueueUnavailable, match="nack"):
                    await publishing.publish(message("refused", refusing))
                await publishing.wait_until_available()
            await publishing.wait_until_available()  # five checks or more of the former channel
            released.set()
            await held
    finally:
        serving.cancel()
        await connection.close()


async def test_nacks_replace_the_channel_without_a_failed_publish(amqp_url: str) -> None:
    """Publishes to another queue are in flight on both channels meanwhile, and each is confirmed."""
    connection = await connect(RabbitOptions(urls=(amqp_url,)), "test")
    publishing, opened, ended = Publishing(asyncio.Event()), asyncio.Semaphore(0), asyncio.Event()
    serving = asyncio.create_task(publishing.serve(connection, opened.release))

    async def publish_until_ended(name: str, queue: str) -> None:
        for number in count():
            await publishing.publish(message(f"{name}-{number}", queue))
            if ended.is_set():
                return

    try:
        channel = await open_channel(connection)
        full: FieldTable = {"x-max-length": 1, "x-overflow": "reject-publish"}
        refusing = (await channel.queue_declare(exclusive=True, arguments=full)).queue or ""
        other = (await channel.queue_declare(exclusive=True)).queue or ""
        async with asyncio.timeout(30), asyncio.TaskGroup() as others:
            await opened.acquire()
            for name in "abc":
                others.create_task(publish_until_ended(name, other))
            await publishing.publish(message("first", refusing))
            while opened.locked():
                with pytest.raises(QueueUnavailable, match="nack"):
                    await publishing.publish(message("refused", refusing))
                await publishing.wait_until_available()
            ended.set()
    finally:
        serving.cancel()
        await connection.close()


def message(message_id: str, queue: str = "no-such-queue", *, exchange: str = "") -> Publish:
    return Publish(exchange=exchange, routing_key=queue, body=b"", message_id=message_id, content_type="text/plain")
