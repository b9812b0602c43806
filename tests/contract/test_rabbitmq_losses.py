"""Losses of a connection for which aiormq has no exception: each is an ordinary loss here.

A TLS proxy stands before the broker. Over TLS the last frames and the end of the stream arrive together, as from a
broker or proxy that sends a close and disconnects.
"""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from pathlib import Path

import aiormq.connection
import pytest
from structlog.testing import capture_logs
from yarl import URL

from notifier.model.client import TlsFiles
from notifier.model.errors import QueueUnavailable
from notifier.model.message import DEAD, Lane
from notifier.queues.rabbitmq.administration import declare_topology, survey_topology
from notifier.queues.rabbitmq.connection import Connection, close_bounded, connect, open_channel, underlay_of
from notifier.queues.rabbitmq.link import Link
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.queue import RabbitQueue
from tests.contract.broker import OpenWorker
from tests.contract.queues import PATIENCE, Inbox, consuming, eventually, outgoing, publish_until_durable
from tests.support.certificates import authority
from tests.support.hanging_files import hanging
from tests.support.rabbit_options import rabbit_options

NOTHING = b"\0" * 64  # never sent
CHANNEL_CLOSE = b"\x00\x14\x00\x28"
QUEUE_NOT_FOUND = CHANNEL_CLOSE + (404).to_bytes(2)
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"


class Proxy:
    """Forwards everything until it is set to hold data back."""

    def __init__(self, broker: URL) -> None:
        self.url = ""
        self.ending_at_once = False  # new connections get the broker's first words and the end
        self.silent_from = NOTHING  # the data at which the proxy falls silent
        self._broker = broker
        self._passing = asyncio.Event()
        self._passing.set()
        self._clients: dict[asyncio.StreamWriter, asyncio.Task[object] | None] = {}

    @property
    def silent(self) -> bool:
        """Return True while the proxy passes nothing on."""
        return not self._passing.is_set()

    @property
    def connections(self) -> int:
        """Return the number of open connections."""
        return len(self._clients)

    def fall_silent(self) -> None:
        """Keep the connections and pass nothing on."""
        self._passing.clear()

    def speak_again(self) -> None:
        """Forward the held data, and everything after it."""
        self.silent_from = NOTHING
        self._passing.set()

    def end(self) -> None:
        """Send each client a last frame, and close its connection. Serve new connections again."""
        for client in self._clients:
            client.write(HEARTBEAT)
            client.close()
        self.silent_from = NOTHING
        silent, self._passing = self._passing, asyncio.Event()
        self._passing.set()
        silent.set()

    async def gone(self) -> None:
        """Return once every connection is done with."""
        if tasks := {task for task in self._clients.values() if task is not None}:
            await asyncio.wait(tasks, timeout=PATIENCE)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        passing = self._passing
        self._clients[writer] = asyncio.current_task()
        from_broker, to_broker = await asyncio.open_connection(self._broker.host, self._broker.port)
        pumps = {
            asyncio.ensure_future(self._pump(reader, to_broker, passing)),
            asyncio.ensure_future(self._pump(from_broker, writer, passing, last=self.ending_at_once)),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            del self._clients[writer]
            to_broker.close()
            writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passing: asyncio.Event, *, last: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self.silent_from in data:
                    self.fall_silent()
                await passing.wait()
                if writer.is_closing():
                    return
                writer.write(data)
                if last:
                    return
                await writer.drain()


@pytest.fixture
async def proxy(amqp_url: str, tmp_path: Path) -> AsyncIterator[Proxy]:
    """Start a proxy before the broker."""
    broker = URL(amqp_url)
    proxy = Proxy(broker)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=authority(tmp_path).server())
    port = server.sockets[0].getsockname()[1]
    proxy.url = str(broker.with_scheme("amqps").with_host("localhost").with_port(port))
    yield proxy
    proxy.end()
    server.close()
    await proxy.gone()


@pytest.fixture
def options(proxy: Proxy, prefix: str, tmp_path: Path) -> RabbitOptions:
    """By way of the proxy."""
    return rabbit_options(proxy.url, prefix, tls=TlsFiles(ca_file=tmp_path / "ca.pem"))


