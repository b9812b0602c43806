"""Writing messages so that they last: persistent, mandatory, confirmed, many at a time on one channel.

A publish has one of two ends: it returns, and the message is durable; or it raises QueueUnavailable, and the message is
perhaps durable all the same (a lost confirm), so that trying again may double it but never loses it.
"""

import asyncio
import random
from weakref import WeakValueDictionary

import aiormq
import structlog
from aiormq.exceptions import AMQPError, ChannelClosed, DeliveryError, PublishError
from pamqp import commands

from notifier.adapters.rabbitmq.connection import (
    Connection,
    Link,
    ending,
    is_blocked,
    named_losses,
    open_channel,
    reason_of,
)
from notifier.domain.errors import QueueUnavailable

IN_FLIGHT = 1000  # publishes without a confirm yet; bounds memory (128 KiB each at most) and the broker's backlog
CONFIRM_TIMEOUT = 10.0  # no confirm after so long: the broker is blocked or stuck, and the caller should know
PACE = 0.1  # seconds between two tries of one caller, on average
TOLD_FOR = 15.0  # seconds that a refusal is told after it was met: one that lasts is met again ten times a second
BLOCKED = "the broker blocks publishing: memory or disk alarm"


class Publishing:
    """The publishing side. `serve` keeps the channel; `mend_soon` is told that a queue or exchange seems missing."""

    def __init__(self, mend_soon: asyncio.Event) -> None:
        self._mend_soon = mend_soon
        self._connection: Connection | None = None
        self._channel: aiormq.Channel | None = None
        self._window = asyncio.Semaphore(IN_FLIGHT)
        # By message id, each for as long as somebody publishes under it.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._deadlines: set[asyncio.Timeout] = set()  # of every publish under way
        self._log = structlog.get_logger(__name__)
        self._refused, self._refused_at = "", -TOLD_FOR  # why the broker closed a channel last, and when

    async def serve(self, link: Link, connection: Connection) -> None:
        """Keep a channel on this connection, until cancelled."""
        self._connection = connection
        try:
            while not ending():
                channel = await open_channel(connection, confirms=True)
                self._channel = channel
                if not link.standing.is_set():
                    link.stand()
                closing = channel.closing
                await asyncio.wait({closing})
                self._note(None if closing.cancelled() else closing.exception())
                self._end_all()
                self._mend_soon.set()  # a publish to an exchange that is missing closes the channel
                await asyncio.sleep(PACE)
        finally:
            self._connection = self._channel = None
            self._end_all()

    def _note(self, error: BaseException | None) -> None:
        """Say it where the broker closed the channel and left the connection standing: nobody else would."""
        if isinstance(error, ChannelClosed):
            before, self._refused = self.refusal, reason_of(error)
            self._refused_at = asyncio.get_running_loop().time()
            if before != self._refused:  # not the same line again at every attempt
                self._log.warning("queue refuses", reason=self._refused)

    def _end_all(self) -> None:
        """The channel is gone. aiormq ends what waits for a confirm, but not what waits for its turn to be written."""
        for deadline in self._deadlines:
            if not deadline.expired():
                deadline.reschedule(0.0)

    @property
    def refusal(self) -> str | None:
        """Why the broker closes our channel, where it did so lately: others of our messages it may well take."""
        lately = asyncio.get_running_loop().time() - self._refused_at < TOLD_FOR
        return self._refused if lately else None

    @property
    def blocked(self) -> bool:
        """Whether a memory or disk alarm of the broker stops our publishing."""
        return self._connection is not None and is_blocked(self._connection)

    async def publish(
        self, exchange: str, routing_key: str, body: bytes, properties: commands.Basic.Properties
    ) -> None:
        """Return once the broker has confirmed the message. Raises QueueUnavailable."""
        # aiormq tells returned messages apart by their id alone: of two under way with the same id, the wrong one would
        # be called lost, and the lost one confirmed. So the second waits, outside the window that others need.
        message_id, turn = properties.message_id, asyncio.Lock()
        if message_id is not None:
            turn = self._turns.setdefault(message_id, turn)
        async with turn, self._window:
            await self._send(exchange, routing_key, body, properties)

    async def _send(self, exchange: str, routing_key: str, body: bytes, properties: commands.Basic.Properties) -> None:
        channel = self._channel
        if channel is None or channel.is_closed:
            raise QueueUnavailable("not connected")
        if self.blocked:
            raise QueueUnavailable(BLOCKED)
        deadline = asyncio.timeout(CONFIRM_TIMEOUT)
        self._deadlines.add(deadline)
        try:
            with named_losses():
                async with deadline:
                    await channel.basic_publish(
                        body,
                        exchange=exchange,
                        routing_key=routing_key,
                        properties=properties,
                        mandatory=True,
                        wait=False,
                    )
        except PublishError as returned:
            self._mend_soon.set()
            raise QueueUnavailable(f"no queue takes {exchange}/{routing_key}: {reason_of(returned)}") from returned
        except DeliveryError as refused:
            raise QueueUnavailable(f"the broker refused it (nack) for {exchange}/{routing_key}") from refused
        except TimeoutError as late:
            lost_it = channel is not self._channel or channel.is_closed
            text = "connection lost before the confirm" if lost_it else f"no confirm within {CONFIRM_TIMEOUT:.0f} s"
            raise QueueUnavailable(text) from late
        except (AMQPError, OSError, RuntimeError) as lost:
            raise QueueUnavailable(f"connection lost before the confirm: {reason_of(lost)}") from lost
        finally:
            self._deadlines.discard(deadline)

    async def available(self) -> None:
        """Return when a publish has a chance again. Never raises; paces its caller, whatever the trouble is."""
        await asyncio.sleep(PACE * random.uniform(0.5, 1.5))  # noqa: S311  spreads the callers; no secret
        while self._channel is None or self._channel.is_closed or self.blocked:  # noqa: ASYNC110  no event tells all three
            await asyncio.sleep(PACE)
