"""The places where a queue can live, and an inbox that keeps what it takes."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing

from notifier.model.errors import QueueUnavailable
from notifier.model.message import Kind, Lane, Message, MessageDraft, QueueStatus
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.repair_pass import find_messages
from notifier.queues.queue_port import Queue
from tests.system.waiting import until

PATIENCE = 30.0  # seconds until a wait is a failure


class Inbox:
    """An inbox that keeps what it takes. With `on_take` something is done with each at once."""

    def __init__(self, on_take: Callable[[Message], object] | None = None) -> None:
        self.lost_lanes: list[Lane] = []
        self.lost_sources: list[str] = []
        self._on_take = on_take
        self._taken: asyncio.Queue[Message] = asyncio.Queue()

    def take(self, message: Message) -> None:
        """See the port."""
        if self._on_take is not None:
            self._on_take(message)
        self._taken.put_nowait(message)

    def on_lost(self, lane: Lane, source: str | None = None) -> None:
        """See the port."""
        if source is None:
            self.lost_lanes.append(lane)
        else:
            self.lost_sources.append(source)

    async def next(self) -> Message:
        """The next message taken."""
        return await asyncio.wait_for(self._taken.get(), PATIENCE)

    async def some(self, count: int) -> list[Message]:
        """The next messages taken."""
        return [await self.next() for _ in range(count)]

    def empty(self) -> bool:
        """Return True if each taken message was returned by `next` or `some`."""
        return self._taken.empty()


class Place:
    """One queue that outlives the objects that open it, as it outlives workers."""

    def __init__(self, make: Callable[[Mapping[Lane, int]], Queue]) -> None:
        self._make = make
        self._opened = AsyncExitStack()

    async def open(self, prefetch: Mapping[Lane, int] | None = None) -> Queue:
        """Open and return another queue object at this place, which is closed at the end of the test."""
        queue = self.closed(prefetch)
        await queue.open()
        await asyncio.wait_for(queue.wait_until_ready(), PATIENCE)
        return queue

    def closed(self, prefetch: Mapping[Lane, int] | None = None) -> Queue:
        """Return another queue object at this place that is not open yet."""
        full = {Lane.EVENTS: 512, Lane.RETRIES: 256, Lane.BULK: 64}
        queue = self._make(full | dict(prefetch or {}))
        self._opened.push_async_callback(queue.close)
        return queue

    async def consume(self, prefetch: Mapping[Lane, int] | None = None) -> tuple[Queue, Inbox]:
        """Open and take into a fresh inbox."""
        queue, inbox = await self.open(prefetch), Inbox()
        await queue.consume(inbox)
        return queue, inbox

    async def leave(self) -> None:
        """Close whatever is still open."""
        await self._opened.aclose()


def outgoing(name: str, *, body: bytes = b"{}", headers: Mapping[str, str] | None = None) -> MessageDraft:
    """Return a message of the service, identified by its `message_id`."""
    return MessageDraft(kind=Kind.DELIVERY, body=body, message_id=name, headers=dict(headers or {}))


async def delay(queue: Queue, seconds: float, message: MessageDraft) -> None:
    """Publish a message that is due in so many seconds, by the wall clock."""
    await queue.publish_later(message, due=time.time() + seconds)


def names(messages: Sequence[Message]) -> list[str | None]:
    """The `message_id`s."""
    return [message.message_id for message in messages]


async def ready(queue: Queue, name: str, count: int) -> None:
    """Wait until so many messages are ready there. A broker counts a moment after it confirms."""

    async def counted() -> int:
        return (await queue.depths())[name].ready

    await until(counted, lambda found: found == count)


async def dead(queue: Queue) -> list[Message]:
    """The messages of the queue `dead`, whole, oldest first. They stay."""
    async with aclosing(find_messages(queue.dead_letters(), DeadLetterFilter(), whole=True)) as found:
        return [message async for _, message in found]


async def consuming(queue: Queue) -> QueueStatus:
    """Wait until every lane is consumed: a broker's consumers start a moment after they were asked for."""
    await eventually(lambda: queue.status().consuming)
    return queue.status()


async def eventually(true: Callable[[], object]) -> None:
    """Wait for a state that has no event."""

    async def look() -> object:
        return true()

    await until(look, bool)


async def publish_until_durable(queue: Queue, name: str, message: MessageDraft) -> None:
    """As the pipeline does: try again until it is confirmed."""
    async with asyncio.timeout(2 * PATIENCE):
        while True:
            try:
                await queue.publish(name, message)
            except QueueUnavailable:
                await queue.wait_until_available()
            else:
                return


async def delay_until_durable(queue: Queue, seconds: float, name: str) -> None:
    """Publish a document that is due in so many seconds, and try again until it is confirmed."""
    due = time.time() + seconds
    message = outgoing(name, body=b'{"schedule":{"due":%f}}' % due)
    while True:
        try:
            return await queue.publish_later(message, due=due)
        except QueueUnavailable:
            await queue.wait_until_available()


async def fill(queue: Queue, name: str) -> None:
    """Publish until the queue refuses it."""
    for count in range(100_000):
        await queue.publish(name, outgoing(str(count)))
