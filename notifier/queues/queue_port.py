"""Declares the queue as notifier uses it. RabbitMQ and SQLite implement these protocols.

Differences between queues, such as where the feed is stored, stay in their folders. `build_queue` selects the queue.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import NoReturn, Protocol, TypeVar

from notifier.model.backoff import Rounding
from notifier.model.message import Depth, Lane, Message, MessageDraft, QueueStatus
from notifier.model.notice import FeedNotice
from notifier.model.pauses import Register
from notifier.model.record import record
from notifier.queues.passes import OnWait, OpenPass, Reader, ignore_holder
from notifier.queues.queue_state import BrokerState, FileState, QueueOverview, WorkerAnswers

S = TypeVar("S")


class Publisher(Protocol):
    """Publishes messages durably."""

    async def publish(self, queue: str, message: MessageDraft) -> None:
        """Return once it is durable in `queue` (without prefix). Raises QueueUnavailable, OneQueueUnavailable."""

    async def publish_later(self, message: MessageDraft, *, due: float, rounding: Rounding = "down") -> None:
        """Return once the message is durable. It is consumed as a retry when it is due, after at least 1 s.

        A queue may round the wait down by at most an eighth, or up by at most a seventh. It keeps a wait of 1, 2, 4 …
        65,536 s exactly. If no queue takes such a message for now, the wait may be up to eight times as long. Raises
        QueueUnavailable.
        """

    async def wait_until_available(self) -> None:
        """Return when publishing can succeed, or when another attempt is due. Never raises."""


class BucketQueues(Protocol):
    """Stores deliveries for clients whose circuit is open or that requested a pause, in buckets that may be shared."""

    def bucket(self, client: tuple[str, str], *, large: bool = False) -> str:
        """Return the client's bucket (`iss`, `client_id`), or its bucket for a large backlog if all workers have it."""

    def inherited_buckets(self, *, at_start: bool) -> Collection[str]:
        """Return the buckets that may contain messages of a worker that has ended, or after the start of no worker."""

    async def park(self, bucket: str, message: MessageDraft, *, until: float) -> None:
        """Return once the message is durable in the bucket. Raises QueueUnavailable, or OneQueueUnavailable at
        once if the bucket has taken nothing for some seconds.

        It stays there until it is fetched, or until the queue makes it a retry: on RabbitMQ after
        `MAX_PARKED_SECONDS`, elsewhere at `until` (epoch seconds).
        """

    async def fetch(self, bucket: str, most: int) -> Sequence[Message]:
        """Take up to `most` messages out of the bucket, oldest first. Ack them like messages of the lane of retries.

        Fewer than `most` means that the bucket is empty. Calls for one bucket are served in their order. A message may
        be for another client of the bucket. Unacked messages return to the bucket when the connection is lost or the
        process ends. Raises QueueUnavailable.
        """

    async def count_parked(self, buckets: Collection[str] | None = None) -> Mapping[str, int]:
        """Return the number of messages in each of these buckets (None: all buckets), without empty buckets.

        Fetched messages do not count. Raises QueueUnavailable.
        """


class Acknowledger(Protocol):
    """Takes the acks of messages, and makes room for others before a late ack."""

    def ack(self, message: Message) -> None:
        """Ack the message, whose result is durable. Never raises or waits. No effect if its channel was lost."""

    def set_aside(self, message: Message) -> None:
        """Stop counting the message against its lane's prefetch: its ack will be late. Never raises or waits."""


class WorkerQueue(Publisher, BucketQueues, Acknowledger, Protocol):
    """The queue as a worker uses it."""


class Inbox(Protocol):
    """Receives messages from a queue. Both methods are called on the event loop and must return at once."""

    def take(self, message: Message) -> None:
        """Take a message. It counts against the lane's prefetch until it is acked or set aside."""

    def on_lost(self, lane: Lane, source: str | None = None) -> None:
        """Forget the unacked messages of a queue: its channel is closed, and the broker redelivers them.

        It is the queue of `source`, which feeds the lane; if that is None, the queue of the lane.
        """


NameHolder = Callable[[], Awaitable[str]]
"""Returns a name for the process that holds messages, for a pass that waits for it. Never raises."""


ANOTHER_HOLDER = "another command or request"


async def name_another() -> str:
    """Return the name of an unknown holder."""
    return ANOTHER_HOLDER


class WaitingDeliveries(Protocol):
    """The pending deliveries in delay queues and buckets, without deliveries that a worker holds."""

    def open_pass(
        self,
        read: Reader[S],
        *,
        clients: Collection[tuple[str, str]] | None = None,
        parked: bool = True,
        on_wait: OnWait = ignore_holder,
    ) -> OpenPass[S]:
        """Begin a pass that hands each message to `read`. `clients`: skip buckets that contain none of these.

        Without `parked` it covers the delay queues only. Messages that stay keep their due time and hops. On RabbitMQ
        only one pass runs at a time. Raises QueueError.
        """


class DeadLetters(Protocol):
    """The dead letters of a queue."""

    def open_pass(self, read: Reader[S], *, on_wait: OnWait = ignore_holder) -> OpenPass[S]:
        """Begin a pass that hands each message to `read`, oldest first. Raises QueueError."""


@record
class FeedMessage:
    """A notice of the feed as a message of an exchange."""

    id: str
    routing_key: str
    headers: Mapping[str, str]
    content_type: str
    body: bytes


EncodeNotice = Callable[[FeedNotice, str], FeedMessage]
"""Encodes a notice, for a target that sends messages. The second argument is the source, `/notifier/<prefix>`."""