@pytest.fixture
async def queue(options: RabbitOptions, worker: OpenWorker) -> RabbitQueue:
    """A worker's, by way of the proxy."""
    return await worker(urls=options.urls, tls=options.tls)


async def test_eof_right_after_a_frame_is_a_lost_connection(proxy: Proxy, queue: RabbitQueue) -> None:
    """aiormq ends with a bare `Exception` whatever waits; here it is QueueUnavailable, and all stands again."""
    inbox = Inbox()
    await queue.consume(inbox)
    await consuming(queue)
    proxy.fall_silent()
    waiting = [asyncio.ensure_future(queue.publish(DEAD, outgoing(str(count)))) for count in range(20)]
    waiting += [asyncio.ensure_future(asking) for asking in (queue.depths(), queue.count_parked())]  # type: ignore[arg-type]  # their results are not used
    waiting.append(asyncio.ensure_future(queue.stop_consuming()))
    await asyncio.wait(waiting, timeout=0.1)  # so that each waits for the broker's answer
    proxy.end()
    *results, stopped = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {QueueUnavailable}
    assert stopped is None
    await queue.consume(inbox)
    await publish_until_durable(queue, Lane.EVENTS, outgoing("a"))
    assert (await inbox.next()).message_id == "a"


async def test_an_end_while_the_topology_is_declared(proxy: Proxy, options: RabbitOptions, queue: RabbitQueue) -> None:
    """A reconnecting worker tries again; an administrator gets an error about the loss."""
    for asking in (declare_topology, survey_topology):
        proxy.silent_from = b".delay.1s"
        asked = asyncio.ensure_future(asking(options))
        await eventually(lambda: proxy.silent)
        proxy.end()
        with pytest.raises(QueueUnavailable):
            await asked
        proxy.silent_from = b".delay.1s"  # the worker connects again, and declares
        await eventually(lambda: proxy.silent)
        proxy.end()
        await asyncio.wait_for(queue.wait_until_ready(), PATIENCE)  # else it is the worker that meets the next silence
    await publish_until_durable(queue, DEAD, outgoing("a"))


async def test_eof_right_after_the_handshake_is_a_lost_connection(
    proxy: Proxy, options: RabbitOptions, queue: RabbitQueue
) -> None:
    """Connecting fails by name, and a worker goes on trying."""
    proxy.ending_at_once = True
    with pytest.raises(QueueUnavailable):
        await connect(options, "look")
    proxy.end()
    await eventually(lambda: not queue.status().connected and queue.status().problem is not None)
    proxy.ending_at_once = False
    await publish_until_durable(queue, DEAD, outgoing("a"))


@pytest.mark.parametrize("name", ["password", "ca.pem"])
async def test_file_that_hangs_delays_only_the_connection(
    proxy: Proxy, options: RabbitOptions, worker: OpenWorker, tmp_path: Path, name: str
) -> None:
    """The event loop continues while the mount is dead. Once the file answers, the worker connects again."""
    password, file = tmp_path / "password", tmp_path / name
    password.write_text(URL(proxy.url).password or "")
    user = URL(proxy.url).user or ""
    queue = await worker(urls=options.urls, tls=options.tls, credentials=lambda: (user, password.read_text()))
    content = file.read_bytes()
    file.unlink()
    with hanging(file):
        proxy.end()
        await eventually(lambda: "was not read within 2 s" in (queue.status().problem or ""))
    file.write_bytes(content)
    await publish_until_durable(queue, DEAD, outgoing("a"))


