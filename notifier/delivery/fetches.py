"""Fetches parked deliveries from buckets, and starts them or parks them again.

A fetch is for one or several clients that share the bucket. It takes messages in batches, as many at a time as these
clients can take, and ends once it has taken each message that was there when it was last requested (a message that is
parked again goes to the end of the bucket), or if none of its clients needs it any more. If most of a batch is for
other clients, the next is larger. The rate of messages that are parked again is bounded. A bucket that cannot be read
keeps its fetch, and is tried less and less often.

A client with `LARGE_BACKLOG` parked deliveries has a second, *large* bucket for those that are parked from then on, so
that they delay only such clients. While a worker does not have large buckets, the others empty and do not use them.

At most `MAX_IN_FLIGHT` messages are in flight, and each batch takes at most half of what is free: a bucket alone holds
three quarters, and others always find some. A bucket that does not answer holds its share until the queue reports an
error (RabbitMQ: 10 s), and then one message. Fetches that no client requested leave half to the others. While messages
of the lanes come and the broker is near, at most `MAX_ARRIVING` are in flight, except in silent buckets: whatever
arrives together is read before anything else.

A worker fetches from every bucket that has messages when it starts, since a former worker may have died during a fetch.
After the queue was lost, and when another worker is gone, it repeats the fetches of the last three minutes: messages
that were not acked are in the buckets again. As the number of workers can be forged, it causes at most one repeat a
minute.
"""

import asyncio
import math
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from notifier.delivery.client_state import CROWDED_SHARE, MIN_AHEAD_SECONDS
from notifier.delivery.scheduler import Scheduler
from notifier.delivery.settlement import LARGE_BACKLOG, BucketCounts
from notifier.model.client import ClientKey
from notifier.model.errors import QueueUnavailable
from notifier.model.message import Message
from notifier.model.moment import Clock
from notifier.model.shared_resources import shared_bound, shared_lock
from notifier.queues.queue_port import BucketQueues

MAX_IN_FLIGHT = shared_bound(256)  # messages being fetched at a time
MAX_BATCH, MAX_BATCH_BESIDE_FRESH = 64, 4  # messages; the second while a fresh delivery waits for the event loop
MAX_ARRIVING = shared_bound(4)  # messages from a near broker: 64 that arrive together delay others by 5 ms …
BUSY_SECONDS = 1.0  # … while others come, and for so long afterwards
SILENT_SECONDS = 0.1  # after which a fetch does not count as arriving
TAKEN_IN_A_ROW = 8  # messages of a batch, before the event loop continues with other work
GROWTH, MAX_GROWTH = 4, 64  # the factor of the next batch if most messages are for other clients, and its limit
MAX_PARKED_AGAIN_PER_SECOND = shared_bound(2000.0)  # 100,000 take a minute …
MAX_PARKED_AGAIN_BESIDE_FRESH_PER_SECOND = 400.0  # … and this costs a sixth of a core while a fresh delivery waits
BUCKETS_PER_ROUND = 8  # buckets examined in a round of the worker
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.5, 32.0  # after the first failed batch, and after many
MIN_REPEAT_SECONDS = 60.0  # between two repeats because another worker is gone
RECENT_SECONDS = 120.0 + MIN_REPEAT_SECONDS  # a fetched delivery is certainly settled after the first two minutes
MAX_FETCH_CLIENTS = shared_bound(1000)  # of one fetch; with more it is for all: reports of peers may name any number
FIRST_FETCH_SECONDS = 1.0  # on average, from the start of the worker to the first fetches
COUNT_SECONDS = 60.0  # between two counts of all buckets, for operators


@dataclass(slots=True)
class Remainder:
    """How many messages of the bucket at a request must still be taken; None before they are counted."""

    count: int | None = None
    parked_again: Counter[ClientKey] = field(default_factory=Counter)  # those of them that were parked again, by client

    def on_count(self, count: int) -> None:
        """Record the number of messages. It is not reliable, so a fetch is tried even if it is 0."""
        if self.count is None:
            self.count = max(1, count)

    def on_batch(self, size: int, taken_count: int, *, is_counted: bool) -> None:
        """Record a batch of at most `size` messages. `is_counted`: it began after the count, which includes it."""
        if taken_count < size:
            self.count = 0
        elif is_counted and self.count is not None:
            self.count = max(0, self.count - taken_count)


