"""Declares the queue as notifier uses it. RabbitMQ and SQLite satisfy it; so must a third.

What differs between queues, such as who keeps the feed, stays in their rooms. `build_queue` chooses one.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import NoReturn, Protocol, TypeVar

from notifier.model.backoff import Rounding
from notifier.model.fate import FeedNotice
from notifier.model.frozen import frozen
from notifier.model.message import Depth, Lane, Message, Outgoing, QueueStatus
from notifier.queues.passes import OpenVisit, Reader
from notifier.queues.queue_state import BrokerState, FileState, QueueOverview, WorkerAnswers

S = TypeVar("S")


class Publisher(Protocol):
    """The durable side of a queue."""

    async def publish(self, queue: str, message: Outgoing) -> None:
        """Return once the message is durable in `queue` (name without prefix). Raises QueueUnavailable."""

    async def publish_later(self, message: Outgoing, *, due: float, rounding: Rounding = "down") -> None:
        """Return once the message is durable. It comes back as a retry when it is due, after 1 s at the least.

        A queue may round the wait, by an eighth down or a seventh up at most. It keeps a wait of 1, 2, 4 … 65,536 s as
        it is. Raises QueueUnavailable.
        """

    async def available(self) -> None:
        """Return when a publish has a chance again: connected and not blocked. Never raises; paces its caller."""


class Parking(Protocol):
    """Keeps deliveries for clients that are down, in buckets. Several clients may share a bucket."""

    def bucket(self, client: tuple[str, str]) -> str:
        """Return the name of the bucket of this client (`iss`, `client_id`)."""

    def left_behind(self) -> Collection[str]:
        """Return the buckets in which a worker that has ended may have left something."""

    async def park(self, bucket: str, message: Outgoing, *, until: float) -> None:
        """Return once the message is durable in the bucket. Raises QueueUnavailable.

        It stays there until it is fetched. At the latest it comes back as a retry by itself: after `LONGEST_PARKED` on
        RabbitMQ, at `until` (epoch seconds) if the queue can.
        """

    async def fetch(self, bucket: str, most: int) -> Sequence[Message]:
        """Take up to `most` messages out of the bucket, oldest first, to be acked like those of the lane of retries.

        Fewer than `most` mean that nothing else waits there. They may be for another client of the bucket. What is not
        acked before the connection is lost, or the process ends, is in the bucket again. Raises QueueUnavailable.
        """

    async def parked(self, buckets: Collection[str] | None = None) -> Mapping[str, int]:
        """Return how many messages wait in each of these buckets (None: in all), without the empty ones.

        Messages that were taken and not acked do not count. Raises QueueUnavailable.
        """


class Acknowledger(Protocol):
    """Takes the acks of messages."""

    def ack(self, message: Message) -> None:
        """Ack the message, which has its durable fate. Never raises, never waits. Has no effect if it was lost."""


class WorkerQueue(Publisher, Parking, Acknowledger, Protocol):
    """What a worker needs of its queue."""


class Inbox(Protocol):
    """Receives messages from a queue. Both methods are called on the event loop and must return at once."""

    def take(self, message: Message) -> None:
        """Take a message. It counts against the lane's prefetch until it is acked."""

    def lost(self, lane: Lane, source: str | None = None) -> None:
        """Forget the unacked messages of a queue: its channel is gone, and all of them will come again.

        It is the queue of this source, which feeds the lane, or else the lane's own.
        """


class WaitingDeliveries(Protocol):
    """All that waits in a queue: in delay queues and in buckets, and not what a worker has in hand at the moment."""

    def visit(
        self, read: Reader[S], *, clients: Collection[tuple[str, str]] | None = None, parked: bool = True
    ) -> OpenVisit[S]:
        """Begin a walk, in which `read` gets each message. `clients`: whose messages are meant; None if others may be.

        Without `parked` the walk goes over the delay queues only. Messages that are not taken keep their due time and
        their hops. On RabbitMQ one walk runs at a time. Raises QueueError.
        """


class DeadLetters(Protocol):
    """The dead letters of a queue."""

    def visit(self, read: Reader[S]) -> OpenVisit[S]:
        """Begin a visit, oldest first, in which `read` gets each message.

        Raises QueueError.
        """


@frozen
class FeedMessage:
    """A notice of the feed as a message of an exchange."""

    id: str
    routing_key: str
    headers: Mapping[str, str]
    content_type: str
    body: bytes


EncodeNotice = Callable[[FeedNotice, str], FeedMessage]
"""Encodes a notice, for a target that sends messages. It is told what names this notifier in them."""