async def test_silent_broker_fails_a_depth_request(
    proxy: Proxy, options: RabbitOptions, worker: OpenWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiormq cancels pending calls when it gives up the peer: the caller, which was not cancelled, gets a loss."""
    monkeypatch.setattr(aiormq.connection.Connection, "HEARTBEAT_GRACE_MULTIPLIER", 1)  # 2 s instead of 6
    queue = await worker(urls=(f"{proxy.url}?heartbeat=1",), tls=options.tls)
    proxy.fall_silent()
    with pytest.raises(QueueUnavailable):
        await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(queue.depths())), PATIENCE)
    proxy.end()


async def test_slow_channel_close_keeps_the_connection(proxy: Proxy, queue: RabbitQueue) -> None:
    """After an interrupted close, aiormq sends Channel.Close twice, for which the broker would close the connection."""
    inbox = Inbox()
    await queue.consume(inbox)
    await consuming(queue)
    proxy.silent_from = CHANNEL_CLOSE
    look = asyncio.ensure_future(queue.depths())
    await eventually(lambda: proxy.silent)
    look.cancel()
    await asyncio.wait({look}, timeout=PATIENCE)
    assert look.cancelled()
    proxy.speak_again()
    await queue.depths()
    assert inbox.lost_lanes == []
    assert queue.status().consuming


@pytest.mark.filterwarnings("ignore:coroutine 'Connection.close' was never awaited:RuntimeWarning")
async def test_closing_while_connecting_fails(proxy: Proxy, options: RabbitOptions) -> None:
    """aiormq turns the cancellation of an attempt that is failing into its failure: the end is not forgotten for it."""
    for steps in range(12):
        proxy.fall_silent()
        queue = RabbitQueue(options)
        await queue.open()
        await eventually(lambda: proxy.connections == 2)
        proxy.end()
        for _ in range(steps):  # the moment that matters is a few rounds of the event loop away
            await asyncio.sleep(0)
        await asyncio.wait_for(queue.close(), PATIENCE)
        await proxy.gone()
    gc.collect()  # aiormq may leave a coroutine that it never began, whose warning is to come here or not at all


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (KeyError("a library's own fault"), "queue_connection_broken"),
        (Exception(), "queue_not_connected"),
        (ExceptionGroup("", [StopAsyncIteration()]), "queue_not_connected"),
    ],
)
async def test_unexpected_error_ends_one_connection_only(options: RabbitOptions, error: Exception, event: str) -> None:
    """A worker whose link had ended would never consume again. A stream that ended is a loss, logged without frames."""
    served, again = 0, asyncio.Event()

    async def serve(link: Link, _: Connection) -> None:
        nonlocal served
        served += 1
        if served == 1:
            raise error
        link.mark_connected()
        again.set()
        await asyncio.Event().wait()

    link = Link(options, "look", serve)
    running = asyncio.create_task(link.run())
    try:
        with capture_logs() as logs:
            await asyncio.wait_for(again.wait(), PATIENCE)
        assert link.failure is None
        assert event in [line["event"] for line in logs]
        assert ("exception" in logs[0]) == (event == "queue_connection_broken")
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_end_while_the_serving_of_a_lost_connection_fails(proxy: Proxy, options: RabbitOptions) -> None:
    """Its error belongs to the lost connection; asyncio would log it as never retrieved."""
    served, failing, unretrieved = asyncio.Event(), asyncio.Event(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unretrieved.append(context))

    async def serve(_link: Link, _: Connection) -> None:
        served.set()
        try:
            await asyncio.Event().wait()
        finally:
            failing.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            raise QueueUnavailable("lost")

    running = asyncio.create_task(Link(options, "look", serve).run())
    await asyncio.wait_for(served.wait(), PATIENCE)
    proxy.end()
    await asyncio.wait_for(failing.wait(), PATIENCE)
    running.cancel()
    await asyncio.wait({running})
    del running  # its traceback refers to the task that serves
    await asyncio.sleep(0)
    gc.collect()
    assert unretrieved == []


async def test_no_channel_opens_on_a_closed_connection(options: RabbitOptions) -> None:
    """A connection that closes between two steps raises QueueUnavailable; aio-pika raises RuntimeError."""
    connection = await connect(options, "look")
    await close_bounded(connection.close())
    with pytest.raises(QueueUnavailable):
        await open_channel(connection)


async def test_reading_depths_again_causes_no_channel_error(proxy: Proxy, queue: RabbitQueue) -> None:
    """The broker logs each as an error, and under load aiormq may then open a channel twice, which the broker answers
    by closing the connection.
    """
    await queue.depths()
    proxy.silent_from = QUEUE_NOT_FOUND
    await queue.depths()
    assert not proxy.silent


async def test_error_of_a_lost_connection_includes_no_url(amqp_url: str, prefix: str) -> None:
    """It reaches logs and operators."""
    connection = await connect(rabbit_options(amqp_url, prefix), "test")
    await underlay_of(connection).close()
    with pytest.raises(QueueUnavailable, match=r"^the connection is closed$"):
        await open_channel(connection)
    await connection.close()
