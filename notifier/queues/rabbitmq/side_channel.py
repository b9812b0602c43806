"""The side channel on RabbitMQ: replies to publishers, a worker's state for operators, reports for other workers.

Logouts have priority. So the side channel has a dedicated AMQP channel on the publishing connection, waits for no
confirm, and drops and counts messages when the outbox is full or the broker blocks. An error closes only that channel,
which is reopened; `serve` raises no error. Replies to a name that a publisher provided use another connection
(`replies`).

Each worker has an exclusive queue, bound to a fanout exchange that is deleted with the last worker. A worker whose user
may not declare them (`topology: verify`) still replies to publishers, but it cannot send its state to operators, and
neither publishes nor receives updates: such workers are counted by their consumers (`WorkerCount`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import aiormq
import aiormq.abc
import structlog
from aiormq.exceptions import ChannelAccessRefused
from pamqp import commands

from notifier.model.errors import QueueUnavailable
from notifier.model.reply import ReplyTo, parse_reply_to
from notifier.model.shared_resources import shared_bound
from notifier.queues.queue_port import Presence
from notifier.queues.queue_state import WorkerAnswers
from notifier.queues.rabbitmq.connection import (
    CONNECTION_ERRORS,
    Connection,
    broker_timeout,
    channel_of,
    is_blocked,
    is_cancelled,
    reason_of,
    retrieve_error,
)
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.replies import (
    MAX_PENDING_BYTES,
    MAX_PENDING_REPLIES,
    QUESTION,
    REQUEST,
    TRANSIENT_MODE,
    Outbox,
    ReplyConnection,
    broadcast_request,
)
from notifier.queues.rabbitmq.topology_watch import WorkerCount

UPDATES_PREFIX = "notifier."  # of the `type` of a worker's updates to the other workers; `app_id` is the sender
PRESENCE = "notifier.presence"  # the `type` of a worker's announcement to all workers
LARGE_BUCKETS = "large-buckets"  # the header of announcements: the worker has the large buckets; older ones lack it
RENEWED = "renewed"  # the header of announcements: the worker has several consumers of the counted lane
SHARE_INTERVAL_SECONDS = 0.02  # between two messages of one type
MESSAGE_TTL_MILLISECONDS = 3000  # later they are useless
MAX_RUNNING_REQUESTS = shared_bound(8)  # per worker; further requests are ignored
GENERATED_PREFIX = "amq."  # of names that the broker generates and a publisher may forge
REOPEN_DELAY_SECONDS = 5.0  # of a closed channel
QUEUE_TTL_MILLISECONDS = 30_000  # no requester waits longer for an answer


class RabbitSideChannel:
    """Replies to publishers, and sends this worker's state on request. It does nothing before `listen`."""

    def __init__(self, options: RabbitOptions, name: str, workers: WorkerCount, is_renewed: Callable[[], bool]) -> None:
        self._exchange = f"{options.prefix}.workers"
        self.address = f"{options.prefix}.worker.{name}"
        self._reply_connection = ReplyConnection(options)
        self._workers = workers
        self._is_renewed = is_renewed  # whether this worker has several consumers of the counted lane
        self._state: Callable[[], bytes] | None = None
        self._on_reply: Callable[[str, bytes], None] = lambda _id, _body: None
        self._handle_request: Callable[[bytes], Awaitable[bytes]] | None = None
        self._next_updates: dict[str, Callable[[], Awaitable[bytes]]] = {}  # by `type` …
        self._on_shared: dict[str, Callable[[bytes], None]] = {}  # … as this
        self._request_tasks: set[asyncio.Task[None]] = set()
        self._connection: Connection | None = None
        self._outbox = Outbox()
        self._malformed = 0
        self._cancelled = asyncio.Event()  # the broker deleted our queue
        self._may_declare = self._may_share = True
        self._logged_reason = ""
        self._log = structlog.get_logger(__name__)

    @property
    def is_listening(self) -> bool:
        """Return True after `listen`."""
        return self._state is not None

    def listen(self, state: Callable[[], bytes], on_reply: Callable[[str, bytes], None]) -> None:
        """Set the callbacks of a worker, from the next connection on. They must not block or raise.

        `state` returns the worker's state as a document. `on_reply` receives correlation id and body of each reply.
        """
        self._state, self._on_reply = state, on_reply

    def handle_requests(self, handle: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Set the callback that handles operators' requests. `handle` never raises."""
        self._handle_request = handle

    def share_updates(
        self, next_update: Callable[[], Awaitable[bytes]], on_update: Callable[[bytes], None], kind: str = "news"
    ) -> None:
        """Publish the updates of `next_update`; pass those of other workers to `on_update`. Neither may raise."""
        message_type = UPDATES_PREFIX + kind
        self._next_updates[message_type], self._on_shared[message_type] = next_update, on_update

    def share_presence(self, presence: Presence) -> None:
        """Publish the announcements of this worker, and pass those of all workers to `presence`."""

        def on_announcement(document: bytes) -> None:
            presence.on_announcement(document)
            self._workers.on_announced(presence.count)

        self._next_updates[PRESENCE], self._on_shared[PRESENCE] = presence.next_announcement, on_announcement

    @property
    def dropped(self) -> int:
        """Return the number of replies and answers that were dropped here, and of malformed requests and answers."""
        return self._malformed + self._outbox.dropped + self._reply_connection.outbox.dropped

    def on_malformed(self) -> None:
        """Count a request or answer that is malformed: anyone who may use the queue can send one."""
        self._malformed += 1

    def reply(self, to: str, correlation_id: str | None, body: bytes) -> None:
        """Send a reply, or drop and count it. Never waits or raises."""
        if to.startswith(GENERATED_PREFIX):
            self._reply_connection.outbox.put(to, correlation_id, body)
        elif self._connection is None:
            self._outbox.dropped += 1
        else:
            self._outbox.put(to, correlation_id, body)

    async def run(self) -> None:
        """Send the replies to publishers until cancelled, and then cancel the requests of operators in progress."""
        try:
            await self._reply_connection.run()
        finally:
            for task in self._request_tasks:
                task.cancel()

    async def serve(self, connection: Connection) -> None:
        """Receive requests and send answers on this connection until cancelled. A lost channel is opened again."""
        if self._state is None:
            return
        while not is_cancelled():
            try:
                await self._hold(connection)
            except (*CONNECTION_ERRORS, QueueUnavailable) as error:
                if isinstance(error, ChannelAccessRefused):
                    self._may_declare = False
                    self._workers.on_announced(0)
                if (reason := reason_of(error)) != self._logged_reason:
                    self._logged_reason = reason
                    self._log.info("workers_not_asked", reason=reason)
            finally:
                self._connection = None
                self._outbox.clear()
            await asyncio.sleep(REOPEN_DELAY_SECONDS)

    async def _hold(self, connection: Connection) -> None:
        """Send and receive on one channel until it is closed, or the broker deletes our queue."""
        async with channel_of(connection) as channel:
            if self._may_declare:
                await self._bind(channel)
            self._connection, self._logged_reason = connection, ""
            self._log.debug("replying", answering=self._may_declare)
            works: list[Coroutine[object, object, object]] = [
                self._outbox.write(channel, connection),
                self._cancelled.wait(),
            ]
            if self._may_declare and self._may_share:
                works += [self._share_messages(channel, connection, kind) for kind in self._next_updates]
            tasks = [asyncio.create_task(work) for work in works]
            closing = channel.closing
            try:
                await asyncio.wait({closing, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                if closing.done() and isinstance(retrieve_error(closing), ChannelAccessRefused):
                    self._may_share = False
                    self._workers.on_announced(0)
            finally:
                closing.cancel()
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                for task in tasks:
                    retrieve_error(task)

    async def _share_messages(self, channel: aiormq.Channel, connection: Connection, kind: str) -> None:
        """Publish this worker's messages of `kind`, until cancelled. Raises aiormq's errors, or QueueUnavailable."""
        while True:
            document = await self._next_updates[kind]()
            properties = commands.Basic.Properties(
                content_type="application/json",
                delivery_mode=TRANSIENT_MODE,
                message_type=kind,
                app_id=self.address,
                expiration=str(MESSAGE_TTL_MILLISECONDS),
                headers={LARGE_BUCKETS: self._workers.has_large_buckets, RENEWED: self._is_renewed()},
            )
            if not is_blocked(connection):
                async with broker_timeout(None):
                    await channel.basic_publish(document, exchange=self._exchange, properties=properties)
            await asyncio.sleep(SHARE_INTERVAL_SECONDS)

    async def _bind(self, channel: aiormq.Channel) -> None:
        async def on_message(delivered: aiormq.abc.DeliveredMessage) -> None:
            self._on_message(delivered)

        self._cancelled.clear()
        channel.on_consumer_cancel_callbacks.add(lambda _: self._cancelled.set())
        async with broker_timeout():
            await channel.exchange_declare(self._exchange, exchange_type="fanout", auto_delete=True)
            limits: dict[str, Any] = {"x-message-ttl": QUEUE_TTL_MILLISECONDS, "x-max-length": MAX_PENDING_REPLIES}
            await channel.queue_declare(self.address, exclusive=True, arguments=limits)
            await channel.queue_bind(self.address, self._exchange)
            await channel.basic_consume(self.address, on_message, no_ack=True)

    def _on_message(self, delivered: aiormq.abc.DeliveredMessage) -> None:
        """Handle a request, a message of a worker, or a reply, by the `type`. Own messages count as presence only."""
        if len(delivered.body) > MAX_PENDING_BYTES:
            return  # reading it would block the event loop
        properties = delivered.header.properties
        if properties.message_type in (QUESTION, REQUEST):
            reply_to = parse_reply_to(properties.reply_to or "", properties.correlation_id)
            if reply_to is not None and properties.message_type == REQUEST:
                self._start_request(reply_to, delivered.body)
            elif reply_to is not None and self._state is not None:
                self._put_answer(reply_to, self._state())
        elif (on_shared := self._on_shared.get(properties.message_type or "")) is not None:
            if properties.message_type == PRESENCE:
                headers = properties.headers or {}
                has_large_buckets, is_renewed = headers.get(LARGE_BUCKETS) is True, headers.get(RENEWED) is True
                self._workers.on_announcement(has_large_buckets=has_large_buckets, is_renewed=is_renewed)
                on_shared(delivered.body)
            elif properties.app_id != self.address:
                on_shared(delivered.body)
        elif properties.correlation_id:
            self._on_reply(properties.correlation_id, delivered.body)

    def _start_request(self, reply_to: ReplyTo, request: bytes) -> None:
        if self._handle_request is not None and len(self._request_tasks) < MAX_RUNNING_REQUESTS:
            task = asyncio.create_task(self._answer(reply_to, self._handle_request(request)))
            self._request_tasks.add(task)
            task.add_done_callback(self._request_tasks.discard)

    async def _answer(self, reply_to: ReplyTo, answer: Awaitable[bytes]) -> None:
        self._put_answer(reply_to, await answer)

    def _put_answer(self, reply_to: ReplyTo, answer: bytes) -> None:
        outbox = self._reply_connection.outbox
        outbox.put(reply_to.to, reply_to.correlation_id, answer, self._workers.value)

    async def collect_answers(
        self, connection: Connection, consumers: int, within: float, request: bytes | None = None
    ) -> WorkerAnswers:
        """Return the workers' answers that arrive in time. A command uses `connection`, and may get QueueUnavailable.

        A worker queries all workers, itself included, over its side channel's connection; without one it gets nothing.
        `consumers`: the number of workers if no answer contains it.
        """
        if not self.is_listening:
            return await broadcast_request(connection, self._exchange, within, consumers, request)
        consumers = self._workers.value or max(consumers, 1)
        with suppress(QueueUnavailable):
            if (own := self._connection) is not None and not is_blocked(own):
                return await broadcast_request(own, self._exchange, within, consumers, request)
        return WorkerAnswers(seen=consumers, answers=[])
