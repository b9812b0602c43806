"""Sends replies to publishers that requested them, bounded and unconfirmed. Drops and counts unsendable replies.

`broadcast_request` collects the answers of workers, which are such replies.

A publisher may write any name of direct reply-to into its event, and RabbitMQ (3.10.8) closes the connection if it
cannot decode the name. So these names are never sent on a connection that logouts need. `ReplyConnection` is a
dedicated connection, which exists only while there are replies.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine

import aiormq
import aiormq.abc
from pamqp import commands

from notifier.model.errors import QueueUnavailable
from notifier.model.reply import ReplyTo
from notifier.model.shared_resources import shared_bound
from notifier.queues.queue_state import WorkerAnswers
from notifier.queues.rabbitmq.connection import (
    Connection,
    broker_request,
    broker_timeout,
    channel_of,
    is_blocked,
    open_channel,
)
from notifier.queues.rabbitmq.link import Link
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.wire.publish import DIRECT_REPLY_TO

MAX_PENDING_REPLIES, MAX_PENDING_BYTES = shared_bound((2000, 1024 * 1024))  # pending
QUESTION = "notifier.question"  # the AMQP `type` of a request for the state of workers
REQUEST = "notifier.request"  # the `type` of a request for an operation, which is in its body
REPLY_TYPE = "notifier.reply"
WORKER_COUNT = "worker_count"  # the header of an answer to a request that all workers receive
TRANSIENT_MODE = 1
IDLE_SECONDS = 60.0  # without a reply, until the connection is closed
MAX_ANSWERS_BYTES, MIN_ANSWER_BYTES = 64 * MAX_PENDING_BYTES, 64 * 1024  # of all answers; counted for each at least
UNCOUNTED_ANSWER_SECONDS = 1.0  # for another answer while all contain no number
LATE_ANSWER_SECONDS = 10.0  # for another answer if there are as many as workers, of which some may be forged
BLOCKED_CHECK_SECONDS = 0.05  # between checks whether the broker blocks


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


class _Answers:
    """The answers to one request, of which some may be forged. `consumers`: see `broadcast_request`.

    Answers that no worker can send are dropped unread: those above 1 MiB, and those above MAX_ANSWERS_BYTES in all.
    """

    def __init__(self, consumers: int) -> None:
        self.has_enough = asyncio.Event()
        self.bodies: list[bytes] = []
        self._consumers = consumers
        self._counts: list[int] = []  # the number of workers in each answer, 0 without one
        self._free_bytes = MAX_ANSWERS_BYTES

    async def take(self, delivered: aiormq.abc.DeliveredMessage) -> None:
        """Take an answer. If it contains too small a number, others may follow for LATE_ANSWER_SECONDS."""
        if len(delivered.body) > min(MAX_PENDING_BYTES, self._free_bytes):
            return
        self._free_bytes -= max(MIN_ANSWER_BYTES, len(delivered.body))
        self.bodies.append(delivered.body)
        count = (delivered.header.properties.headers or {}).get(WORKER_COUNT)
        self._counts.append(max(0, count) if isinstance(count, int) else 0)
        highest = max(self._counts)
        if highest and self._counts.count(highest) >= max(highest, self._consumers):
            self.has_enough.set()
        patience = LATE_ANSWER_SECONDS if highest else UNCOUNTED_ANSWER_SECONDS
        asyncio.get_running_loop().call_later(patience, self._end_if_enough)

    def _end_if_enough(self) -> None:
        if len(self.bodies) >= self.worker_count:
            self.has_enough.set()

    @property
    def worker_count(self) -> int:
        """Return the largest number of workers in the answers; the number of consumers if they contain none."""
        return max(self._counts, default=0) or self._consumers


async def broadcast_request(
    connection: Connection, exchange: str, within: float, consumers: int, request: bytes | None
) -> WorkerAnswers:
    """Send a request to all workers and return their answers. Without `request`, each answers with its state.

    Returns after `within` seconds, once all workers have answered, or when the broker blocks publishing, whichever is
    first. Their number is the largest in the answers. All have answered if so many answers agree about it, and these
    are as many as `consumers`. While all answers contain none (older workers) or 0 (just after a start), their number
    is `consumers`, and others may follow for a second: workers that are not ready consume nothing. Raises
    QueueUnavailable.
    """
    answers = _Answers(consumers)
    async with channel_of(connection) as channel:
        async with broker_request("cannot ask the workers"):
            await channel.basic_consume(DIRECT_REPLY_TO, answers.take, no_ack=True)
            properties = commands.Basic.Properties(
                message_type=QUESTION if request is None else REQUEST,
                reply_to=DIRECT_REPLY_TO,
                delivery_mode=TRANSIENT_MODE,
                expiration=str(round(within * 1000)),
            )
            await channel.basic_publish(request or b"", exchange=exchange, properties=properties)
        waiting, closing = asyncio.ensure_future(answers.has_enough.wait()), channel.closing
        blocked = asyncio.ensure_future(_wait_until_blocked(connection))
        try:
            # The broker closes the channel if the exchange does not exist, that is, if there is no worker.
            await asyncio.wait({closing, waiting, blocked}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (waiting, closing, blocked):
                each.cancel()
    return WorkerAnswers(seen=max(len(answers.bodies), answers.worker_count), answers=answers.bodies)


async def _wait_until_blocked(connection: Connection) -> None:
    """Return once the broker blocks publishing on the connection, which it reports after the first message."""
    while not is_blocked(connection):  # noqa: ASYNC110  aiormq has no event for it
        await asyncio.sleep(BLOCKED_CHECK_SECONDS)
