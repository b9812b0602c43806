"""Consumes the messages of one lane, and acks them. The queue of a source also feeds the lane of events.

Each queue has a separate channel, and so separate delivery tags. If the channel or its consumer fails (also by
`basic.cancel`), the channel is closed, the inbox forgets the unacked messages, which are redelivered, and a new channel
consumes. A message refers to the acks of its channel, so that a late ack cannot ack the tag of another message.

A lane *renews* its consumer if that frees a quarter of the prefetch, which is used by messages that are set aside. The
consumer is cancelled, and another one starts on the same channel. Its prefetch is what the unacked messages that are
not set aside leave free. Once these are acked, another renewal restores the whole prefetch.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiormq
import aiormq.abc
import structlog
from aiormq.abc import ConsumerCallback
from aiormq.exceptions import ChannelNotFoundEntity

from notifier.model.errors import QueueUnavailable
from notifier.model.message import Lane
from notifier.model.shared_resources import shared_lock
from notifier.queues.queue_port import Inbox
from notifier.queues.rabbitmq.acks import AckTag, ChannelAcks
from notifier.queues.rabbitmq.connection import (
    CONNECTION_ERRORS,
    Connection,
    broker_timeout,
    close_channel,
    is_cancelled,
    open_channel,
    reason_of,
    retrieve_error,
)
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.wire.aiormq_hooks import callback_of
from notifier.queues.rabbitmq.wire.decoding import to_message

RPC_TIMEOUT_SECONDS = 5.0
NO_ANSWER_PROBLEM = (
    f"the broker did not answer within {RPC_TIMEOUT_SECONDS:.0f} s; a quorum queue needs most of its nodes"
)
RENEWAL_TIMEOUT_SECONDS = 60.0  # a busy broker takes over 5 s, and a renewal that fails costs the channel
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.05, 5.0

_CHANNEL_ERRORS = (*CONNECTION_ERRORS, QueueUnavailable)


class LaneConsumer:
    """Keeps one consumer of a lane's queue, or of a source's queue, running on the current connection.

    Until it `may_renew`, messages that are set aside use the prefetch.
    """

    def __init__(
        self,
        lane: Lane,
        queue: str,
        options: RabbitOptions,
        repair: Callable[[], Awaitable[None]],
        source: str | None = None,
        may_renew: Callable[[], bool] = lambda: True,
    ) -> None:
        self._lane = lane
        self._may_renew = may_renew
        self._source = source
        self._queue = queue
        self._prefetch = options.prefetch_of(lane)
        self._max_event_bytes = options.max_event
        self._repair = repair  # declares missing queues
        self._log = structlog.get_logger(__name__).bind(queue=queue)
        self._inbox: Inbox | None = None
        self._wanted = asyncio.Event()  # set from `start` to `stop`
        self._change_lock = shared_lock()  # `start`, `stop` and a new channel come from three tasks
        self._channel: aiormq.Channel | None = None
        self._consumer_tag: str | None = None
        self._acks: ChannelAcks | None = None
        self._last_tag = 0  # of the messages received by the channel
        self._on_message: ConsumerCallback | None = None  # one per channel: another would lose a message half read
        self._cancelled_by_broker = asyncio.Event()
        self.problem: str | None = None  # why the last attempt to consume failed

    @property
    def is_consuming(self) -> bool:
        """Return True while the broker sends messages."""
        return self._consumer_tag is not None and self._wanted.is_set()

    def has_former_consumers(self) -> bool:
        """Return whether the broker counts former consumers, too: not all of their messages are acked."""
        return self._acks is not None and self._acks.has_former_consumers

    async def start(self, inbox: Inbox) -> None:
        """Consume from now on, or as soon as there is a connection."""
        self._inbox = inbox
        self._wanted.set()
        with suppress(*_CHANNEL_ERRORS):  # `run` also detects the failure, and opens a new channel
            await self._consume()

    async def stop(self) -> None:
        """Take no further messages. Messages already taken can still be acked, since the channel stays open."""
        self._wanted.clear()
        self.problem = None
        with suppress(*_CHANNEL_ERRORS):  # also if a renewal takes too long: the inbox ignores further messages
            async with broker_timeout(RPC_TIMEOUT_SECONDS), self._change_lock:
                tag, self._consumer_tag = self._consumer_tag, None
                if self._channel is not None and tag is not None:
                    await self._channel.basic_cancel(tag)

    async def flush(self) -> None:
        """Send the pending acks."""
        if self._acks is not None:
            with suppress(*_CHANNEL_ERRORS):
                await self._acks.flush()

    async def run(self, connection: Connection) -> None:
        """Consume from `start` to `stop`, until cancelled."""
        pause = FIRST_PAUSE_SECONDS
        while not is_cancelled():
            await self._wanted.wait()
            try:
                channel = await open_channel(connection)
                consumed = await self._consume_on(channel)
            except QueueUnavailable:
                consumed = False
            if consumed:
                pause = FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    async def _consume_on(self, channel: aiormq.Channel) -> bool:
        """Consume until the channel is closed or its consumer is cancelled. Return True if consuming had started."""
        acks = ChannelAcks(channel, self._prefetch, self._may_renew)
        flushing = asyncio.create_task(acks.run())
        inbox = self._inbox
        assert inbox is not None  # only `start` sets `_wanted`
        self._cancelled_by_broker.clear()
        channel.on_consumer_cancel_callbacks.add(lambda _: self._cancelled_by_broker.set())
        consumed = False
        try:
            self._last_tag = 0
            self._channel, self._acks, self._on_message = channel, acks, self._callback_of(channel, acks, inbox)
            await self._consume()
            consumed = True
            reason = await self._wait_until_lost(channel, acks)
            self._log.warning("queue_consumer_lost", reason=reason)
        except ChannelNotFoundEntity as missing:
            self._log.warning("queue_missing", reason=reason_of(missing))
            await self._repair()
        except _CHANNEL_ERRORS as trouble:
            reason = NO_ANSWER_PROBLEM if isinstance(trouble, TimeoutError) else reason_of(trouble)
            self._log.warning("queue_consumer_failed", reason=reason)
            self.problem = f"{self._queue} cannot be consumed: {reason}"
        finally:
            self._channel = self._acks = self._on_message = self._consumer_tag = None
            acks.forget()
            flushing.cancel()
            if consumed:
                inbox.on_lost(self._lane, self._source)
        await close_channel(channel)
        return consumed

    def _callback_of(self, channel: aiormq.Channel, acks: ChannelAcks, inbox: Inbox) -> ConsumerCallback:
        lane, source = self._lane, self._source

        def take(delivered: aiormq.abc.DeliveredMessage) -> None:
            self._last_tag = delivered.delivery_tag or 0
            tag = AckTag(acks, self._last_tag)
            inbox.take(to_message(lane, delivered, tag, keep=self._max_event_bytes, source=source))

        return callback_of(channel, take)

    async def _consume(self, *, renew: bool = False) -> None:
        """Start the consumer if `start` was called, there is a channel, and the consumer is not running.

        With `renew` the running consumer is replaced. Its messages can still be acked.
        """
        async with self._change_lock:
            channel, acks, on_message, former = self._channel, self._acks, self._on_message, self._consumer_tag
            if bool(former) is not renew or not self._wanted.is_set():
                return
            if channel is None or acks is None or on_message is None:
                return
            async with broker_timeout(RENEWAL_TIMEOUT_SECONDS if renew else RPC_TIMEOUT_SECONDS):
                if former is not None:  # first, so that the other consumer's prefetch counts all its messages
                    await channel.basic_cancel(former)
                await channel.basic_qos(prefetch_count=acks.start_consumer(self._last_tag))
                consumer = await channel.basic_consume(self._queue, on_message)
                self._consumer_tag, self.problem = consumer.consumer_tag, None
                if not self._wanted.is_set():  # `stop` does not wait for a slow renewal
                    self._consumer_tag = None
                    await channel.basic_cancel(consumer.consumer_tag or "")

    async def _wait_until_lost(self, channel: aiormq.Channel, acks: ChannelAcks) -> str:
        """Renew the consumer when needed, until the channel is closed or its consumer is cancelled. Return why."""
        closing = channel.closing
        cancelled = asyncio.ensure_future(self._cancelled_by_broker.wait())
        renewal = asyncio.ensure_future(acks.needs_renewal.wait())
        try:
            while not (closing.done() or cancelled.done()):
                await asyncio.wait({closing, cancelled, renewal}, return_when=asyncio.FIRST_COMPLETED)
                if renewal.done() and not closing.done():
                    is_needed = acks.needs_renewal.is_set()  # acks may have freed the prefetch since
                    acks.needs_renewal.clear()
                    renewal = asyncio.ensure_future(acks.needs_renewal.wait())
                    if is_needed:
                        await self._consume(renew=True)
            if not closing.done():
                return "cancelled by the broker: the queue was deleted, or its leader moved"
            return reason_of(retrieve_error(closing))
        finally:
            for future in (closing, cancelled, renewal):
                future.cancel()
