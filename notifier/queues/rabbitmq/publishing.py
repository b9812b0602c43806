"""Publishes durable messages: persistent, mandatory, confirmed, many at a time on one channel.

If a publish returns, the message is durable. If it raises QueueUnavailable, the message may still be durable, since
only the confirm may be lost. So a retry may duplicate a message, but never loses one.

The channel is replaced if a queue nacks several publishes in a row: see `queue_window.py`.
Publishes in flight on the former channel keep it open until they are confirmed, or fail after 10 s.
"""

import asyncio
import random
from collections.abc import Callable, Mapping

import aiormq
import aiormq.abc
import structlog
from aiormq.exceptions import ChannelClosed, DeliveryError, PublishError

from notifier.model.errors import MessageRefused, QueueUnavailable
from notifier.model.shared_resources import shared_future, shared_slots
from notifier.queues.rabbitmq.connection import (
    CONNECTION_ERRORS,
    Connection,
    broker_request,
    close_channel,
    is_blocked,
    is_cancelled,
    open_channel,
    reason_of,
    retrieve_error,
    translating_losses,
    user_of,
)
from notifier.queues.rabbitmq.queue_window import REFUSAL_HELP, QueueWindow
from notifier.queues.rabbitmq.wire.aiormq_hooks import is_installed
from notifier.queues.rabbitmq.wire.publish import (
    DIRECT_REPLY_TO,
    ConfirmedWrites,
    ConfirmOverdue,
    Publish,
)

# Unconfirmed, to all queues; bounds memory (128 KiB each at most) and the broker's backlog. The window of each
# queue (`queue_window.py`) is much smaller, so that queues that confirm nothing leave room for others.
MAX_IN_FLIGHT_PUBLISHES = 1000
CONFIRM_TIMEOUT_SECONDS = 10.0  # without a confirm by then the broker is blocked or stuck, and the publish fails
CHECK_INTERVAL_SECONDS = 1.0  # between checks for overdue publishes
RETRY_PAUSE_SECONDS = 0.1  # between two attempts of one caller, on average
REFUSAL_SHOWN_SECONDS = 20.0  # in the status; a permanent refusal recurs within 16 s, when delayed deliveries return
_UNCONFIRMED_PROBLEM = "connection lost before the confirm"
BLOCKED_PROBLEM = "the broker blocks publishing: memory or disk alarm"
NO_WORKER_ANSWERS_PROBLEM = (
    "the broker takes no message (a memory or disk alarm), so that no worker can answer; logouts go on, and failed ones"
    " wait in the workers' memory; rabbitmq-diagnostics alarms shows the node, and"
    " GET /v1/status of its API the state of a worker"
)


