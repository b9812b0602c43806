"""A whole service in virtual time, for `benchmarks.counted`: all observers and features, no socket, thread or clock.

Events come as frames of a broker. What the service publishes is kept by the broker of `tests.simulator`; the embedded
queue works on a real file, in the loop's own thread. A client answers in memory, with the next status of `answers`.
"""

import asyncio
import itertools
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import load
from notifier.feature import Feature
from notifier.features import FEATURES
from notifier.model.backoff import Rounding
from notifier.model.client import Algorithm
from notifier.model.message import Lane, Message, MessageDraft
from notifier.network.http.connector import GuardedConnector
from notifier.queues.building import build_queue
from notifier.queues.queue_port import Queue
from notifier.queues.rabbitmq.acks import AckTag, ChannelAcks
from notifier.queues.rabbitmq.delays import Forwarder
from notifier.queues.rabbitmq.queue import RabbitQueue
from notifier.queues.rabbitmq.wire.aiormq_hooks import install
from notifier.queues.rabbitmq.wire.decoding import to_message
from notifier.queues.rabbitmq.wire.frames import LeanReceiver, hand_over
from notifier.queues.sqlite.rows import Operation
from notifier.queues.sqlite.writer import Writer
from notifier.service.service import Service
from notifier.telemetry import log_output
from notifier.tokens.key_files import generate_key
from tests.simulator.broker import Broker, Consumer, Costs
from tests.simulator.virtual_time import VirtualLoop

ISSUER = "https://id.example.com"
SOURCE = {"issuer": ISSUER, "bind": [{"exchange": "own"}], "event": {"sub": "user.id", "clients": "apps"}}
EPOCH = 1e6  # seconds since the epoch when virtual time begins
SETTLED_SECONDS = 10.0  # timers due within so many seconds after the last delivery belong to its cost
MAX_HELD_EVENTS = 500
FRAMES_PER_MESSAGE = 3
Answers = Callable[[bytes, float], bytes]
"""Returns the answer to a request at this virtual time."""


def answer(status: int) -> bytes:
    """Return what a client sends."""
    return b"HTTP/1.1 %d OK\r\nServer: nginx\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n" % status


class ClientConnection(asyncio.Transport):
    """A connection to a client that answers each request at once."""

    def __init__(self, protocol: asyncio.Protocol, answers: Answers, loop: VirtualLoop) -> None:
        super().__init__()
        self._received, self._answers, self._loop = protocol.data_received, answers, loop

    def write(self, data: Any) -> None:
        """Answer the request."""
        self._loop.call_soon(self._received, self._answers(bytes(data), self._loop.now))

    def is_closing(self) -> bool:
        """Return False."""
        return False

    def nothing(self) -> None:
        """Do nothing."""

    pause_reading = resume_reading = close = abort = nothing


class CountedQueue(RabbitQueue):
    """RabbitMQ's queue, of which `consumer` keeps what is published. Events are acked on their channel."""

    consumer: Consumer

    def ack(self, message: Message) -> None:
        """Ack the message where it came from."""
        if isinstance(message.tag, AckTag):
            super().ack(message)
        else:
            self.consumer.ack(message)

    def set_aside(self, message: Message) -> None:
        """Do nothing: no message becomes late."""

    async def publish(self, queue: str, message: MessageDraft) -> None:
        """See `Publisher`."""
        await self.consumer.publish(queue, message)

    async def publish_later(self, message: MessageDraft, *, due: float, rounding: Rounding = "down") -> None:
        """See `Publisher`."""
        await self.consumer.publish_later(message, due=due - EPOCH, rounding=rounding)

    async def wait_until_available(self) -> None:
        """See `Publisher`."""

    def bucket(self, client: tuple[str, str], *, large: bool = False) -> str:
        """See `BucketQueues`."""
        return self.consumer.bucket(client, large=large)

    async def park(self, bucket: str, message: MessageDraft, *, until: float) -> None:
        """See `BucketQueues`."""
        await self.consumer.park(bucket, message, until=until)

    async def fetch(self, bucket: str, most: int) -> Sequence[Message]:
        """See `BucketQueues`."""
        return await self.consumer.fetch(bucket, most)

    async def count_parked(self, buckets: Any = None) -> Mapping[str, int]:
        """See `BucketQueues`."""
        return await self.consumer.count_parked(buckets)

    def inherited_buckets(self, *, at_start: bool) -> Sequence[str]:
        """Return none."""
        return ()


class LoopWriter(Writer):
    """The writer of the embedded queue, whose rounds are made by the loop."""

    def put(self, operation: Operation) -> None:
        """Keep the operation for the next round."""
        if self._inbox.empty():
            asyncio.get_running_loop().call_soon(self._next_round)
        super().put(operation)

    def _next_round(self) -> None:
        self._run_round(self._gather())