class FeedTarget(Protocol):
    """Stores or sends the notices of the feed."""

    @property
    def max_batch(self) -> int:
        """Return the maximum number of notices in a batch."""

    async def run(self) -> None:
        """Keep the target connected, until cancelled."""

    async def wait_until_available(self) -> None:
        """Wait until a batch can be sent. Never raises."""

    async def send(self, batch: Sequence[FeedNotice]) -> None:
        """Send a batch. Raises QueueUnavailable if it may be lost."""


class Presence(Protocol):
    """The presence of this worker and of the others. No method raises."""

    @property
    def count(self) -> int:
        """Return the number of workers that announce themselves, including this one; 0 while unknown."""

    async def next_announcement(self) -> bytes:
        """Wait until this worker's next announcement is due, and return it."""

    def on_announcement(self, document: bytes) -> None:
        """Record an announcement of any worker, also of this one. Must not block."""


class SideChannel(Protocol):
    """A worker's best-effort communication besides deliveries.

    It replies to publishers, sends its state to operators, and shares observations of clients with other workers.
    """

    @property
    def address(self) -> str:
        """Return the address to which other workers send replies for requests that this process received."""

    @property
    def dropped(self) -> int:
        """Return the number of replies and answers that this process dropped, and of malformed messages."""

    def on_malformed(self) -> None:
        """Count a request or answer of another process that is dropped, since it is malformed."""

    def listen(self, state: Callable[[], bytes], on_reply: Callable[[str, bytes], None]) -> None:
        """Set the callbacks of this worker, before the queue is opened. They must not block or raise.

        `state` returns the worker's state as a document. `on_reply` receives correlation id and body of each reply.
        """

    def handle_requests(self, handle: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Set the callback for operators' requests (`Queue.request`), before `open`. It never raises."""

    def share_updates(
        self, next_update: Callable[[], Awaitable[bytes]], on_update: Callable[[bytes], None], kind: str = "news"
    ) -> None:
        """Publish the updates of `next_update` to other workers; pass theirs to `on_update`. Call it before `open`.

        `kind`: the name of these updates. Older workers ignore those of an unknown kind.
        `next_update` waits for an update; its calls per second are bounded. `on_update` must not block. Neither raises.
        A queue that permits only one worker calls neither.
        """

    def share_presence(self, presence: Presence) -> None:
        """Publish the announcements of this worker, and pass those of all workers to `presence`. Call it before `open`.

        A queue that permits only one worker does neither.
        """

    def reply(self, to: str, correlation_id: str | None, body: bytes) -> None:
        """Send a reply, or drop and count it. Never waits or raises."""


class EventQueue(Protocol):
    """A queue as a publisher of events uses it. Call `open` before use, and `close` at the end."""

    async def open(self) -> None:
        """Start connecting, and reconnect until `close`. Never raises."""

    async def wait_until_ready(self) -> None:
        """Return when the queue can be used. Raises QueueError if waiting does not help."""

    async def close(self) -> None:
        """Stop. Never raises."""

    def status(self) -> QueueStatus:
        """Return whether the queue is connected, and the current problem."""

    async def send_event(
        self, lane: Lane, body: bytes, *, message_id: str | None, content_type: str = "application/json"
    ) -> None:
        """Publish an event to `events` or `bulk`, as any publisher does. Raises QueueUnavailable."""

    def receive_replies(self, on_reply: Callable[[bytes], None]) -> None:
        """Request replies to the events sent here, and pass each to `on_reply`. Call it before `open`."""


class Queue(EventQueue, Publisher, Acknowledger, BucketQueues, Protocol):
    """The queue of workers and operators. Call `open` before use, and `close` at the end."""

    @property
    def side_channel(self) -> SideChannel:
        """Return the side channel of this process."""

    @property
    def register(self) -> Register:
        """Return the register of pauses."""

    async def close(self) -> None:
        """Make every ack durable, and return the unacked messages to the queue. Never raises."""

    async def wait_until_broken(self) -> NoReturn:
        """Raise QueueError when the queue needs a restart of the process."""

    async def consume(self, inbox: Inbox) -> None:
        """Pass messages of the three lanes to `inbox` from now on. Raises QueueUnavailable."""

    async def stop_consuming(self) -> None:
        """Take no further messages. Messages already taken can still be acked."""

    def status(self) -> QueueStatus:
        """Return whether the queue is connected and consumed, and the current problem."""

    def worker_count(self) -> int:
        """Return the number of workers, including this one, ready or not; 0 while unknown."""

    async def depths(self) -> Mapping[str, Depth]:
        """Return the depth of each queue, by its name without prefix. Raises QueueUnavailable."""

    async def read_overview(self, within: float) -> QueueOverview:
        """Return the depths, and the states of workers that answer `within` these seconds. Raises QueueError.

        The queue need not be open.
        """

    async def request(self, document: bytes, within: float) -> WorkerAnswers:
        """Send a request to all workers; return the answers that arrive `within` these seconds. Raises QueueError.

        A worker that starts later does not receive the request. The queue need not be open.
        """

    async def examine(self) -> BrokerState | FileState:
        """Return the state of the broker or file, for the doctor. The queue need not be open. Raises QueueError."""

    def dead_letters(self, name_holder: NameHolder = name_another) -> DeadLetters:
        """Return the dead letters of this queue. A pass that waits calls `name_holder` every few seconds."""

    def waiting(self, name_holder: NameHolder = name_another) -> WaitingDeliveries:
        """Return the pending deliveries of this queue: in delay queues and in buckets. `name_holder`: as above."""

    def feed_target(self, encode: EncodeNotice) -> FeedTarget:
        """Return the target of the feed in this queue."""
