"""Examines the internals of aiormq and pamqp that the RabbitMQ queue uses, and installs the hooks of the process.

| hook | purpose | otherwise |
|---|---|---|
| frames | frames in one step, not three | aiormq's own receiver |
| messages | no task and queue per message | a coroutine for `basic_consume`, single `basic_get` and `rpc` |
| confirms | publishes that are written together | `basic_publish` |
| alarms | a memory or disk alarm is detected before a publish | the publish fails without a confirm, after 10 s |
| decoding | a publisher's malformed property is None, and other messages are kept | required |

Decoding is required because pamqp raises if it cannot decode properties, and aiormq then closes the connection, also at
each redelivery, until the message and its neighbours reach the delivery limit.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from functools import cache
from typing import Any

import aiormq
import aiormq.connection
from aiormq.abc import ChannelFrame, ConsumerCallback, DeliveredMessage
from aiormq.exceptions import DeliveryError, InvalidFrameError, PublishError
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from notifier.model.library_hooks import Hook, HookChanged, expect, expect_use, find_difference, require_behaviour, step
from notifier.queues.rabbitmq.wire.decoding import UnreadableTable, tolerate_any_publisher
from notifier.queues.rabbitmq.wire.frames import LeanReceiver, hand_over, log_not_taken
from notifier.queues.rabbitmq.wire.publish import ConfirmedWrites, Publish

FRAMES_TO_WRITE = 1000
TRIED_AIORMQ, TRIED_PAMQP = "7.2.0 to 7.2.4", "4.0.0 to 4.0.1"
_PLAIN_RECEIVER: Any = getattr(aiormq.connection, "FrameReceiver", None)
_DELIVER = commands.Basic.Deliver(consumer_tag="c", delivery_tag=7, redelivered=True, exchange="e", routing_key="é")
_GET_OK = commands.Basic.GetOk(delivery_tag=8, redelivered=False, exchange="e", routing_key="k", message_count=3)
_HEADER = ContentHeader(properties=commands.Basic.Properties(message_id="m", headers={"a": [1, "b"]}), body_size=5)
_BODY = ContentBody(b"hello")
_ANSWER = commands.Basic.QosOk()
_PUBLISH = Publish(exchange="", routing_key="k", body=b"hello", message_id="m", content_type="text/plain")


@cache
def install() -> Mapping[str, Hook]:
    """Examine aiormq and pamqp, install the hooks that fit, and return all by name. A second call changes nothing.

    Raises ConfigurationError if pamqp cannot be made to decode any publisher's properties.
    """
    tolerate_any_publisher()
    # aiormq does not confirm that the broker closed a channel if its queue of frames is full. Without the confirmation
    # the broker keeps the unacked messages of the channel. The default is 10.
    aiormq.connection.Connection.FRAME_BUFFER_SIZE = FRAMES_TO_WRITE
    require_behaviour("pamqp", TRIED_PAMQP, _look_at_decoding)
    commands.Connection.Close.__repr__ = _in_words  # type: ignore[assignment,method-assign]
    hooks = [
        Hook(name=name, library="aiormq", tried=TRIED_AIORMQ, cost=cost, difference=find_difference(look))
        for name, cost, look in (
            ("frames", "an event takes up to a seventh more CPU", _look_at_frames),
            ("messages", "an event takes up to an eighth more CPU, a fetch or declare a round trip", _look_at_messages),
            ("confirms", "a retry, deferral or dead letter takes up to 40 % more CPU", _look_at_confirms),
            ("alarms", "alarms of the broker are not shown; a publish during one fails after 10 s", _look_at_alarms),
        )
    ]
    by_name = {hook.name: hook for hook in hooks}
    if _PLAIN_RECEIVER is not None:
        receiver = LeanReceiver if by_name["frames"].difference is None else _PLAIN_RECEIVER
        aiormq.connection.FrameReceiver = receiver  # type: ignore[assignment,misc]
    return by_name


def is_installed(name: str) -> bool:
    """Return True if the hook is in use."""
    return install()[name].difference is None


def callback_of(channel: aiormq.Channel, take: Callable[[DeliveredMessage], None]) -> ConsumerCallback:
    """Return the callback of this channel's consumers, which passes their messages to `take`, in order.

    `take` must not block. With the hook `messages` it receives messages as they are read, without the callback.
    """
    if is_installed("messages"):
        hand_over(channel, take)

    async def on_message(message: DeliveredMessage) -> None:
        try:
            take(message)
        except Exception as error:  # noqa: BLE001  see `log_not_taken`
            log_not_taken(error)

    return on_message


def _in_words(close: commands.Connection.Close) -> str:
    return f"{close.reply_code} {close.reply_text}"


def refusal_of(error: InvalidFrameError) -> str:
    """Return the broker's text from an error of aiormq, which quotes the unexpected frame."""
    return str(error).rpartition(", got ")[2]


def blocked(connection: aiormq.abc.AbstractConnection) -> bool:
    """Return True if the broker blocks publishing on this connection (memory or disk alarm).

    aiormq reveals it only by `ready()`, which returns at once unless blocked. So one step of `ready()` is enough.
    """
    return is_installed("alarms") and _waits(connection.ready())


def _waits(coroutine: Coroutine[Any, Any, None]) -> bool:
    try:
        step(coroutine)
    except HookChanged:
        return True
    return False


def _look_at_frames() -> None:
    expect_use(aiormq.connection.Connection, "FrameReceiver")
    samples = (_DELIVER, _HEADER, _BODY, commands.Basic.Ack(delivery_tag=7, multiple=True))
    streams = [asyncio.StreamReader(), asyncio.StreamReader()]
    for stream in streams:
        stream.feed_data(b"".join(frame.marshal(sample, 3) for sample in samples))
    lean, plain = LeanReceiver(streams[0]), _PLAIN_RECEIVER(streams[1])
    for _ in samples:
        lean_frame, plain_frame = step(lean.get_frame()), step(plain.get_frame())
        expect(lean_frame[:2], plain_frame[:2], "weight and channel of a frame")
        expect(_values(lean_frame[2]), _values(plain_frame[2]), f"a frame {type(plain_frame[2]).__name__}")


def _values(read: Any) -> dict[str, object]:
    names = getattr(type(read), "__slots__", None) or vars(read)
    members = {name: getattr(read, name) for name in names if name != "properties"}
    properties = getattr(read, "properties", None)
    return members | ({} if properties is None else {"properties": dict(properties)})


def _look_at_messages() -> None:
    expect_use(aiormq.connection.Connection, "channels", "frames", "put")
    expect_use(aiormq.Channel.__init__, "frames", "write_queue", "_close_exception")
    expect_use(aiormq.Channel.rpc, "lock", "write_queue", "rpc_frames")
    _look_at_writing()
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


def _look_at_confirms() -> None:
    books = ("confirmations", "delivery_tag", "message_id_delivery_tag")
    kept = (*books, "number", "max_content_size", "write_queue", "publisher_confirms", "_close_exception")
    expect_use(aiormq.Channel.__init__, *kept)
    expect_use(aiormq.Channel.basic_publish, *books, "write_queue")
    expect_use(aiormq.Channel._on_close_frame, "_close_exception")  # noqa: SLF001  the examined method
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
    _look_at_writing()


def _look_at_writing() -> None:
    expect_use(aiormq.connection.Connection, "payload", "should_close", "should_drain")
    frame_to_write = ChannelFrame(payload=b"x", should_close=False, drain_future=None)
    expect((frame_to_write.payload, frame_to_write.should_drain), (b"x", False), "what is written")


def _look_at_alarms() -> None:
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
# timestamp in the year 36,536,598.
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