class Publishing:
    """Publishes on a channel that `serve` keeps open. Sets `repair_soon` if a queue or exchange may be missing.

    With `patience`, `publish` raises OneQueueUnavailable for a queue that has confirmed nothing for this many seconds;
    with `full_at_once` it raises QueueFull at each nack.
    """

    def __init__(
        self, repair_soon: asyncio.Event, *, patience: float | None = None, full_at_once: bool = False
    ) -> None:
        self._full_at_once = full_at_once
        self._repair_soon = repair_soon
        self._patience = patience
        self._connection: Connection | None = None
        self._channel: aiormq.Channel | None = None
        self._writes: ConfirmedWrites | None = None
        self._singly = False
        self._on_reply: Callable[[bytes], None] | None = None
        self._opened_at = 0.0
        self._replacing: asyncio.Future[None] | None = None  # done once the present channel is to be replaced
        self._all_windows = shared_slots(MAX_IN_FLIGHT_PUBLISHES)
        self._windows: dict[str, QueueWindow] = {}  # by queue, or by the exchange of a lane
        self._in_flight: dict[str, asyncio.Future[None]] = {}  # by message id, while it is being published
        self._log = structlog.get_logger(__name__)
        self._refused, self._refused_at = "", -REFUSAL_SHOWN_SECONDS  # the last refusal by the broker

    async def serve(self, connection: Connection, opened: Callable[[], None]) -> None:
        """Keep a channel for `publish` open on this connection, until cancelled. Call `opened` for each new channel."""
        self._connection = connection
        channels: set[asyncio.Task[None]] = set()  # the present one, and former ones with publishes in flight
        try:
            while not is_cancelled():
                channel = await open_channel(connection, confirms=True)
                if self._on_reply is not None:
                    await _consume_replies(channel, self._on_reply)
                replacing = self._replacing = asyncio.get_running_loop().create_future()
                channels.add(present := asyncio.create_task(self._publish_on(channel, opened)))
                present.add_done_callback(channels.discard)
                await asyncio.wait({present, replacing}, return_when=asyncio.FIRST_COMPLETED)
                if present.done():
                    await present
                    self._repair_soon.set()  # a publish to a missing exchange closes the channel
                    await asyncio.sleep(RETRY_PAUSE_SECONDS)
        finally:
            self._connection = None
            for task in channels:
                task.cancel()
            if channels:
                await asyncio.wait(channels)

    def request_replies(self, on_reply: Callable[[bytes], None]) -> None:
        """Request a reply to every message, from the next channel on, and pass each reply to `on_reply`.

        Direct reply-to delivers replies to the channel that published.
        """
        self._on_reply = on_reply

    async def _publish_on(self, channel: aiormq.Channel, opened: Callable[[], None]) -> None:
        """Publish on this channel until it is closed, or until another has replaced it and nothing is in flight."""
        writes = ConfirmedWrites(channel, CONFIRM_TIMEOUT_SECONDS, replies=self._on_reply is not None)
        writing = asyncio.create_task(writes.run())
        self._channel, self._writes, self._singly = channel, writes, not is_installed("confirms")
        self._opened_at = asyncio.get_running_loop().time()
        closing = channel.closing
        loss = QueueUnavailable(_UNCONFIRMED_PROBLEM)
        try:
            opened()
            while not closing.done() and (channel is self._channel or writes.has_unconfirmed):
                await asyncio.wait({closing}, timeout=CHECK_INTERVAL_SECONDS)
                writes.end_overdue()
            if closing.done():
                error = retrieve_error(closing)
                self._log_refusal(error)
                loss = _to_loss(error)
            else:
                await close_channel(channel)
        finally:
            closing.cancel()
            if channel is self._channel:
                self._channel = self._writes = None
            writing.cancel()
            writes.end(loss)

    def _log_refusal(self, error: BaseException | None) -> None:
        """Log the reason if the broker closed the channel but not the connection, whose end is logged elsewhere."""
        if isinstance(error, ChannelClosed):
            former, self._refused = self.refusal, reason_of(error)
            self._refused_at = asyncio.get_running_loop().time()
            if former != self._refused:  # do not log the same reason at every attempt
                self._log.warning("queue_refuses", reason=self._refused, help=REFUSAL_HELP)

    @property
    def refusal(self) -> str | None:
        """Why the broker recently closed the channel, or None. It may still accept other messages."""
        shown_since = asyncio.get_running_loop().time() - REFUSAL_SHOWN_SECONDS
        return self._refused if self._refused_at > shown_since else None

    @property
    def refusals(self) -> Mapping[str, str]:
        """Return why each queue that refuses for long does so, by name; "" for a recent end of the channel."""
        shown_since = asyncio.get_running_loop().time() - REFUSAL_SHOWN_SECONDS
        refusals = {} if self.refusal is None else {"": self.refusal}
        for name, window in self._windows.items():
            if window.refuses_long and window.refused_at > shown_since and window.refusal is not None:
                refusals[name] = window.refusal
        return refusals

    @property
    def is_open(self) -> bool:
        """Return True if there is a channel to publish on."""
        return self._channel is not None

    @property
    def user(self) -> str | None:
        """Return the broker's user of the connection; None without a connection, or for a certificate's user."""
        return None if self._connection is None else user_of(self._connection)

    @property
    def blocked(self) -> bool:
        """Return True if a memory or disk alarm of the broker blocks publishing."""
        return self._connection is not None and is_blocked(self._connection)

    async def publish(self, publish: Publish) -> None:
        """Return once the broker has confirmed the message. Raises QueueUnavailable."""
        # aiormq identifies an unroutable message by its id only. With two messages of one id in flight, it may report
        # the wrong one. So the second waits for the first, without a slot of the window.
        message_id = publish.message_id
        while (earlier := self._in_flight.get(message_id)) is not None:
            await asyncio.wait({earlier})
        if (window := self._windows.get(name := publish.exchange or publish.routing_key)) is None:
            window = self._windows[name] = QueueWindow(self._patience)
        published = shared_future()
        self._in_flight[message_id] = published
        try:
            async with window, self._all_windows:
                await self._send(publish, window)
        except QueueUnavailable:
            if window.refuses_long and not window.is_reported:
                window.on_reported()
                self._log.warning("queue_refuses", reason=window.refusal, help=REFUSAL_HELP)
            raise
        finally:
            del self._in_flight[message_id]
            published.set_result(None)

    async def _send(self, publish: Publish, window: QueueWindow) -> None:
        """Publish and wait for the confirm. Raises QueueUnavailable with the reason, in place of aiormq's errors."""
        if (channel := self._channel) is None or channel.is_closed:
            raise QueueUnavailable("not connected")
        if self.blocked:
            raise QueueUnavailable(BLOCKED_PROBLEM)
        former_count = window.confirmed_count
        try:
            await self._publish_confirmed(publish, window)
        except PublishError as returned:
            self._repair_soon.set()
            raise QueueUnavailable(
                f"no queue takes {_format_destination(publish)}: {reason_of(returned)}"
            ) from returned
        except DeliveryError as refused:
            text = (
                f"the broker refuses (nack) messages for {_format_destination(publish)}: it is full, often by a policy"
            )
            raise self._on_refused(window, channel, text, refused) from refused
        except TimeoutError as late:
            text = f"no confirm within {CONFIRM_TIMEOUT_SECONDS:.0f} s for {_format_destination(publish)}"
            raise self._on_refused(window, channel, text, late) from late
        except CONNECTION_ERRORS as lost:
            raise _to_loss(lost) from lost
        if window.is_reported:
            self._log.info("queue_accepts", queue=publish.exchange or publish.routing_key)
        window.on_confirmed(former_count)

    def _on_refused(
        self, window: QueueWindow, channel: aiormq.Channel, text: str, error: Exception
    ) -> QueueUnavailable:
        """Record the refusal, and replace the channel if that may help. Return the error."""
        if self.blocked:
            return QueueUnavailable(f"{text}: {BLOCKED_PROBLEM}")
        late_confirm = error.confirm if isinstance(error, ConfirmOverdue) else None
        window.on_refused(text, is_nack=isinstance(error, DeliveryError), late_confirm=late_confirm)
        if channel is self._channel and window.needs_channel(self._opened_at):
            assert self._replacing is not None
            if not self._replacing.done():
                self._replacing.set_result(None)
        is_full = self._full_at_once and isinstance(error, DeliveryError)
        return window.to_error(text) if is_full else QueueUnavailable(text)

    async def _publish_confirmed(self, publish: Publish, window: QueueWindow) -> None:
        """Publish together with other messages, or singly if that hook is off. Raises aiormq's errors too."""
        writes = self._writes
        assert writes is not None, "it is set with the channel"
        try:
            if self._singly:
                with translating_losses():
                    await writes.write_singly(publish)
            else:
                await writes.write(publish)
        except asyncio.CancelledError:
            if (late_confirm := writes.late_confirm(publish.message_id)) is not None:
                window.keep_place(late_confirm)
            raise
        finally:
            writes.forget(publish.message_id)

    async def wait_until_available(self) -> None:
        """Wait until a publish can succeed. Never raises. Always waits briefly, to pace its caller."""
        await asyncio.sleep(RETRY_PAUSE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311  spreads the callers; no secret
        while self._channel is None or self._channel.is_closed or self.blocked:  # noqa: ASYNC110  there is no event for all three
            await asyncio.sleep(RETRY_PAUSE_SECONDS)


def _to_loss(error: BaseException | None) -> QueueUnavailable:
    """Return the error of publishes in flight whose channel or connection has ended with this error."""
    kind = MessageRefused if isinstance(error, ChannelClosed) else QueueUnavailable
    return kind(f"{_UNCONFIRMED_PROBLEM}: {reason_of(error)}")


def _format_destination(publish: Publish) -> str:
    return f"{publish.exchange}/{publish.routing_key}" if publish.exchange else publish.routing_key


async def _consume_replies(channel: aiormq.Channel, on_reply: Callable[[bytes], None]) -> None:
    """Pass replies to `on_reply`. Raises QueueUnavailable."""

    async def on_message(delivered: aiormq.abc.DeliveredMessage) -> None:
        on_reply(delivered.body)

    async with broker_request("replies cannot be received"):
        await channel.basic_consume(DIRECT_REPLY_TO, on_message, no_ack=True)
