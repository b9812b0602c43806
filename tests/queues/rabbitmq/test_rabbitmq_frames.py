"""The fast path for frames of the broker: it reads the same values as aiormq's path, and still fits its internals."""

import asyncio
import datetime as dt
from collections.abc import Callable, Sequence

import aiormq
import aiormq.connection
import pytest
from aiormq.abc import DeliveredMessage
from aiormq.connection import FrameReceiver
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from pamqp import commands, frame
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from notifier.queues.rabbitmq.connection import connect, open_channel
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.wire.frames import LeanReceiver, hand_over

DELIVER = commands.Basic.Deliver(
    consumer_tag="ctag1.é", delivery_tag=2**40, redelivered=True, exchange="notifier.events", routing_key="x" * 255
)
HEADER = ContentHeader(
    properties=commands.Basic.Properties(
        content_type="application/json", timestamp=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), headers={"a": [1, "b"]}
    ),
    body_size=5,
)
FRAMES = (DELIVER, HEADER, ContentBody(b"hello"), Heartbeat(), commands.Basic.Ack(delivery_tag=7, multiple=True))


def stream(*frames: Frame | ContentHeader | ContentBody | Heartbeat, channel: int = 3) -> asyncio.StreamReader:
    """Return a stream that has these frames and then ends."""
    reader = asyncio.StreamReader()
    for each in frames:
        reader.feed_data(frame.marshal(each, 0 if isinstance(each, Heartbeat) else channel))
    reader.feed_eof()
    return reader


async def test_frames_are_read_as_aiormq_reads_them() -> None:
    """Weight, channel and every value are equal, for frames decoded here and those that pamqp decodes."""
    lean, plain = LeanReceiver(stream(*FRAMES)), FrameReceiver(stream(*FRAMES))
    for _ in FRAMES:
        ours, theirs = await lean.get_frame(), await plain.get_frame()
        assert ours[:2] == theirs[:2]
        assert type(ours[2]) is type(theirs[2])
        for name in getattr(type(ours[2]), "__slots__", ()):
            assert getattr(ours[2], name) == getattr(theirs[2], name), name
    with pytest.raises(StopAsyncIteration):
        await lean.get_frame()


async def test_a_stream_that_ends_within_a_frame_is_a_lost_connection() -> None:
    """The exception is aiormq's, so that pending calls fail."""
    reader = asyncio.StreamReader()
    reader.feed_data(frame.marshal(DELIVER, 3)[:-4])
    reader.feed_eof()
    with pytest.raises(AMQPConnectionError, match="unexpectedly closed"):
        await LeanReceiver(reader).get_frame()


async def test_a_frame_without_its_end_is_invalid() -> None:
    """AMQP 0-9-1 §4.2.3: the end octet is 206."""
    for each in (DELIVER, HEADER):
        reader = asyncio.StreamReader()
        reader.feed_data(frame.marshal(each, 3)[:-1] + b"\0")
        reader.feed_eof()
        with pytest.raises(InvalidFrameError):
            await LeanReceiver(reader).get_frame()


async def handed_over(
    url: str, bodies: Sequence[bytes], take: Callable[[DeliveredMessage], None], whole: asyncio.Event
) -> None:
    """Have a real broker send these, and return when `whole` is set."""

    async def never(_: DeliveredMessage) -> None:
        pytest.fail("aiormq's own way was taken")

    connection = await connect(RabbitOptions(urls=(url,)), "test")
    try:
        channel = await open_channel(connection, confirms=True)
        assert isinstance(channel, aiormq.Channel)
        queue = (await channel.queue_declare(exclusive=True)).queue
        assert queue is not None
        for body in bodies:
            await channel.basic_publish(body, routing_key=queue)
        hand_over(channel, take)
        await channel.basic_consume(queue, never)
        async with asyncio.timeout(20):
            await whole.wait()
        assert (await channel.queue_declare(queue, passive=True)).message_count == 0  # all else goes aiormq's way
    finally:
        await connection.close()


async def test_undecodable_message_stops_no_other(amqp_url: str) -> None:
    """It stays unacked, and so comes again."""
    taken: list[bytes] = []
    whole = asyncio.Event()

    def take(message: DeliveredMessage) -> None:
        if message.body == b"bad":
            raise RuntimeError
        taken.append(message.body)
        whole.set()

    await handed_over(amqp_url, (b"bad", b"good"), take, whole)
    assert taken == [b"good"]
    assert vars(aiormq.connection)["FrameReceiver"] is LeanReceiver