class Channel:
    """As much of aiormq's channel as acks and messages need."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Any] = asyncio.Queue()
        self.acked = 0

    async def basic_ack(self, tag: int, *, multiple: bool, wait: bool) -> None:
        """Note the ack."""
        self.acked = max(self.acked, tag)


def frames(bodies: Sequence[bytes]) -> bytes:
    """Return what a broker sends with events of these bodies."""
    parts: list[Any] = []
    for number, body in enumerate(bodies, 1):
        properties = commands.Basic.Properties(delivery_mode=2, content_type="application/json")
        parts.append(commands.Basic.Deliver("ctag", number, exchange="notifier.events", routing_key="session.ended"))
        parts += [ContentHeader(properties=properties, body_size=len(body)), ContentBody(body)]
    return b"".join(frame.marshal(part, 1) for part in parts)


async def deliver(service: Service, received: bytes, *, source: str | None, pause: float) -> int:
    """Pass frames to the worker. Return the last acked event, when all timers of the next 10 s have fired.

    `pause`: virtual seconds between two events.
    """
    reader = asyncio.StreamReader(limit=2**30)
    reader.feed_data(received)
    reader.feed_eof()
    channel: Any = Channel()
    acks, worker = ChannelAcks(channel), service.worker

    def taken(got: Any) -> None:
        tag = AckTag(acks, got.delivery_tag or 0)
        worker.take(to_message(Lane.EVENTS, got, tag, keep=2**17, source=source))

    hand_over(channel, taken)
    receiver, held = LeanReceiver(reader), worker.ledger._held  # a method would be counted
    with suppress(StopAsyncIteration):  # at the end of the frames
        while True:
            await channel.frames.put((await receiver.get_frame())[1:])
            if pause:
                await asyncio.sleep(pause / FRAMES_PER_MESSAGE)
            if len(held[Lane.EVENTS]) > MAX_HELD_EVENTS:
                await asyncio.sleep(1e-3)
    await asyncio.sleep(SETTLED_SECONDS)
    await acks.flush()
    return int(channel.acked)


async def fill(service: Service, bodies: Sequence[bytes]) -> None:
    """Publish events into the embedded queue."""
    await service.queue.stop_consuming()
    await asyncio.gather(*(service.queue.send_event(Lane.EVENTS, body, message_id=None) for body in bodies))


async def deliver_rows(service: Service) -> None:
    """Have the worker take what `fill` published. Return when all timers of the next 10 s have fired."""
    await service.queue.consume(service.worker)
    await asyncio.sleep(SETTLED_SECONDS)


@contextmanager
def built_service(
    loop: VirtualLoop, answers: Answers, clients: Sequence[str], *, sqlite: bool = False, more: Sequence[Feature] = ()
) -> Iterator[Service]:
    """Build a service as `notifier run` does, without listeners."""
    addresses = [
        {
            "client_id": name,
            "backchannel_logout_uri": f"http://127.0.0.1:9/{name}",
            "id_token_signed_response_alg": "ES256",
        }
        for name in clients
    ]
    settings = {
        "issuers": {ISSUER: {"keys": [{"file": "key.pem"}]}},
        "egress": {"allow": ["127.0.0.0/8"], "allow_http": True}, "registry": {"file": "clients.json"},
        "ops": {"listen": "127.0.0.1:0"}, "api": {"listen": "127.0.0.1:0"},
    } | ({} if sqlite else {"queue": {"url": "amqp://127.0.0.1:9/"}, "sources": {"own": SOURCE}})  # fmt: skip
    install()
    random.seed(1)  # jitter
    ticks = itertools.count()
    broker = Broker(loop, Costs(0, 0, 0, 0, 0))

    def clock() -> float:
        return EPOCH + loop.now + next(ticks) * 1e-7  # no two moments are the same

    def queue_in_memory(*arguments: Any) -> Queue:
        if sqlite:
            return build_queue(*arguments)
        with mock.patch("notifier.queues.rabbitmq.queue.RabbitQueue", CountedQueue):
            return build_queue(*arguments)

    async def connect(_connector: object, make: Callable[[], asyncio.Protocol], *_: object, **__: object) -> Any:
        protocol = make()
        connection = ClientConnection(protocol, answers, loop)
        protocol.connection_made(connection)
        return connection, protocol

    with (
        tempfile.TemporaryDirectory() as name,
        open(os.devnull, "w") as log,  # noqa: PTH123
        mock.patch("notifier.service.service.time", SimpleNamespace(time=clock, monotonic=clock)),
        mock.patch("notifier.service.watches.time", SimpleNamespace(time=clock, monotonic=clock)),
        mock.patch("notifier.service.service.build_queue", queue_in_memory),
        mock.patch("notifier.queues.sqlite.queue.Writer", LoopWriter),
        mock.patch("notifier.queues.sqlite.queue.start_thread"),
        mock.patch.object(GuardedConnector, "_wrap_create_connection", connect),
    ):
        folder = Path(name)
        (folder / "key.pem").write_bytes(generate_key(Algorithm.ES256))
        (folder / "clients.json").write_text(json.dumps(addresses))
        (folder / "notifier.yaml").write_text(json.dumps(settings))
        log_output.configure("info", "json", stream=log)
        live = LiveConfiguration(folder / "notifier.yaml", {}, load(folder / "notifier.yaml", {}, FEATURES))
        service = Service(live, features=(*FEATURES, *more))
        if isinstance(service.queue, CountedQueue):
            consumer = service.queue.consumer = broker.connect(loop.time)
            consumer.inbox = Forwarder(
                service.worker, consumer.publish, consumer.wait_until_available, consumer.ack, clock
            )
            service.queue._workers.on_announced(4)
        yield service
