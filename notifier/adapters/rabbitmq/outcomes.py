"""Outcomes on their way to the exchange `<prefix>.outcomes`: unconfirmed, on a connection of their own.

Nobody waits for them, so that a broker which blocks or is slow holds up nothing else. The exchange is looked for on
every new channel; one that goes missing later closes the channel, and what was written meanwhile is lost uncounted.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import aiormq
import structlog
from aiormq.exceptions import AMQPError, ChannelClosed
from pamqp import commands

from notifier.adapters.rabbitmq.connection import Connection, Link, ending, is_blocked, open_channel, reason_of
from notifier.adapters.rabbitmq.options import RabbitOptions
from notifier.adapters.rabbitmq.topology import OUTCOMES
from notifier.domain.errors import QueueUnavailable
from notifier.domain.outcome_event import CONTENT_TYPE, Told, dump_told, headers, routing_key

PACE = 0.1  # seconds between two looks whether the broker takes some again
AGAIN = 2.0  # seconds until a channel that the broker closed is opened anew: the exchange is missing, or not ours
RPC_TIMEOUT = 10.0
PERSISTENT = 2


class OutcomePublisher:
    """A sink for outcomes. `run` in a task of its own."""

    at_once: Final = 16

    def __init__(self, options: RabbitOptions) -> None:
        self._exchange = f"{options.prefix}.{OUTCOMES}"
        self._declare = options.topology == "declare"
        self._source = f"/notifier/{options.prefix}"
        self._link = Link(options, "outcomes", self._serve)
        self._connection: Connection | None = None
        self._channel: aiormq.Channel | None = None
        self._log = structlog.get_logger(__name__)

    async def run(self) -> None:
        """Keep a channel, until cancelled."""
        await self._link.run()

    async def _serve(self, link: Link, connection: Connection) -> None:
        self._connection = connection
        told = ""
        try:
            while not ending():
                channel = await open_channel(connection)
                try:
                    async with asyncio.timeout(RPC_TIMEOUT):
                        await channel.exchange_declare(
                            self._exchange, exchange_type="topic", durable=True, passive=not self._declare
                        )
                    self._channel, told = channel, ""
                    if not link.standing.is_set():
                        link.stand()
                    await asyncio.wait({channel.closing})
                except ChannelClosed as refused:
                    if told != (told := reason_of(refused)):
                        self._log.warning("outcomes are not published", reason=told)
                self._channel = None
                await asyncio.sleep(AGAIN)
        finally:
            self._connection = self._channel = None

    @property
    def _ready(self) -> aiormq.Channel | None:
        """The channel, where a publish has a chance."""
        if self._channel is None or self._channel.is_closed or self._connection is None:
            return None
        return None if is_blocked(self._connection) else self._channel

    async def available(self) -> None:
        """Return when there is a channel and the broker does not block it."""
        while self._ready is None:  # noqa: ASYNC110  no event tells both
            await asyncio.sleep(PACE)

    async def send(self, batch: Sequence[Told]) -> None:
        """Return once they are written to the connection. Raises QueueUnavailable."""
        channel = self._ready
        if channel is None:
            raise QueueUnavailable("not connected")
        try:
            for left, told in zip(reversed(range(len(batch))), batch, strict=True):
                # Only the last is waited for, until the connection has taken it: a slow broker fills the buffer above.
                await self._publish(channel, told, wait=left == 0)
        except (AMQPError, OSError, RuntimeError) as error:
            raise QueueUnavailable(reason_of(error)) from error

    async def _publish(self, channel: aiormq.Channel, told: Told, *, wait: bool) -> None:
        properties = commands.Basic.Properties(
            content_type=CONTENT_TYPE, delivery_mode=PERSISTENT, headers=dict(headers(told)), message_id=told.id
        )
        await channel.basic_publish(
            dump_told(told, self._source),
            exchange=self._exchange,
            routing_key=routing_key(told),
            properties=properties,
            wait=wait,
        )
