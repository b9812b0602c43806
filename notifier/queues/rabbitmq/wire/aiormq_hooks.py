"""Checks the insides of aiormq and pamqp that the RabbitMQ queue uses, and installs the hooks of the process.

| hook | what it is for |
|---|---|
| reading | frames in two steps, not three |
| handing over | a message without a task and a queue of its own |
| writing | publishes that go out together |
| blocking | an alarm of the broker is known before a publish; else no confirm would come, which takes ten seconds |
| refusing | aiormq's error has the broker's own text where the broker refuses a virtual host |
| decoding | what a publisher wrote badly is None, and its neighbours are kept |

The last hook is there since pamqp raises if it cannot decode properties, and aiormq then closes the connection: at each
redelivery again, until the message and all its neighbours reach the delivery limit.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from functools import cache
from typing import Any

import aiormq
import aiormq.connection
from aiormq.abc import ChannelFrame, DeliveredMessage
from aiormq.connection import FrameReceiver
from aiormq.exceptions import DeliveryError, InvalidFrameError, PublishError
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from notifier.model.library_hooks import HookChanged, demand, expect, expect_use, step
from notifier.queues.rabbitmq.wire.confirmed_writes import ConfirmedWrites
from notifier.queues.rabbitmq.wire.decoding import UnreadableTable, tolerate_any_publisher
from notifier.queues.rabbitmq.wire.frames import LeanReceiver, hand_over, read_leanly
from notifier.queues.rabbitmq.wire.publish import Publish

TRIED_AIORMQ, TRIED_PAMQP = "7.2.4", "4.0.1"  # the newest versions that were tried; pyproject.toml ends there
_DELIVER = commands.Basic.Deliver(consumer_tag="c", delivery_tag=7, redelivered=True, exchange="e", routing_key="é")
_GET_OK = commands.Basic.GetOk(delivery_tag=8, redelivered=False, exchange="e", routing_key="k", message_count=3)
_HEADER = ContentHeader(properties=commands.Basic.Properties(message_id="m", headers={"a": [1, "b"]}), body_size=5)
_BODY = ContentBody(b"hello")
_ANSWER = commands.Basic.QosOk()
_PUBLISH = Publish(exchange="", routing_key="k", body=b"hello", message_id="m", content_type="text/plain")


@cache
def install() -> None:
    """Have aiormq read by our receiver, and decode what any publisher wrote. Calling again changes nothing.

    Raises ConfigurationError if an inside of aiormq or pamqp is another than those tried, and says which to install.
    """
    tolerate_any_publisher()
    demand("pamqp", TRIED_PAMQP, _look_at_decoding)
    commands.Connection.Close.__repr__ = _in_words  # type: ignore[assignment,method-assign]
    demand("aiormq", TRIED_AIORMQ, _look)
    read_leanly()


def _in_words(close: commands.Connection.Close) -> str:
    return f"{close.reply_code} {close.reply_text}"


def refusal_of(error: InvalidFrameError) -> str:
    """Return the broker's text. aiormq quotes the frame that came where it expected another."""
    return str(error).partition(", got ")[2]


def _look() -> None:
    _look_at_refusing()
    _look_at_reading()
    _look_at_handing_over()
    _look_at_writing()
    _look_at_blocking()


def blocked(connection: aiormq.abc.AbstractConnection) -> bool:
    """True if the broker blocks publishing on this connection (memory or disk alarm).

    aiormq shows it only by `ready()`, which returns at once unless blocked. So one step of it is the answer.
    """
    return _waits(connection.ready())


def _waits(coroutine: Coroutine[Any, Any, None]) -> bool:
    try:
        step(coroutine)
    except HookChanged:
        return True
    return False


def _look_at_refusing() -> None:
    stream = asyncio.StreamReader()
    close = commands.Connection.Close(reply_code=530, reply_text="NOT_ALLOWED", class_id=10, method_id=40)
    stream.feed_data(frame.marshal(close, 0))
    rpc: Any = aiormq.connection.Connection._rpc  # noqa: SLF001  what is looked at
    refusal = ""
    try:
        step(rpc(commands.Connection.Open(), _Unwritten(), FrameReceiver(stream)))
    except InvalidFrameError as error:
        refusal = refusal_of(error)
    expect(refusal, "530 NOT_ALLOWED", "a refusal")


