"""Sends replies to publishers that requested them, bounded and unconfirmed. Drops and counts unsendable replies.

A publisher may write any name of direct reply-to into its event, and RabbitMQ (3.10.8) closes the connection if it
cannot decode the name. So these names are never sent on a connection that logouts need. `ReplyConnection` is a
dedicated connection, which exists only while there are replies.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine

import aiormq
from pamqp import commands

from notifier.model.errors import QueueUnavailable
from notifier.model.reply import ReplyTo
from notifier.queues.rabbitmq.connection import Connection, broker_timeout, is_blocked, open_channel
from notifier.queues.rabbitmq.link import Link
from notifier.queues.rabbitmq.options import RabbitOptions

MAX_PENDING_REPLIES, MAX_PENDING_BYTES = 2000, 1024 * 1024  # pending
REPLY_TYPE = "notifier.reply"
WORKER_COUNT = "worker_count"  # the header of an answer to a request that all workers receive
TRANSIENT_MODE = 1
IDLE_SECONDS = 60.0  # without a reply, until the connection is closed


class Outbox:
    """A bounded number of pending replies. Counts dropped replies."""

    def __init__(self) -> None:
        self._pending: deque[tuple[str, str | None, bytes, int | None]] = deque()
        self._bytes = 0
        self.filled = asyncio.Event()
        self.dropped = 0
        self.written = 0

    def put(self, to: str, correlation_id: str | None, body: bytes, worker_count: int | None = None) -> None:
        """Add a reply without waiting. Drop a reply whose name cannot be encoded, which would end the connection.

        `worker_count`: the number of workers, in an answer to a request that all workers receive; 0 while unknown.
        """
        full = len(self._pending) >= MAX_PENDING_REPLIES or self._bytes + len(body) > MAX_PENDING_BYTES
        if full or not ReplyTo(to=to, correlation_id=correlation_id).writable:
            self.dropped += 1
            return
        self._pending.append((to, correlation_id, body, worker_count))
        self._bytes += len(body)
        self.filled.set()

    def clear(self) -> None:
        """Drop all replies."""
        self.dropped += len(self._pending)
        self._pending.clear()
        self._bytes = 0
        self.filled.clear()

    async def write(self, channel: aiormq.Channel, connection: Connection) -> None:
        """Write replies until cancelled. Raises aiormq's errors, or QueueUnavailable."""
        while True:
            await self.filled.wait()
            self.filled.clear()
            while self._pending:
                to, correlation_id, body, worker_count = self._pending.popleft()
                self._bytes -= len(body)
                if is_blocked(connection):
                    self.dropped += 1
                    continue
                properties = commands.Basic.Properties(
                    content_type="application/json",
                    delivery_mode=TRANSIENT_MODE,
                    message_type=REPLY_TYPE,
                    correlation_id=correlation_id,
                    headers=None if worker_count is None else {WORKER_COUNT: worker_count},
                )
                self.written += 1
                # Wait until the connection has written it, so that a slow broker fills the outbox.
                async with broker_timeout(None):
                    await channel.basic_publish(body, routing_key=to, properties=properties)


class ReplyConnection:
    """The connection for replies to names that publishers provided. `run` needs a dedicated task."""

    def __init__(self, options: RabbitOptions) -> None:
        self._link = Link(options, "replies", self._serve)
        self.outbox = Outbox()

    async def run(self) -> None:
        """Connect while there are replies, until cancelled."""
        while True:
            await self.outbox.filled.wait()
            await _run_until_one_ends(self._link.run(), self._wait_until_idle())
            self.outbox.clear()

    async def _wait_until_idle(self) -> None:
        """Return once no reply was written for a minute, or the broker is unreachable after one."""
        before = -1
        while before != self.outbox.written:
            before = self.outbox.written
            await asyncio.sleep(IDLE_SECONDS)
            if self._link.connection is None:  # requesters have given up
                return

    async def _serve(self, link: Link, connection: Connection) -> None:
        channel = await open_channel(connection)
        link.mark_connected()
        closing = channel.closing
        try:
            await _run_until_one_ends(self.outbox.write(channel, connection), asyncio.wait({closing}))
        finally:
            closing.cancel()
        raise QueueUnavailable("the channel for replies was closed")


async def _run_until_one_ends(*works: Coroutine[object, object, object]) -> None:
    """Run all until one ends, and cancel the others. Raises the error of the ended one."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
