"""A message to publish, and its frames: a retry, a deferral, a dead letter, or a notice of the feed.

Writes the publishes of a channel together and confirms each, at a third of the cost of aiormq's `basic_publish`. aiormq
needs a lock, three context managers, four callbacks and a socket write per publish: 145 µs, of which 50 remain here. A
failing delivery costs 235 µs in all. Here a publish gets its number and its frames at once, without a wait, so that
both have the same order. One task writes all collected frames. A patient message waits briefly for others: alone it
costs a write, a read of its confirm and one or two rounds of the loop.

aiormq reads confirms and returns. So each publish is entered in aiormq's tables of the channel (`confirmations`,
`message_id_delivery_tag`), and no other code may publish on the channel.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime
from typing import Any

import aiormq
from aiormq.abc import ChannelFrame
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from notifier.model.record import record
from notifier.model.shared_resources import shared_bound

DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
_PERSISTENT_MODE = 2
# Seconds that a patient message waits for others, and the number that ends the wait. An unresponsive client in each of
# 600 events a second causes 600 deferrals. When hundreds return at once, these are confirmed before the next are sent.
GATHER_SECONDS = 0.02
MAX_GATHERED = shared_bound(16)


@record
class Publish:
    """A persistent message. `timestamp`: whole seconds since the epoch.

    `user_id`: the user of the connection, since the broker refuses any other. `mandatory`: returned if it reaches no
    queue. `patient`: may be written some milliseconds later, with other messages.
    """

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    content_type: str
    message_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timestamp: int | None = None
    user_id: str | None = None
    mandatory: bool = True
    patient: bool = False


def frames_of(publish: Publish, channel: aiormq.Channel, *, replies: bool = False) -> bytes:
    """Return the frames of this message on the channel. With `replies`, it requests replies by direct reply-to.

    Raises TypeError for an id or type of more than 255 bytes.
    """
    body, most = publish.body, channel.max_content_size
    properties = properties_of(publish, replies=replies)
    method = commands.Basic.Publish(
        exchange=publish.exchange, routing_key=publish.routing_key, mandatory=publish.mandatory
    )
    header = ContentHeader(properties=properties, body_size=len(body))
    pieces = (ContentBody(body[at : at + most]) for at in range(0, len(body), most))
    return ChannelFrame.marshall(channel.number, [method, header, *pieces]).payload


async def publish_singly(publish: Publish, channel: aiormq.Channel, *, replies: bool = False) -> None:
    """Publish by aiormq's public method. Return once confirmed, or once written if the channel has no confirms.

    Raises aiormq's errors, and TypeError for an id or type of more than 255 bytes.
    """
    await channel.basic_publish(
        publish.body,
        exchange=publish.exchange,
        routing_key=publish.routing_key,
        properties=properties_of(publish, replies=replies),
        mandatory=publish.mandatory,
        wait=not channel.publisher_confirms,
    )


def properties_of(publish: Publish, *, replies: bool = False) -> commands.Basic.Properties:
    """Return the properties of this message. With `replies`, they request replies by direct reply-to."""
    return commands.Basic.Properties(
        content_type=publish.content_type,
        headers=dict(publish.headers) or None,
        delivery_mode=_PERSISTENT_MODE,
        message_id=publish.message_id,
        message_type=publish.message_type,
        timestamp=None if publish.timestamp is None else datetime.fromtimestamp(publish.timestamp, UTC),
        correlation_id=publish.message_id if replies else None,
        reply_to=DIRECT_REPLY_TO if replies else None,
        user_id=publish.user_id,
    )


Confirmation = asyncio.Future[Any]


class ConfirmOverdue(TimeoutError):  # noqa: N818  a state, not a mistake
    """A publish has no confirm in time. `confirm` ends with the late confirm, or with the channel."""

    def __init__(self, confirm: Confirmation) -> None:
        super().__init__()
        self.confirm = confirm


class ConfirmedWrites:
    """Publishes on one channel: writes messages together and confirms each.

    `timeout`: seconds after which an unconfirmed publish fails with ConfirmOverdue. With `replies`, messages request
    replies by direct reply-to.
    """

    def __init__(self, channel: aiormq.Channel, timeout: float, *, replies: bool = False) -> None:
        self._channel = channel
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._gathered: list[bytes] = []
        self._wake = asyncio.Event()
        self._waking = False  # `_wake` will be set within GATHER_SECONDS
        self._under_way: deque[tuple[float, Confirmation, int]] = deque()  # with delivery tags, by deadline
        self._late: set[Confirmation] = set()
        self._single: dict[str, Confirmation] = {}  # by message id, while `write_singly` runs
        self._replies = replies

    def write(self, publish: Publish) -> Confirmation:
        """Start a mandatory publish. The future ends with its confirm, or with an error of aiormq or `end`.

        Messages in flight must differ in `message_id`, which identifies returned messages. A `patient` message is
        written with the next impatient message, with MAX_GATHERED others, or after GATHER_SECONDS.
        """
        channel = self._channel
        frames = frames_of(publish, channel, replies=self._replies)  # raises if it cannot be encoded
        confirmation: Confirmation = self._loop.create_future()
        channel.delivery_tag += 1
        channel.confirmations[channel.delivery_tag] = confirmation
        channel.message_id_delivery_tag[publish.message_id] = channel.delivery_tag
        under_way = self._under_way
        while under_way and under_way[0][1].done():
            under_way.popleft()
        under_way.append((self._loop.time() + self._timeout, confirmation, channel.delivery_tag))
        self._gathered.append(frames)
        if not publish.patient or len(self._gathered) >= MAX_GATHERED:
            self._wake.set()
        elif not self._waking:
            self._waking = True
            self._loop.call_later(GATHER_SECONDS, self._wake_up)
        return confirmation

    async def write_singly(self, publish: Publish) -> None:
        """Publish without other messages, in place of `write`. Return once confirmed. Raises the same errors."""
        confirm = asyncio.ensure_future(self._publish_singly(publish))
        self._single[publish.message_id] = confirm
        await asyncio.wait({confirm}, timeout=self._timeout)
        if not confirm.done():
            raise ConfirmOverdue(self._keep_late(confirm))
        confirm.result()

    async def _publish_singly(self, publish: Publish) -> None:
        if (error := getattr(self._channel, "_close_exception", None)) is not None:  # `is_closed` follows later
            raise error
        await publish_singly(publish, self._channel, replies=self._replies)

    def _wake_up(self) -> None:
        self._waking = False
        self._wake.set()

    def forget(self, message_id: str) -> None:
        """Forget the publish of this id after its end."""
        if self._single.pop(message_id, None) is None:
            self._channel.message_id_delivery_tag.pop(message_id, None)

    def late_confirm(self, message_id: str) -> Confirmation | None:
        """Return what ends with the confirm of this cancelled publish, or with the channel; None if it has ended."""
        if (single := self._single.get(message_id)) is not None:
            return None if single.done() else self._keep_late(single)
        tag = self._channel.message_id_delivery_tag.get(message_id)
        return None if tag is None or tag not in self._channel.confirmations else self._expect_late(tag)

    def _expect_late(self, tag: int) -> Confirmation:
        self._channel.confirmations[tag] = late = self._loop.create_future()
        return self._keep_late(late)

    def _keep_late(self, late: Confirmation) -> Confirmation:
        self._late.add(late)
        late.add_done_callback(self._on_late_confirm)
        return late

    async def run(self) -> None:
        """Write the collected publishes, until cancelled or the broker closes the channel."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._gathered:
                continue  # already written, with an impatient publish
            if self._channel._close_exception is not None:  # noqa: SLF001  `is_closed` only follows some steps later
                return  # RabbitMQ closes the connection if a publish follows Channel.CloseOk
            payload, self._gathered = b"".join(self._gathered), []
            await self._channel.write_queue.put(ChannelFrame(payload=payload, should_close=False))

    def end(self, error: Exception) -> None:
        """Fail all publishes with this error: the channel is closed, and no confirm follows."""
        for confirm in tuple(self._late):
            confirm.cancel()
        for _, confirmation, _ in self._under_way:
            if not confirmation.done():
                confirmation.set_exception(error)
        self._under_way.clear()
        self._gathered.clear()
        self._channel.message_id_delivery_tag.clear()

    @property
    def has_unconfirmed(self) -> bool:
        """True if a publish may have no confirm yet, as of the last `end_overdue`."""
        return bool(self._under_way or self._single)

    def end_overdue(self) -> None:
        """Fail the publishes that have waited too long for a confirm. Call it about once a second."""
        now = self._loop.time()
        while self._under_way and (self._under_way[0][1].done() or self._under_way[0][0] <= now):
            _, confirmation, tag = self._under_way.popleft()
            if not confirmation.done():
                confirmation.set_exception(ConfirmOverdue(self._expect_late(tag)))

    def _on_late_confirm(self, confirm: Confirmation) -> None:
        self._late.discard(confirm)
        if not confirm.cancelled():
            confirm.exception()  # otherwise asyncio logs an unretrieved error
