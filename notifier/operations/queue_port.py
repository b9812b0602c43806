"""The queue, as everybody but the pipeline uses it. RabbitMQ and SQLite satisfy it; so must a third.

What differs between them, such as who keeps the feed, stays inside the adapter. `app.build_queue` chooses one.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn, Protocol

from notifier.domain.message import Depth, Lane, Message, QueueStatus
from notifier.domain.queue_state import BrokerState, FileState, QueueOverview, WorkerAnswers
from notifier.operations.dead_letter_listing import DeadLetters
from notifier.operations.waiting_listing import WaitingPlace
from notifier.pipeline.feed import FeedTarget
from notifier.pipeline.ports import Acknowledger, Inbox, Parking, Publisher


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
        """How many workers share the queue, at least 1."""

    async def depths(self) -> Mapping[str, Depth]:
        """What waits in each queue, by its name without prefix. Raises QueueUnavailable."""

    async def browse(self, queue: str, limit: int) -> Sequence[Message]:
        """Look at up to `limit` messages, oldest first. They stay, and cannot be acked. Raises QueueUnavailable."""

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

    def waiting(self) -> WaitingPlace:
        """All that waits in this queue: in delay queues, and in buckets."""

    def feed_target(self) -> FeedTarget:
        """The target of the feed in this queue."""