class FeedTarget(Protocol):
    """Takes the notices of the feed."""

    @property
    def at_once(self) -> int:
        """The size of a batch at most."""

    async def run(self) -> None:
        """Keep the way to the target open, until cancelled."""

    async def available(self) -> None:
        """Wait until a batch can be sent. Never raises."""

    async def send(self, batch: Sequence[FeedNotice]) -> None:
        """Send a batch. Raises QueueUnavailable if it may be lost."""


class SideChannel(Protocol):
    """What a worker says beside deliveries, at best effort.

    It replies to publishers, tells its state to operators, and tells other workers what it saw of clients.
    """

    @property
    def address(self) -> str:
        """The address to which other workers send replies for requests that wait here."""

    @property
    def dropped(self) -> int:
        """How many replies and answers were dropped here."""

    def listen(self, state: Callable[[], bytes], heard: Callable[[str, bytes], None]) -> None:
        """Speak for this worker. Call it before the queue is opened. Both must return at once and never raise.

        `state` gives the worker's state as a document. `heard` gets each reply to `address`, with its correlation id.
        """

    def carry_out(self, do: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Do what operators ask for by `Queue.request`, and answer. Call it before the queue is opened.

        `do` gets the request as a document, gives the answer as one, and never raises.
        """

    def share_news(self, following: Callable[[], Awaitable[bytes]], heard: Callable[[bytes], None]) -> None:
        """Tell the other workers what `following` gives, and give `heard` what they tell. Call it before `open`.

        `following` waits for news, and is called a bounded number of times a second. `heard` must return at once, and
        both never raise. A queue that has one worker at most calls neither.
        """

    def share_presence(self, following: Callable[[], Awaitable[bytes]], heard: Callable[[bytes], None]) -> None:
        """Publish the announcements of this worker, and give `heard` those of all, this one included.

        The rest is as for `share_news`.
        """

    def reply(self, to: str, correlation_id: str | None, body: bytes) -> None:
        """Send a reply, or drop and count it. Never waits, never raises."""


class EventQueue(Protocol):
    """A queue as a publisher of events uses it. `open` it before use, and `close` it at the end."""

    async def open(self) -> None:
        """Start to connect, and go on until `close`. Never raises."""

    async def ready(self) -> None:
        """Return when the queue can be used. Raises QueueError if waiting longer does not help."""

    async def close(self) -> None:
        """Stop. Never raises."""

    def status(self) -> QueueStatus:
        """The state: is the queue connected, and what is wrong?"""

    async def send_event(
        self,
        lane: Lane,
        body: bytes,
        *,
        message_id: str | None,
        content_type: str = "application/json",
        headers: Mapping[str, str] = ...,
    ) -> None:
        """Publish an event to `events` or `bulk`, as any publisher does. Raises QueueUnavailable."""

    def hear_replies(self, heard: Callable[[bytes], None]) -> None:
        """Ask for replies to the events sent here, and give each to `heard`. Call it before `open`."""


class Queue(EventQueue, Publisher, Acknowledger, Parking, Protocol):
    """The queue of workers and operators. `open` it before use, and `close` it at the end."""

    @property
    def side_channel(self) -> SideChannel:
        """The side channel of this process."""

    async def close(self) -> None:
        """Make every ack durable, and give back the messages without one. Never raises."""

    async def broken(self) -> NoReturn:
        """Raise QueueError once the queue cannot be used again without a restart."""

    async def consume(self, inbox: Inbox) -> None:
        """Give messages of the three lanes to `inbox` from now on. Raises QueueUnavailable."""

    async def stop_consuming(self) -> None:
        """Take no more. Messages already taken can still be acked."""

    def status(self) -> QueueStatus:
        """The state: is the queue connected and consumed, and what is wrong?"""

    def consumers(self) -> int:
        """How many workers share the queue; 0 while that is not known."""

    async def depths(self) -> Mapping[str, Depth]:
        """What waits in each queue, by its name without prefix. Raises QueueUnavailable."""

    async def look_around(self, within: float) -> QueueOverview:
        """What waits, and the states of the workers that answer in so many seconds. The queue need not be open.

        Raises QueueError.
        """

    async def request(self, document: bytes, within: float) -> WorkerAnswers:
        """Ask all workers to do something; return what those answer that do so in time. The queue need not be open.

        A worker that has not begun by then never does it. Raises QueueError.
        """

    async def examine(self) -> BrokerState | FileState:
        """The state of the broker or file, for the doctor. The queue need not be open. Raises QueueError."""

    def dead_letters(self) -> DeadLetters:
        """The dead letters of this queue."""

    def waiting(self) -> WaitingDeliveries:
        """All that waits in this queue: in delay queues, and in buckets."""

    def feed_target(self, encode: EncodeNotice) -> FeedTarget:
        """The target of the feed in this queue."""
