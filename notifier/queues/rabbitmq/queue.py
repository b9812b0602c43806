"""The queue on RabbitMQ. It has two connections: an alarm blocks the publishing connection, but must not stop acks.

Callers name queues without prefix.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import NoReturn
from uuid import uuid4

from notifier.model.backoff import Rounding
from notifier.model.errors import QueueUnavailable
from notifier.model.message import DEAD, SOURCE, Depth, Lane, Message, MessageDraft, QueueStatus
from notifier.queues.queue_port import EncodeNotice, Inbox, NameHolder, name_another
from notifier.queues.queue_state import BrokerState, QueueOverview, WorkerAnswers
from notifier.queues.rabbitmq.acks import AckTag
from notifier.queues.rabbitmq.administration import COUNTED_LANE, DepthReader, count_consumers, read_depths
from notifier.queues.rabbitmq.broker_trials import PolicyWatch
from notifier.queues.rabbitmq.buckets import BucketReader
from notifier.queues.rabbitmq.connection import Connection, connected, is_blocked
from notifier.queues.rabbitmq.consuming import LaneConsumer
from notifier.queues.rabbitmq.dead_letters import WAITING, PassLock, RabbitDeadLetters
from notifier.queues.rabbitmq.delays import DELAY_QUEUES, Forwarder, publish_delayed, to_first_hop
from notifier.queues.rabbitmq.event_queue import EventPublisher
from notifier.queues.rabbitmq.examination import examine_broker
from notifier.queues.rabbitmq.feed_target import RabbitFeedTarget
from notifier.queues.rabbitmq.link import Link
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.overdue import OverdueDelays
from notifier.queues.rabbitmq.publishing import BLOCKED_PROBLEM, NO_WORKER_ANSWERS_PROBLEM, Publishing
from notifier.queues.rabbitmq.queue_window import PATIENCE_SECONDS, describe_refusals
from notifier.queues.rabbitmq.register import RabbitRegister
from notifier.queues.rabbitmq.side_channel import RabbitSideChannel
from notifier.queues.rabbitmq.source_bindings import SourceBindings
from notifier.queues.rabbitmq.topology_watch import TopologyWatch, WorkerCount
from notifier.queues.rabbitmq.waiting import RabbitWaiting
from notifier.queues.rabbitmq.wire.publish import Publish

FLUSH_TIMEOUT_SECONDS = 1.0  # for the last acks; unacked messages are redelivered
STATUS_CONNECT_TIMEOUT_SECONDS = 1.2  # the command shows an error within 2 s


class RabbitQueue(EventPublisher):
    """A queue on RabbitMQ. Between `open` and `close` it recovers from every loss of the broker."""

    def __init__(self, options: RabbitOptions, *, clock: Callable[[], float] = time.time) -> None:
        self._options, self._clock = options, clock
        self._forwarder: Forwarder | None = None
        self._dead_lock, self._waiting_lock = PassLock(options, DEAD), PassLock(options, WAITING)
        waiting_at_once = partial(RabbitWaiting, options, self.publish, self._park, self._waiting_lock, busy_for=0.0)
        self._overdue = OverdueDelays(waiting_at_once, self._is_empty, clock)
        self._links = Link(options, "consume", self._serve_consuming), Link(options, "publish", self._serve_publishing)
        self._workers = WorkerCount()
        self.register = RabbitRegister(options, lambda: self._watch.repair_soon.set())  # noqa: PLW0108  made next
        opened, on_new_register = self._links[1].wait_for_connection, self.register.on_declared
        self._watch = TopologyWatch(options, opened, self._workers, on_new_register)
        self._bindings, self._policies = SourceBindings(options), PolicyWatch(options)
        self._depth_reader = DepthReader(options)
        lanes = {
            lane: LaneConsumer(
                lane, self._name(lane), options, self._watch.repair, may_renew=partial(self._workers.may_renew, lane)
            )
            for lane in Lane
        }
        counted = lanes[COUNTED_LANE]
        self.side_channel = RabbitSideChannel(options, uuid4().hex, self._workers, counted.has_former_consumers)
        self._lanes = [*lanes.values()]
        for name in options.sources:
            queue = self._name(SOURCE + name)
            self._lanes.append(LaneConsumer(Lane.EVENTS, queue, options, self._repair_source_queue, name))
        self._bucket_reader = BucketReader(options, self._watch.repair_soon)
        super().__init__(options.prefix, Publishing(self._watch.repair_soon))
        # On 4.x a publish to a queue without a leader blocks its channel: several, so that others continue.
        patient = partial(Publishing, self._watch.repair_soon, patience=PATIENCE_SECONDS)
        even, odd, self._dead_lettering = (patient(full_at_once=True) for _ in range(3))
        self._parking = patient()
        self._publishings = self._publishing, self._parking, even, odd, self._dead_lettering
        self._delaying = {queue: odd if power % 2 else even for power, queue in enumerate(DELAY_QUEUES)}
        self._tasks: list[asyncio.Task[None]] = []

    def _name(self, queue: str) -> str:
        return f"{self._options.prefix}.{queue}"

    async def open(self) -> None:
        """Start connecting in the background. Reconnect until `close`."""
        more = (self.side_channel.run,) if self.side_channel.is_listening else ()
        self._tasks = [asyncio.create_task(run()) for run in (*(link.run for link in self._links), *more)]

    async def wait_until_ready(self) -> None:
        """Return once both connections are ready and every queue exists.

        Raises TopologyMismatch if a queue differs, and QueueError if the broker refuses the connection. The queue
        continues to connect after an error.
        """
        for link in reversed(self._links):  # the connection for publishing first: a test on it precedes the declares
            await link.wait_until_ready(self._tasks)

    async def close(self) -> None:
        """Stop, and send the pending acks. The broker redelivers unacked messages."""
        await self.stop_consuming()
        if self._forwarder is not None:
            self._forwarder.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_TIMEOUT_SECONDS):
                await asyncio.gather(*(lane.flush() for lane in self._lanes), self._bucket_reader.flush())
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []
        await self.register.close()

    async def wait_until_broken(self) -> NoReturn:
        """Never return: this queue recovers from every loss."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody sets this future")

    async def consume(self, inbox: Inbox) -> None:
        """Pass messages of all lanes to `inbox` from now on, through every loss of connection or queue."""
        forwarder = self._forwarder = Forwarder(
            inbox, self._delay, self.wait_until_available, self.ack, self._clock, self._overdue.on_received
        )
        for lane in self._lanes:
            await lane.start(forwarder)
        self._policies.begin()

    async def stop_consuming(self) -> None:
        """Take no further messages. Messages already taken can still be acked."""
        await asyncio.gather(*(lane.stop() for lane in self._lanes))

    async def _serve_consuming(self, link: Link, connection: Connection) -> None:
        async with asyncio.TaskGroup() as tasks:
            if self.side_channel.is_listening:  # as a worker, which reads the pauses before its first delivery
                tasks.create_task(self.register.connect_ahead())
            await self._watch.prepare(connection)
            link.mark_connected()
            for run in (self._watch.run, self._bindings.run, *(lane.run for lane in self._lanes)):
                tasks.create_task(run(connection))
            tasks.create_task(self._bucket_reader.serve(connection))
            tasks.create_task(self._policies.run())
            tasks.create_task(self._overdue.run())

    async def _repair_source_queue(self) -> None:
        """Restore a source's queue, and its bindings, which were deleted with it."""
        await self._watch.repair()
        self._bindings.bind_soon.set()

    async def _serve_publishing(self, link: Link, connection: Connection) -> None:
        def opened() -> None:
            if all(publishing.is_open for publishing in self._publishings) and not link.connected.is_set():
                link.mark_connected()

        async with asyncio.TaskGroup() as tasks:
            for publishing in self._publishings:
                tasks.create_task(publishing.serve(connection, opened))
            tasks.create_task(self.side_channel.serve(connection))

    def ack(self, message: Message) -> None:
        """Delete the message. No effect if its channel is closed: then it is redelivered."""
        if isinstance(message.tag, AckTag):
            message.tag.acks.settle(message.tag.number)

    def set_aside(self, message: Message) -> None:
        """Make room for another message of the lane, before the ack."""
        if isinstance(message.tag, AckTag):
            message.tag.acks.set_aside(message.tag.number)

    async def publish(self, queue: str, message: MessageDraft) -> None:
        """Return once the message is durable in `queue`. Raises QueueUnavailable; OneQueueUnavailable of `dead`."""
        publishing = self._dead_lettering if queue == DEAD else self._publishing
        await publishing.publish(self._as_publish(queue, message, patient=False))

    async def publish_later(self, message: MessageDraft, *, due: float, rounding: Rounding = "down") -> None:
        """Return once the message is durable in a delay queue. Raises QueueUnavailable."""
        await publish_delayed(self._delay, *to_first_hop(message, due - self._clock(), rounding))

    async def _delay(self, queue: str, message: MessageDraft) -> None:
        await self._delaying[queue].publish(self._as_publish(queue, message))
        self._overdue.on_published(queue)

    def _as_publish(self, queue: str, message: MessageDraft, *, patient: bool = True) -> Publish:
        """Return the message to publish to this queue. Raises QueueUnavailable if the queue is too new."""
        self._watch.settling.check(self._name(queue))
        return Publish(
            exchange="", routing_key=self._name(queue), body=message.body,
            message_id=message.message_id or uuid4().hex, content_type=message.content_type,
            message_type=str(message.kind), headers=message.headers, patient=patient,
        )  # fmt: skip

    async def wait_until_available(self) -> None:
        """Return when publishing can succeed."""
        await self._publishing.wait_until_available()

    def bucket(self, client: tuple[str, str], *, large: bool = False) -> str:
        """Return the name of the bucket of this client (`iss`, `client_id`), or of its large bucket if it is used."""
        return self._watch.bucket_of(client, large=large)

    def inherited_buckets(self, *, at_start: bool) -> Sequence[str]:
        """Return all buckets at the start, since messages outlive a worker; later the large buckets if not used."""
        return self._watch.buckets if at_start else self._watch.unused_buckets

    async def park(self, bucket: str, message: MessageDraft, *, until: float) -> None:  # noqa: ARG002  a bucket has one TTL
        """Return once the message is durable in the bucket. Raises QueueUnavailable."""
        await self._park(bucket, message)

    async def _park(self, bucket: str, message: MessageDraft) -> None:
        await self._parking.publish(self._as_publish(bucket, message))

    async def fetch(self, bucket: str, most: int) -> Sequence[Message]:
        """Take up to `most` messages out of the bucket, oldest first. Raises QueueUnavailable."""
        return await self._bucket_reader.fetch(self._name(bucket), most)

    async def count_parked(self, buckets: Collection[str] | None = None) -> Mapping[str, int]:
        """Return the number of messages per bucket, without empty buckets. Raises QueueUnavailable."""
        names = {bucket: self._name(bucket) for bucket in (self._watch.buckets if buckets is None else buckets)}
        depths = await read_depths(self._consuming_connection(), names)
        if len(depths) < len(names):
            self._watch.repair_soon.set()
        return {bucket: depth.ready for bucket, depth in depths.items() if depth.ready}

    def status(self) -> QueueStatus:
        """Return the state. `connected`: both connections. `consuming`: all lanes, and no queue is too new."""
        connected, blocked = all(link.connected.is_set() for link in self._links), self._publishing.blocked
        new, lacks_large = self._watch.settling.problem, not self._workers.has_large_buckets
        refusals = {name: text for publishing in self._publishings for name, text in publishing.refusals.items()}
        problems = (
            *(link.failure for link in self._links), self._watch.problem, new, *(lane.problem for lane in self._lanes),
            BLOCKED_PROBLEM if blocked else describe_refusals(refusals),
        )  # fmt: skip
        return QueueStatus(
            connected=connected, consuming=connected and new is None and all(lane.is_consuming for lane in self._lanes),
            blocked=blocked, problem=next((str(problem) for problem in problems if problem is not None), None),
            bindings=self._bindings.states, overrides=self._policies.overrides, refusing=len(refusals),
            moved_on=self._overdue.moved, dead_letters=self._depth_reader.dead_letters, lacks_large_buckets=lacks_large,
        )  # fmt: skip

    def worker_count(self) -> int:
        """Return the number of workers, including this one, ready or not; 0 while unknown."""
        return self._workers.value

    async def depths(self) -> Mapping[str, Depth]:
        """Return the depths by queue name without prefix, all buckets as `parked`. Raises QueueUnavailable."""
        return await self._depth_reader.read(self._consuming_connection(), self._watch.buckets)

    async def read_overview(self, within: float) -> QueueOverview:
        """Return the depths, and the states of workers that answer in time. Raises QueueError."""
        async with self._at_broker("status", STATUS_CONNECT_TIMEOUT_SECONDS) as connection:
            depths = await self._depth_reader.read(connection, self._watch.buckets)
            consumers = depths[COUNTED_LANE].consumers if COUNTED_LANE in depths else 0
            received = await self.side_channel.collect_answers(connection, consumers, within)
            blocked = NO_WORKER_ANSWERS_PROBLEM if not self._tasks and is_blocked(connection) else ""
            return QueueOverview(
                depths=depths, oldest={}, worker_states=received.answers, workers=received.seen, blocked=blocked,
                dead_letters_held=self._depth_reader.dead_letters_held,
            )  # fmt: skip

    async def request(self, document: bytes, within: float) -> WorkerAnswers:
        """Send a request to all workers; return the answers that arrive in time. Raises QueueError."""
        async with self._at_broker("request") as connection:
            consumers = await count_consumers(connection, self._options)
            return await self.side_channel.collect_answers(connection, consumers, within, document)

    @asynccontextmanager
    async def _at_broker(self, purpose: str, within: float = math.inf) -> AsyncIterator[Connection]:
        """Yield the connection of an open queue, or a temporary one for the block. Declares nothing."""
        if self._tasks:
            yield self._consuming_connection()
        else:
            async with connected(self._options, purpose, within) as connection:
                yield connection

    async def examine(self) -> BrokerState:
        """Return the state of the broker, for the doctor, over dedicated connections. Raises QueueError."""
        return await examine_broker(self._options)

    def dead_letters(self, name_holder: NameHolder = name_another) -> RabbitDeadLetters:
        """Return the dead letters, over a dedicated connection. A replay requires this queue to be open."""
        return RabbitDeadLetters(self._options, self.publish, self._dead_lock, name_holder)

    def waiting(self, name_holder: NameHolder = name_another) -> RabbitWaiting:
        """Return the pending deliveries, over a dedicated connection. Open this queue before: a pass may park."""
        return RabbitWaiting(self._options, self.publish, self._park, self._waiting_lock, name_holder)

    async def _is_empty(self, queue: str) -> bool:
        depths = await read_depths(self._consuming_connection(), {queue: self._name(queue)})
        return queue in depths and not depths[queue].ready

    def feed_target(self, encode: EncodeNotice) -> RabbitFeedTarget:
        """Return the target of the feed: an exchange, over a dedicated connection."""
        return RabbitFeedTarget(self._options, encode)

    def _consuming_connection(self) -> Connection:
        if (connection := self._links[0].connection) is not None:
            return connection
        raise QueueUnavailable("not connected")
