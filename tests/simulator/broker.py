"""A broker in memory and in virtual time: lanes with a prefetch, delay queues, and buckets that clients share.

It delays as RabbitMQ does, by the real passes. The CPU time of a worker for a message is spent here. A written
message is durable even if its worker is killed before the confirm, and unacked messages are redelivered.
"""

import asyncio
import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

from notifier.model.backoff import Rounding
from notifier.model.defaults import PREFETCH
from notifier.model.errors import QueueUnavailable
from notifier.model.message import DEAD, MAX_PARKED_SECONDS, Kind, Lane, Message, MessageDraft
from notifier.model.record import copy_record
from notifier.queues.queue_port import Inbox
from notifier.queues.rabbitmq.delays import to_first_hop
from tests.simulator.virtual_time import VirtualLoop

BUCKETS = 64
CONFIRM = 5e-3  # seconds until the broker confirms a publish
HAND_OUT = 1e-3  # seconds from a queue to a worker


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of the core, as measured with ES256 (docs/evidence/performance.md)."""

    take: float = 25e-6  # an event, read and acked
    post: float = 80e-6  # a delivery asked, minted and sent
    answer: float = 30e-6  # its answer judged
    write: float = 40e-6  # the halves of a pass: into a delay queue or a bucket …
    read: float = 40e-6  # … and out again

    def on(self, cores: float) -> "Costs":
        """Return the costs on a core of another speed, or on several cores."""
        return Costs(*(getattr(self, name) / cores for name in self.__slots__))


@dataclass(slots=True, eq=False)
class Tag:
    """What a worker holds unacked. With `bucket` it was fetched from there.

    It counts against the prefetch unless it was fetched or is set aside.
    """

    consumer: "Consumer"
    message: Message
    bucket: str | None = None
    is_set_aside: bool = False


@dataclass(slots=True, eq=False)
class Consumer:
    """A worker's connection to the broker: `inbox` receives messages. Satisfies the worker's ports.

    Once `cut` off it reaches nobody: what its worker does from then on has no effect.
    """

    broker: "Broker"
    clock: Callable[[], float]  # of the worker
    inbox: Inbox | None = None
    unacked: Counter[Lane] = field(default_factory=Counter)
    held: dict[Tag, None] = field(default_factory=dict)  # in order of arrival
    cut: bool = False

    def hold(self, message: Message, bucket: str | None = None) -> Message:
        """Return the message as the worker gets it."""
        tag = Tag(self, message, bucket)
        self.held[tag] = None
        return copy_record(message, tag=tag)

    def ack(self, message: Message) -> None:
        """Make room for another of its lane."""
        assert isinstance(message.tag, Tag)
        if self.cut:
            return
        del self.held[message.tag]
        if message.kind is Kind.DELIVERY:
            self.broker.waits[message.message_id or ""] -= 1
        if message.tag.bucket is None and not message.tag.is_set_aside:
            self.unacked[message.lane] -= 1
            self.broker.hand_out(message.lane)

    def set_aside(self, message: Message) -> None:
        """Make room for another of its lane, before the ack."""
        assert isinstance(message.tag, Tag)
        if not self.cut and message.tag.bucket is None:
            message.tag.is_set_aside = True
            self.unacked[message.lane] -= 1
            self.broker.hand_out(message.lane)

    async def publish(self, queue: str, message: MessageDraft) -> None:
        """Write into a lane, a delay queue or the dead letters."""
        await self._written(self.broker.put, queue, message)

    async def publish_later(self, message: MessageDraft, *, due: float, rounding: Rounding = "down") -> None:
        """Write into the first of its delay queues."""
        await self.publish(*to_first_hop(message, due - self.clock(), rounding))

    async def wait_until_available(self) -> None:
        """Return at once: this broker is never away."""

    def bucket(self, client: tuple[str, str], *, large: bool = False) -> str:
        """Return the bucket of this client."""
        return self.broker.bucket(client, large=large)

    def inherited_buckets(self, *, at_start: bool) -> Collection[str]:
        """Return all at the start."""
        return self.broker.parked_in if at_start else ()

    async def park(self, bucket: str, message: MessageDraft, *, until: float) -> None:
        """Write into the bucket."""
        await self._written(self.broker.park, bucket, message)

    async def fetch(self, bucket: str, most: int) -> Sequence[Message]:
        """Take the oldest."""
        await self._reads(2 * HAND_OUT, bucket)
        waiting = self.broker.parked_in[bucket]
        found = [waiting.popleft()[1] for _ in range(min(most, len(waiting)))]
        for _ in found:
            self.broker.passed("read")
        return [self.hold(to_retry(message), bucket) for message in found]

    async def count_parked(self, buckets: Collection[str] | None = None) -> Mapping[str, int]:
        """Count the deliveries in buckets."""
        names = self.broker.parked_in if buckets is None else buckets
        await self._reads(HAND_OUT, *names)
        return {name: count for name in names if (count := len(self.broker.parked_in[name]))}

    async def _reads(self, seconds: float, *buckets: str) -> None:
        await asyncio.sleep(seconds)
        if self.cut or not self.broker.unreadable.isdisjoint(buckets):
            raise QueueUnavailable("this bucket cannot be read")

    async def _written(self, put: Callable[[str, MessageDraft], None], queue: str, message: MessageDraft) -> None:
        """Write a message, and wait for the confirm."""
        confirmed = self.broker.loop.create_future()
        if not self.cut:
            self.broker.passed("write")
            self.broker.loop.call_later(self.broker.confirm, self._confirm, confirmed, put, queue, message)
        await confirmed

    def _confirm(
        self,
        confirmed: asyncio.Future[None],
        put: Callable[[str, MessageDraft], None],
        queue: str,
        message: MessageDraft,
    ) -> None:
        put(queue, message)
        if message.kind is Kind.DELIVERY:
            self.broker.waits[message.message_id] += 1
        if not (self.cut or confirmed.done()):
            confirmed.set_result(None)


class Broker:
    """The queues, and what is written and read by the way. Deliveries' order within a lane is kept."""

    def __init__(self, loop: VirtualLoop, costs: Costs, *, buckets: int = BUCKETS, confirm: float = CONFIRM) -> None:
        self.loop = loop
        self.costs = costs
        self.buckets = buckets
        self.confirm = confirm
        self.consumers: list[Consumer] = []
        self.unreadable: set[str] = set()  # buckets
        self.parked_in: dict[str, deque[tuple[float, MessageDraft]]] = {
            **{f"parked-{number:02}": deque() for number in range(buckets)},
            "parked-large": deque(),
        }
        self.halves_in: Counter[int] = Counter()  # halves of passes, by the second in which they were made
        self.waits: Counter[str] = Counter()  # retries that are not acked, by delivery
        self.delayed: dict[asyncio.TimerHandle, MessageDraft] = {}  # by what ends the delay, oldest first
        self._lanes: dict[Lane, deque[Message]] = {lane: deque() for lane in Lane}
        self._turn = itertools.cycle(self.consumers)
        self.expire()

    def bucket(self, client: tuple[str, str], *, large: bool = False) -> str:
        """Return the bucket of this client. There is one for large backlogs."""
        return "parked-large" if large else f"parked-{crc32(' '.join(client).encode()) % self.buckets:02}"

    # ── who is connected ──

    def connect(self, clock: Callable[[], float]) -> Consumer:
        """A worker with this clock comes."""
        self.consumers.append(consumer := Consumer(self, clock))
        self._turn = itertools.cycle(self.consumers)
        return consumer

    def stop_consuming(self, consumer: Consumer) -> None:
        """A worker wants no more from the lanes."""
        if consumer in self.consumers:
            self.consumers.remove(consumer)
            self._turn = itertools.cycle(self.consumers)

    def disconnect(self, consumer: Consumer) -> None:
        """A worker has gone. What it held unacked is given back to the head of its queue."""
        self.stop_consuming(consumer)
        consumer.cut = True
        for tag in reversed(consumer.held):
            again = copy_record(tag.message, delivery_count=tag.message.delivery_count + 1)
            if tag.bucket is None:
                self._lanes[again.lane].appendleft(again)
            else:
                self.parked_in[tag.bucket].appendleft((self.loop.now + MAX_PARKED_SECONDS, _again(again)))
        consumer.held.clear()
        for lane in Lane:
            self.hand_out(lane)

    def add_unreadable(self, bucket: str) -> None:
        """One more bucket holds a message, and nobody can read it."""
        self.parked_in[bucket] = deque([(math.inf, MessageDraft(kind=Kind.DELIVERY, body=b"", message_id="none"))])
        self.unreadable.add(bucket)

    # ── what a pass costs ──

    def passed(self, half: str) -> None:
        """The core makes half of a pass."""
        self.halves_in[int(self.loop.now)] += 1
        self.loop.spend(self.costs.write if half == "write" else self.costs.read)

    # ── queues ──

    def put(self, queue: str, message: MessageDraft) -> None:
        """A message is durable in this queue."""
        if queue.startswith("delay."):
            seconds = float(queue.removeprefix("delay.").removesuffix("s"))
            ends: asyncio.TimerHandle
            ends = self.loop.call_later(seconds, lambda: self.offer(to_retry(self.delayed.pop(ends))))
            self.delayed[ends] = message
        elif queue != DEAD:
            self.offer(copy_record(to_retry(message), lane=Lane(queue)))

    def park(self, bucket: str, message: MessageDraft) -> None:
        """A message is durable in this bucket."""
        self.parked_in[bucket].append((self.loop.now + MAX_PARKED_SECONDS, message))

    def offer(self, message: Message) -> None:
        """A message waits in its lane."""
        self._lanes[message.lane].append(message)
        self.hand_out(message.lane)

    def hand_out(self, lane: Lane) -> None:
        """Give messages to the workers in turn, as far as their prefetch goes."""
        queue, refused = self._lanes[lane], 0
        while queue and refused < len(self.consumers):
            consumer = next(self._turn)
            if consumer.unacked[lane] >= PREFETCH[lane]:
                refused += 1
                continue
            refused = 0
            consumer.unacked[lane] += 1
            self.loop.call_later(HAND_OUT, self._take, consumer, consumer.hold(queue.popleft()))

    def _take(self, consumer: Consumer, message: Message) -> None:
        """A worker reads a message."""
        if consumer.cut:
            return
        assert consumer.inbox is not None
        if message.lane is Lane.RETRIES:
            self.passed("read")
        else:
            self.loop.spend(self.costs.take)
        consumer.inbox.take(message)

    def expire(self) -> None:
        """Turn deliveries parked for too long into retries. Call it every second."""
        for waiting in self.parked_in.values():
            while waiting and waiting[0][0] <= self.loop.now:
                self.offer(to_retry(waiting.popleft()[1]))
        self.loop.call_later(1.0, self.expire)


def to_retry(message: MessageDraft) -> Message:
    """Return the message as a worker gets it after its delay."""
    return Message(
        lane=Lane.RETRIES,
        body=message.body,
        tag=None,
        kind=message.kind,
        message_id=message.message_id,
        headers=message.headers,
    )


def _again(message: Message) -> MessageDraft:
    assert message.kind is not None
    assert message.message_id is not None
    return MessageDraft(
        kind=message.kind, body=message.body, message_id=message.message_id, headers=message.lasting_headers
    )