@dataclass(slots=True)
class BucketFetch:
    """A fetch from one bucket, for `clients` or for all clients.

    `remainder`: of the last request. `is_counting`: it is being counted. `in_flight`: how many messages are being
    fetched. `batch_seconds`: how long the last batch took. `factor`: how many messages are fetched for each that the
    clients can take. `failures`: how many batches failed in a row. `no_batch_before`: the moment of the next batch at
    the earliest. `taking`: held while a batch is taken, so that batches are taken in their order. `began_at`: when the
    last batch began.
    """

    clients: set[ClientKey] = field(default_factory=set)
    for_all_clients: bool = False
    remainder: Remainder = field(default_factory=Remainder)
    is_counting: bool = False
    in_flight: int = 0
    batch_seconds: float = 0.0
    factor: int = 1
    failures: int = 0
    no_batch_before: float = -math.inf
    taking: asyncio.Lock = field(default_factory=shared_lock)
    began_at: float = -math.inf

    def is_silent(self, now: float) -> bool:
        """Return whether the bucket has not answered for longer than a busy broker takes."""
        return self.in_flight > 0 and now - self.began_at > SILENT_SECONDS


class BucketFetches:
    """Carries out the fetches that `Deferrals` requests.

    `take` starts a fetched delivery, or returns its client if it is parked again. `spawn` runs a task of the worker.
    `wall` is the system's clock.
    """

    def __init__(
        self,
        queues: BucketQueues,
        scheduler: Scheduler,
        take: Callable[[Message], ClientKey | None],
        spawn: Callable[[Coroutine[object, object, None]], object],
        counts: BucketCounts,
        clock: Clock,
        wall: Clock,
    ) -> None:
        self._queues = queues
        self._scheduler = scheduler
        self._take = take
        self._spawn = spawn
        self._counts = counts
        self._clock = clock
        self._wall = wall
        self._fetches: OrderedDict[str, BucketFetch] = OrderedDict()
        self._in_flight = self._arriving = 0
        self._fresh_waits = False
        self._busy_until, self._round_trip = -math.inf, math.inf
        self._no_growth_before = -math.inf  # of batches that are larger since most messages are for other clients
        self._worker_count = 0
        self._needs_repeat, self._no_repeat_before = False, -math.inf
        self._fetched_at: dict[str, float] = {}  # by bucket: when a message was last fetched from it

    def empty_unused(self) -> bool:
        """Continue only the fetches that empty buckets, since the worker stops. Return whether there are any."""
        unused = self._queues.inherited_buckets(at_start=False)
        self._fetches = OrderedDict((name, fetch) for name, fetch in self._fetches.items() if name in unused)
        self._scheduler.deferrals.requested.clear()
        self.start_batches(others_came=False, fresh_waits=False)
        return bool(self._fetches)

    def start_batches(self, *, others_came: bool, fresh_waits: bool) -> None:
        """Begin the requested fetches, and start batches as there is room.

        `others_came`: messages of the lanes have just been started. `fresh_waits`: a fresh delivery waits.
        """
        worker_count = self._scheduler.slots.worker_count()
        if worker_count != self._worker_count:
            # Messages that a stopped worker had fetched are in the buckets again.
            self._needs_repeat |= worker_count < self._worker_count
            self._worker_count = worker_count
            self._request_fetches(self._queues.inherited_buckets(at_start=False))
        if self._needs_repeat and self._clock() >= self._no_repeat_before:
            self._needs_repeat, self._no_repeat_before = False, self._clock() + MIN_REPEAT_SECONDS
            self.on_queue_lost()
        if self._scheduler.deferrals.requested:
            self._begin_requested_fetches()
        self._fresh_waits = fresh_waits
        if not self._fetches:
            return
        now = self._clock()
        if others_came:
            self._busy_until = now + BUSY_SECONDS
        self._arriving = sum(fetch.in_flight for fetch in self._fetches.values() if not fetch.is_silent(now))
        for _ in range(min(len(self._fetches), BUCKETS_PER_ROUND)):
            if self._scheduler.slots.used_share() > CROWDED_SHARE:
                return
            bucket, fetch = next(iter(self._fetches.items()))
            self._fetches.move_to_end(bucket)
            while (size := self._next_batch_size(bucket, fetch)) > 0:
                self._arriving += size
                fetch.in_flight += size
                self._in_flight += size
                fetch.began_at = now
                self._spawn(self._take_batch(bucket, fetch, size))
                if fetch.remainder.count is None and not fetch.is_counting:
                    self._spawn(self._count(bucket, fetch))

    def _begin_requested_fetches(self) -> None:
        """Begin a fetch for each client in `Deferrals.requested`, or add the client to the fetch of its bucket."""
        for key in self._scheduler.deferrals.requested:
            for bucket in self._counts.buckets_of(key):
                fetch = self._fetches.setdefault(bucket, BucketFetch())
                fetch.remainder = Remainder()
                self._fetches.move_to_end(bucket, last=False)
                if len(fetch.clients) < MAX_FETCH_CLIENTS:
                    fetch.clients.add(key)
                    self._scheduler.deferrals.on_fetch(key, is_fetching=True)
                elif key not in fetch.clients:
                    fetch.for_all_clients = True
        self._scheduler.deferrals.requested.clear()

    def _next_batch_size(self, bucket: str, fetch: BucketFetch) -> int:
        """Return how many messages of the bucket may be fetched now, by another batch."""
        now = self._clock()
        if now < fetch.no_batch_before or (fetch.factor > 1 and now < self._no_growth_before):
            return 0
        free = MAX_IN_FLIGHT - self._in_flight - (0 if fetch.clients else MAX_IN_FLIGHT // 2)
        # Another batch beside the first must be whole, since several small ones cost more.
        min_size = MAX_BATCH if fetch.in_flight else 1
        max_size = min(MAX_BATCH_BESIDE_FRESH if self._fresh_waits else MAX_BATCH, (free + 1) // 2)
        if fetch.failures or (fetch.in_flight and fetch.remainder.count is None):
            max_size = min(max_size, 1)  # it may fail, too, or the bucket may be empty
        elif fetch.remainder.count is not None:
            max_size = min(max_size, fetch.remainder.count - fetch.in_flight)
        if now < self._busy_until and self._round_trip <= MIN_AHEAD_SECONDS:
            max_size = min(max_size, MAX_ARRIVING - self._arriving)
        if max_size < min_size:
            return 0
        size = min(max_size, self._fetchable_count(bucket, fetch) * fetch.factor - fetch.in_flight)
        return size if size >= min_size else 0

    def _fetchable_count(self, bucket: str, fetch: BucketFetch) -> int:
        """Remove clients that do not need the fetch, and a fetch without any. Return how many they can take now."""
        if fetch.for_all_clients:
            return MAX_IN_FLIGHT
        total = 0
        for key in tuple(fetch.clients):
            if (count := self._scheduler.deferrals.fetchable_count(key, fetch.batch_seconds)) is None:
                fetch.clients.discard(key)
                self._on_fetch_ended(key)
            else:
                total += count
        if not fetch.clients:
            del self._fetches[bucket]
        return total

    async def _take_batch(self, bucket: str, fetch: BucketFetch, size: int) -> None:
        """Take messages from the bucket and start their deliveries. End the fetch if no message is left."""
        remainder, began_at = fetch.remainder, self._clock()
        is_counted = remainder.count is not None
        try:
            messages = await self._queues.fetch(bucket, size)
            fetch.failures, fetch.batch_seconds = 0, self._clock() - began_at
            # The shortest of late: where broker and worker are busy, a fetch takes long although the broker is near.
            self._round_trip = min(fetch.batch_seconds, 1.01 * self._round_trip + 1e-5)
            async with fetch.taking:
                await self._take_messages(bucket, fetch, messages)
            remainder.on_batch(size, len(messages), is_counted=is_counted)
        except QueueUnavailable:  # other fetches continue: perhaps only this bucket is unavailable
            if not fetch.failures:
                self.on_queue_lost()
            if self._clock() >= fetch.no_batch_before:  # otherwise another batch failed at the same time
                fetch.no_batch_before = self._clock() + min(MAX_RETRY_SECONDS, MIN_RETRY_SECONDS * 2**fetch.failures)
                fetch.failures, fetch.remainder = fetch.failures + 1, Remainder()
        finally:
            fetch.in_flight -= size
            self._in_flight -= size
        if fetch.remainder.count == 0 and not fetch.in_flight and self._fetches.get(bucket) is fetch:
            del self._fetches[bucket]
            for key in fetch.clients:
                self._on_fetch_ended(key, empty=True)

    def _on_fetch_ended(self, key: ClientKey, *, empty: bool = False) -> None:
        """Record that a fetch for the client ended, unless one from its other bucket continues."""
        fetches = (self._fetches.get(bucket) for bucket in self._counts.buckets_of(key))
        if not any(fetch is not None and key in fetch.clients for fetch in fetches):
            self._scheduler.deferrals.on_fetch(key, is_fetching=False, empty=empty)

    async def _take_messages(self, bucket: str, fetch: BucketFetch, messages: Sequence[Message]) -> None:
        """Start the deliveries. Fetch more at a time, at a bounded rate, if most are for other clients."""
        parked_again = 0
        for number, message in enumerate(messages, 1):
            key = self._take(message)
            if key is None or fetch.clients:  # otherwise a repeat found nothing, and requires no other
                self._fetched_at[bucket] = self._clock()
            if key is not None:
                parked_again += 1
                fetch.remainder.parked_again[key] += 1
                if fetch.remainder.parked_again[key] >= LARGE_BACKLOG or bucket != self._queues.bucket(key):
                    self._counts.large.add(key)
            if number % TAKEN_IN_A_ROW == 0:
                await asyncio.sleep(0)
        fetch.factor = min(MAX_GROWTH, fetch.factor * GROWTH) if 2 * parked_again > len(messages) else 1
        rate = MAX_PARKED_AGAIN_BESIDE_FRESH_PER_SECOND if self._fresh_waits else MAX_PARKED_AGAIN_PER_SECOND
        self._no_growth_before = max(self._clock(), self._no_growth_before) + parked_again / rate

    async def _count(self, bucket: str, fetch: BucketFetch) -> None:
        """Count the messages of the bucket, beside the first batch. If that fails, a later batch counts again."""
        remainder, fetch.is_counting = fetch.remainder, True
        try:
            remainder.on_count((await self._queues.count_parked([bucket])).get(bucket, 0))
        except QueueUnavailable:
            fetch.no_batch_before = max(fetch.no_batch_before, self._clock() + MIN_RETRY_SECONDS)
        finally:
            fetch.is_counting = False

    def on_queue_lost(self) -> None:
        """Repeat the fetches of the last three minutes: unacked messages are in the buckets again."""
        self._request_fetches(
            [bucket for bucket, at in self._fetched_at.items() if self._clock() - at < RECENT_SECONDS]
        )

    def _request_fetches(self, buckets: Iterable[str]) -> None:
        for bucket in buckets:
            fetch = self._fetches.setdefault(bucket, BucketFetch())
            fetch.for_all_clients, fetch.remainder = True, Remainder()

    async def run(self) -> None:
        """Count all buckets and request overdue fetches each minute, until cancelled. First fetch what is inherited."""
        await asyncio.sleep(FIRST_FETCH_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311  spreads the workers; no secret
        inherited = set(self._queues.inherited_buckets(at_start=True))
        while True:
            with suppress(QueueUnavailable):  # perhaps one bucket is unavailable: then fetch from all
                filled = set(await self._queues.count_parked())
                self._counts.forget_empty(filled)
                inherited &= filled
            self._request_fetches(inherited)
            self._scheduler.deferrals.request_overdue_fetches()
            await asyncio.sleep(seconds_until_count(self._wall()))
            inherited = set(self._queues.inherited_buckets(at_start=False))


def seconds_until_count(now: float) -> float:
    """Return the time until the next count. All workers count at the same moments, by the system's clock.

    Otherwise one worker forgets the deliveries that it fetched from an empty bucket up to a minute before another
    forgets that it parked them, and the status shows them as pending meanwhile.
    """
    return COUNT_SECONDS - now % COUNT_SECONDS
