"""Replies on their way to the broker: bounded, unconfirmed, dropped and counted where they cannot go at once."""

import asyncio
from collections import deque

import aiormq
from pamqp import commands

from notifier.adapters.queues.rabbitmq.connection import Connection, is_blocked, named_losses
from notifier.domain.reply import ReplyTo

MOST, MOST_BYTES = 2000, 1024 * 1024  # that wait to be written
REPLY = "notifier.reply"
TRANSIENT = 1


class Outbox:
    """A bounded line of replies that wait to be written. `dropped` counts."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, str | None, bytes]] = deque()
        self._bytes = 0
        self.filled = asyncio.Event()
        self.dropped = 0
        self.written = 0

    def put(self, to: str, correlation_id: str | None, body: bytes) -> None:
        """Never waits. What no message can bear is dropped: written, it would end the connection for all replies.

        An older release may have written such a name into a delivery.
        """
        full = len(self._waiting) >= MOST or self._bytes + len(body) > MOST_BYTES
        if full or not ReplyTo(to=to, correlation_id=correlation_id).writable:
            self.dropped += 1
            return
        self._waiting.append((to, correlation_id, body))
        self._bytes += len(body)
        self.filled.set()

    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def clear(self) -> None:
        """Drop what waits."""
        self.dropped += len(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        self.filled.clear()

    async def write(self, channel: aiormq.Channel, connection: Connection) -> None:
        """Write what comes, until cancelled. Raises what aiormq does, or QueueUnavailable."""
        while True:
            await self.filled.wait()
            self.filled.clear()
            while self._waiting:
                to, correlation_id, body = self._waiting.popleft()
                self._bytes -= len(body)
                if is_blocked(connection):
                    self.dropped += 1
                    continue
                properties = commands.Basic.Properties(
                    content_type="application/json",
                    delivery_mode=TRANSIENT,
                    message_type=REPLY,
                    correlation_id=correlation_id,
                )
                self.written += 1
                # Waited for until the connection has taken it: a slow broker fills the outbox.
                with named_losses():
                    await channel.basic_publish(body, routing_key=to, properties=properties)
