"""The queue on RabbitMQ. It has two connections: a memory alarm blocks the one that publishes, and must not stop acks.

Callers name queues without prefix.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn
from uuid import uuid4

import structlog

from notifier.adapters.queues.rabbitmq import topology
from notifier.adapters.queues.rabbitmq.acks import AckTag
from notifier.adapters.queues.rabbitmq.administration import browse, depths_at, look_around, queue_names
from notifier.adapters.queues.rabbitmq.connection import LOST, Connection, bounded, ending
from notifier.adapters.queues.rabbitmq.consuming import LaneConsumer
from notifier.adapters.queues.rabbitmq.dead_letters import RabbitDeadLetters
from notifier.adapters.queues.rabbitmq.delays import Forwarder, first_pass
from notifier.adapters.queues.rabbitmq.examination import examine_broker
from notifier.adapters.queues.rabbitmq.feed_target import RabbitFeedTarget
from notifier.adapters.queues.rabbitmq.link import Link
from notifier.adapters.queues.rabbitmq.options import RabbitOptions
from notifier.adapters.queues.rabbitmq.publishing import BLOCKED, Publishing
from notifier.adapters.queues.rabbitmq.side_channel import RabbitSideChannel
from notifier.adapters.queues.rabbitmq.wire.publish import Publish
from notifier.domain.backoff import Rounding
from notifier.domain.errors import NotifierError, QueueUnavailable
from notifier.domain.message import Depth, Lane, Message, Outgoing, QueueStatus
from notifier.domain.queue_state import BrokerState, QueueOverview
from notifier.pipeline.ports import Inbox

WATCH_EVERY = 15.0  # seconds between two looks at the number of consumers, and at queues that should be there
MEND_AT_MOST_EVERY = 0.5
HOPELESS_EVERY = 5.0  # after a failed mend: an operator must act first
ROUTING_KEY = "session-ended"  # any: the exchanges are bound with `#`


class RabbitQueue:
    """A queue on RabbitMQ. Between `open` and `close` it survives every loss of the broker."""

    def __init__(self, options: RabbitOptions, *, clock: Callable[[], float] = time.time) -> None:
        self._options = options
        self._clock = clock
        self._forwarder: Forwarder | None = None
        self._topology = topology.topology_of(options.prefix)
        self._log = structlog.get_logger(__name__)
        self._mend_soon = asyncio.Event()
        self._mending = asyncio.Lock()
        self._problem: str | None = None
        self._consumers = 1
        self._lanes = [
            LaneConsumer(lane, self._name(lane), options, self._mend) for lane in (Lane.EVENTS, Lane.RETRIES, Lane.BULK)
        ]
        self._publishing = Publishing(self._mend_soon)
        self.side_channel = RabbitSideChannel(options, uuid4().hex)
        self._links = (
            Link(options, "consume", self._serve_consuming),
            Link(options, "publish", self._serve_publishing),
        )
        self._tasks: list[asyncio.Task[None]] = []

    def _name(self, queue: str) -> str:
        return f"{self._options.prefix}.{queue}"

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Start connecting in the background, and go on until `close`. Returns at once."""
        runs = (*(link.run for link in self._links), *((self.side_channel.run,) if self.side_channel.listens else ()))
        self._tasks = [asyncio.create_task(run()) for run in runs]

    async def ready(self) -> None:
        """Return when connected and every queue is there.

        Raises TopologyMismatch if a queue is wrong, QueueError if the broker refuses us. Connecting goes on.
        """
        for link in self._links:
            await link.ready(self._tasks)

    async def close(self) -> None:
        """Stop, and send the acks that wait. Unacked messages go back to the broker."""
        await self.stop_consuming()
        if self._forwarder is not None:
            self._forwarder.stop()
        for lane in self._lanes:
            await lane.flush()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []

    async def broken(self) -> NoReturn:
        """Never ends: this queue recovers from every loss."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody sets this future")

    async def consume(self, inbox: Inbox) -> None:
        """Give messages of the three lanes to `inbox` from now on, through every loss of connection or queue."""
        forwarder = self._forwarder = Forwarder(inbox, self._publish_patiently, self.available, self.ack, self._clock)
        for lane in self._lanes:
            await lane.start(forwarder)

    async def stop_consuming(self) -> None:
        """Take no more. Messages already taken can still be acked."""
        await asyncio.gather(*(lane.stop() for lane in self._lanes))

    # ── the consuming connection ────────────────────────────────────────────────────────────────────────────────

    async def _serve_consuming(self, link: Link, connection: Connection) -> None:
        await self._establish(connection)
        link.stand()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(connection))
            for lane in self._lanes:
                tasks.create_task(lane.run(connection))

    async def _serve_publishing(self, link: Link, connection: Connection) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publishing.serve(link, connection))
            tasks.create_task(self.side_channel.serve(connection))

    async def _establish(self, connection: Connection) -> None:
        establish = topology.declare if self._options.topology == "declare" else topology.verify
        async with bounded(None):
            await establish(connection, self._topology)

    async def _mend(self) -> None:
        """Declare or verify the topology again, since something is missing. `status` shows what cannot be mended."""
        connection = self._links[0].connection
        if connection is None:
            return
        async with self._mending:
            try:
                await self._establish(connection)
            except (QueueUnavailable, *LOST):
                pass  # the connection is lost, and a new one is made
            except NotifierError as error:
                if str(error) != self._problem:
                    self._log.error("queue_topology_wrong", reason=str(error))
                self._problem = str(error)
            else:
                self._problem = None

    async def _watch(self, connection: Connection) -> None:
        while not ending():
            if not await self._look(connection):
                self._mend_soon.set()
            try:
                async with asyncio.timeout(WATCH_EVERY):
                    await self._mend_soon.wait()
            except TimeoutError:
                continue
            await self._mend()
            await asyncio.sleep(MEND_AT_MOST_EVERY if self._problem is None else HOPELESS_EVERY)
            self._mend_soon.clear()

    async def _look(self, connection: Connection) -> bool:
        """Count the workers, which share the clients' limits. False if a queue is missing.

        `retries` must exist even while nobody consumes: messages of the delay queues go there, and a broker that finds
        it missing tries again only after three minutes.
        """
        try:
            depths = await depths_at(connection, {lane: self._name(lane) for lane in (Lane.EVENTS, Lane.RETRIES)})
        except QueueUnavailable:
            return True
        if Lane.EVENTS in depths:
            self._consumers = max(1, depths[Lane.EVENTS].consumers)
        return len(depths) == 2 and self._problem is None

    # ── messages ────────────────────────────────────────────────────────────────────────────────────────────────

    def ack(self, message: Message) -> None:
        """Delete the message for good. No effect if its channel is gone; then it comes again."""
        if isinstance(message.tag, AckTag):
            message.tag.acks.settle(message.tag.number)

    async def publish(self, queue: str, message: Outgoing) -> None:
        """Return once the message is durable in `queue`. Raises QueueUnavailable."""
        await self._publish(queue, message, patient=False)

    async def publish_later(self, message: Outgoing, *, due: float, rounding: Rounding = "down") -> None:
        """Return once the message is durable in a delay queue. Raises QueueUnavailable."""
        await self._publish_patiently(*first_pass(message, due - self._clock(), rounding))

    async def _publish_patiently(self, queue: str, message: Outgoing) -> None:
        await self._publish(queue, message, patient=True)

    async def _publish(self, queue: str, message: Outgoing, *, patient: bool) -> None:
        publish = Publish(
            exchange="", routing_key=self._name(queue), body=message.body,
            message_id=message.message_id or uuid4().hex, content_type=message.content_type,
            message_type=str(message.kind), headers=message.headers, patient=patient,
        )  # fmt: skip
        await self._publishing.publish(publish)

    async def available(self) -> None:
        """Return when a publish has a chance again."""
        await self._publishing.available()

    async def send_event(
        self,
        lane: Lane,
        body: bytes,
        *,
        message_id: str | None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Publish an event to the exchange of events or bulk, as any publisher does. Raises QueueUnavailable."""
        if lane is Lane.RETRIES:
            raise ValueError("no event is published to the retries")
        publish = Publish(
            exchange=self._name(lane),
            routing_key=ROUTING_KEY,
            body=body,
            message_id=message_id or uuid4().hex,
            content_type=content_type,
            headers=headers or {},
            timestamp=int(time.time()),
        )
        await self._publishing.publish(publish)

    def hear_replies(self, heard: Callable[[bytes], None]) -> None:
        """Ask for replies to the events sent here, and give each to `heard`. Call it before `open`."""
        self._publishing.ask_for_replies(heard)

    # ── status ──────────────────────────────────────────────────────────────────────────────────────────────────

    def status(self) -> QueueStatus:
        """Connected means that both connections stand; consuming means that all three lanes do."""
        connected = all(link.standing.is_set() for link in self._links)
        blocked = self._publishing.blocked
        told = (
            *(link.failure for link in self._links),
            self._problem,
            *(lane.problem for lane in self._lanes),
            BLOCKED if blocked else self._publishing.refusal,
        )
        return QueueStatus(
            connected=connected,
            consuming=connected and all(lane.standing for lane in self._lanes),
            blocked=blocked,
            problem=next((str(problem) for problem in told if problem is not None), None),
        )

    def consumers(self) -> int:
        """How many workers consume `events`, as seen within the last 15 s while connected; at least 1."""
        return self._consumers

    async def depths(self) -> Mapping[str, Depth]:
        """What waits, by queue name without prefix; a missing queue is left out. Raises QueueUnavailable."""
        return await depths_at(self._consuming_connection(), queue_names(self._options))

    async def look_around(self, within: float) -> QueueOverview:
        """What waits, and the states of the workers that answer in time. Raises QueueError.

        A queue that is not open makes a connection for the look, and declares nothing.
        """
        if not self._tasks:
            return await look_around(self._options, within=within)
        depths = await self.depths()
        workers = max(1, depths[Lane.EVENTS].consumers) if Lane.EVENTS in depths else 1
        states = await self.side_channel.ask(within, enough=workers)
        return QueueOverview(depths=depths, oldest={}, worker_states=states)

    async def examine(self) -> BrokerState:
        """The state of the broker, for the doctor, over connections of its own. Raises QueueError."""
        return await examine_broker(self._options)

    async def browse(self, queue: str, limit: int) -> Sequence[Message]:
        """Look at up to `limit` messages, oldest first, and give them back in order. They cannot be acked.

        A look counts as a delivery. In `dead` that is harmless, since its limit is out of reach; in a lane a message
        is lost to the dead letters after a hundred looks. Raises QueueUnavailable.
        """
        place = Lane(queue) if queue in set(Lane) else queue
        return await browse(self._consuming_connection(), self._name(queue), place, limit)

    # ── dead letters, feed ──────────────────────────────────────────────────────────────────────────────────────

    def dead_letters(self) -> RabbitDeadLetters:
        """The dead letters, over a connection of their own. A replay needs this queue open."""
        return RabbitDeadLetters(self._options, self.publish)

    def feed_target(self) -> RabbitFeedTarget:
        """The target of the feed: an exchange, over its own connection."""
        return RabbitFeedTarget(self._options)

    def _consuming_connection(self) -> Connection:
        connection = self._links[0].connection
        if connection is None:
            raise QueueUnavailable("not connected")
        return connection