class _Unwritten:
    """Takes what is written."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...


def _look_at_reading() -> None:
    expect_use(aiormq.connection.Connection, "FrameReceiver")
    samples = (_DELIVER, _HEADER, _BODY, commands.Basic.Ack(delivery_tag=7, multiple=True))
    streams = [asyncio.StreamReader(), asyncio.StreamReader()]
    for stream in streams:
        stream.feed_data(b"".join(frame.marshal(sample, 3) for sample in samples))
    lean, plain = LeanReceiver(streams[0]), FrameReceiver(streams[1])
    for _ in samples:
        lean_frame, plain_frame = step(lean.get_frame()), step(plain.get_frame())
        expect(lean_frame[:2], plain_frame[:2], "weight and channel of a frame")
        expect(_values(lean_frame[2]), _values(plain_frame[2]), f"a frame {type(plain_frame[2]).__name__}")


def _values(read: Any) -> dict[str, object]:
    names = getattr(type(read), "__slots__", None) or vars(read)
    members = {name: getattr(read, name) for name in names if name != "properties"}
    properties = getattr(read, "properties", None)
    return members | ({} if properties is None else {"properties": dict(properties)})


def _look_at_handing_over() -> None:
    expect_use(aiormq.connection.Connection, "channels", "frames", "put")
    expect_use(aiormq.Channel.__init__, "frames")
    channel, messages = aiormq.Channel.__new__(aiormq.Channel), list[DeliveredMessage]()
    channel.frames = asyncio.Queue()
    hand_over(channel, messages.append)
    for part in (_ANSWER, _DELIVER, _HEADER, _BODY, _GET_OK, _HEADER, _BODY, commands.Basic.GetEmpty()):
        step(channel.frames.put((1, part)))
    expect([channel.frames.get_nowait()[1], channel.frames.empty()], [_ANSWER, True], "what belongs to no message")
    expect(
        [(message.delivery_tag, message.exchange, message.redelivered, message.body) for message in messages],
        [(7, "e", True, b"hello"), (8, "e", False, b"hello"), (None, None, None, b"")],
        "a message, and answers to gets",
    )
    expect([message.header.properties.message_id for message in messages], ["m", "m", None], "a message's properties")


def _look_at_writing() -> None:
    books = ("confirmations", "delivery_tag", "message_id_delivery_tag")
    kept = (*books, "number", "max_content_size", "write_queue", "publisher_confirms", "_close_exception")
    expect_use(aiormq.Channel.__init__, *kept)
    expect_use(aiormq.Channel.basic_publish, *books, "write_queue")
    expect_use(aiormq.Channel._on_close_frame, "_close_exception")  # noqa: SLF001  what is looked at
    expect_use(aiormq.connection.Connection, "payload", "should_close", "should_drain")
    channel = aiormq.Channel.__new__(aiormq.Channel)
    channel.number, channel.max_content_size, channel.delivery_tag = 1, 3, 0
    channel.publisher_confirms = channel.on_return_raises = True
    channel.confirmations, channel.message_id_delivery_tag = OrderedDict(), {}
    channel.frames, channel.write_queue = asyncio.Queue(), asyncio.Queue()
    begun = ConfirmedWrites(channel, 60.0)
    confirmed, refused = begun.write(_PUBLISH), begun.write(_PUBLISH)
    returned = begun.write(_PUBLISH)
    channel.frames.put_nowait((1, ContentHeader(properties=commands.Basic.Properties(message_id="m"))))
    step(channel._on_return_frame(commands.Basic.Return(312, "NO_ROUTE", "", "k")))  # noqa: SLF001
    step(channel._on_confirm_frame(commands.Basic.Ack(delivery_tag=1)))  # noqa: SLF001
    step(channel._on_confirm_frame(commands.Basic.Nack(delivery_tag=2)))  # noqa: SLF001
    step(channel._on_confirm_frame(commands.Basic.Ack(delivery_tag=3)))  # noqa: SLF001
    ends = [publish.done() and type(publish.exception()) for publish in (confirmed, refused, returned)]
    expect(ends, [type(None), DeliveryError, PublishError], "a confirm, a refusal and a return")
    frame_to_write = ChannelFrame(payload=b"x", should_close=False, drain_future=None)
    expect((frame_to_write.payload, frame_to_write.should_drain), (b"x", False), "what is written")


def _look_at_blocking() -> None:
    connection = aiormq.connection.Connection.__new__(aiormq.connection.Connection)
    connection.connected = asyncio.Event()
    unblocked = asyncio.Event()
    vars(connection)["_Connection__connection_unblocked"] = unblocked
    connection.connected.set()
    blocked_then = [_waits(connection.ready())]
    unblocked.set()
    blocked_then.append(_waits(connection.ready()))
    expect(blocked_then, [True, False], "blocked, and then no more")


# A header that no strict reader decodes: a table with a name that is not UTF-8, a message id that is not UTF-8, and a
# timestamp of the year 36,536,598.
_UNREADABLE = b"".join(
    (
        b"\x00\x3c\x00\x00" + (5).to_bytes(8) + (1 << 13 | 1 << 7 | 1 << 6).to_bytes(2),
        b"\x00\x00\x00\x03\x01\xffV" + b"\x02\xff\xff" + (2**60).to_bytes(8),
    )
)
_UNREADABLE_FRAME = b"\x02\x00\x01" + len(_UNREADABLE).to_bytes(4) + _UNREADABLE + b"\xce"


def _look_at_decoding() -> None:
    header: Any = frame.unmarshal(_UNREADABLE_FRAME)[2]
    properties = header.properties
    expect((properties.message_id, properties.timestamp), ("\N{REPLACEMENT CHARACTER}" * 2, None), "properties")
    expect(type(properties.headers), UnreadableTable, "headers")
