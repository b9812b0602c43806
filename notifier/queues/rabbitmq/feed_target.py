"""Publishes the feed to the exchange `<prefix>.outcomes`, unconfirmed, on a dedicated connection.

So a blocking or slow broker delays nothing else. Each new channel checks that the exchange exists. If that is deleted
later, the broker closes the channel, and notices written meanwhile are lost without being counted.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import aiormq
import structlog
from aiormq.abc import ChannelFrame
from aiormq.exceptions import ChannelClosed

from notifier.model.errors import QueueUnavailable
from notifier.model.notice import FeedNotice
from notifier.queues.queue_port import EncodeNotice
from notifier.queues.rabbitmq.connection import (
    Connection,
    broker_request,
    broker_timeout,
    is_blocked,
    is_cancelled,
    open_channel,
    reason_of,
)
from notifier.queues.rabbitmq.link import Link
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.topology import OUTCOMES_EXCHANGE
from notifier.queues.rabbitmq.wire.aiormq_hooks import is_installed
from notifier.queues.rabbitmq.wire.publish import Publish, frames_of, publish_singly

CHECK_INTERVAL_SECONDS = 0.1  # between checks whether the broker accepts messages
REOPEN_DELAY_SECONDS = 2.0  # after the broker closed the channel because the exchange is missing or forbidden


class RabbitFeedTarget:
    """Sends the feed to the exchange `<prefix>.outcomes`. `run` needs a dedicated task."""

    max_batch: Final = 32

    def __init__(self, options: RabbitOptions, encode: EncodeNotice) -> None:
        self._encode = encode
        self._exchange = f"{options.prefix}.{OUTCOMES_EXCHANGE}"
        self._declare = options.topology == "declare"
        self._source = f"/notifier/{options.prefix}"
        self._link = Link(options, "outcomes", self._serve)
        self._connection: Connection | None = None
        self._channel: aiormq.Channel | None = None
        self._log = structlog.get_logger(__name__)

    async def run(self) -> None:
        """Keep a channel open, until cancelled."""
        await self._link.run()

    async def _serve(self, link: Link, connection: Connection) -> None:
        self._connection = connection
        logged = ""
        try:
            while not is_cancelled():
                channel = await open_channel(connection)
                try:
                    async with broker_timeout():
                        await channel.exchange_declare(
                            self._exchange, exchange_type="topic", durable=True, passive=not self._declare
                        )
                    self._channel, logged = channel, ""
                    if not link.connected.is_set():
                        link.mark_connected()
                    await asyncio.wait({channel.closing})
                except ChannelClosed as refused:
                    if logged != (logged := reason_of(refused)):
                        self._log.warning("outcomes_not_published", reason=logged)
                self._channel = None
                await asyncio.sleep(REOPEN_DELAY_SECONDS)
        finally:
            self._connection = self._channel = None

    @property
    def _ready(self) -> aiormq.Channel | None:
        """Return the channel if it can publish now, otherwise None."""
        if self._channel is None or self._channel.is_closed or self._connection is None:
            return None
        return None if is_blocked(self._connection) else self._channel

    async def wait_until_available(self) -> None:
        """Wait until there is a channel and the broker does not block it. Never raises."""
        while self._ready is None:  # noqa: ASYNC110  there is no event for both
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)

    async def send(self, batch: Sequence[FeedNotice]) -> None:
        """Return once the connection has written the notices to its socket. Raises QueueUnavailable.

        So a slow broker delays the caller, whose buffer is bounded, and does not fill the connection's queue.
        """
        if (channel := self._ready) is None:
            raise QueueUnavailable("not connected")
        if not is_installed("confirms"):
            async with broker_request("the connection was lost", None):
                for notice in batch:
                    await publish_singly(self._publish_of(notice), channel)
            return
        payload = b"".join([frames_of(self._publish_of(notice), channel) for notice in batch])
        written: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        await channel.write_queue.put(ChannelFrame(payload=payload, should_close=False, drain_future=written))
        closing = channel.closing
        try:
            await asyncio.wait({written, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not written.done():
                raise QueueUnavailable("the connection was lost")
        finally:
            closing.cancel()  # `channel.closing` returns a new future
            written.cancel()

    def _publish_of(self, notice: FeedNotice) -> Publish:
        """Return the notice as a message, not mandatory, since the exchange may have no queue."""
        message = self._encode(notice, self._source)
        return Publish(
            exchange=self._exchange,
            routing_key=message.routing_key,
            body=message.body,
            message_id=message.id,
            content_type=message.content_type,
            headers=message.headers,
            mandatory=False,
        )
