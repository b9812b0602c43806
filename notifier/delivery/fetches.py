"""Fetches parked deliveries from buckets, and starts them or parks them again.

A fetch is for one or several clients that share the bucket. It takes messages in batches, as many at a time as these
clients can take, and ends once it has taken each message that was there when it was last requested (a message that is
parked again goes to the end of the bucket), or if none of its clients needs it any more. Each bucket has one fetch at a
time. The rate of messages that are parked again is bounded. A bucket that cannot be read keeps its fetch, and is tried
less and less often.

A worker fetches from every bucket when it starts, since a former worker may have died during a fetch. After the queue
was lost, and when another worker is gone, it repeats the fetches of the last two minutes: messages that were not acked
are in the buckets again.
"""

import asyncio
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from notifier.delivery.client_state import CROWDED_SHARE
from notifier.delivery.scheduler import Scheduler
from notifier.delivery.settlement import BucketCounts
from notifier.model.client import ClientKey
from notifier.model.errors import QueueUnavailable
from notifier.model.message import Message
from notifier.model.moment import Clock
from notifier.queues.queue_port import BucketQueues

MAX_TAKEN = 4  # messages being taken at a time; 1 while a fresh delivery waits for the event loop
MAX_PARKED_AGAIN_PER_SECOND = 400.0  # costs a thirtieth of a core …
MAX_PARKED_AGAIN_AT_START_PER_SECOND = 2000.0  # … and this in fetches for all clients: 100,000 take a minute
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.5, 32.0  # after the first failed batch, and after many
RECENT_SECONDS = 120.0  # after which a fetched delivery is certainly settled
MAX_FETCH_CLIENTS = 1000  # of one fetch. With more it is for all clients: the reports of peers may name any number
FIRST_FETCH_SECONDS = 1.0  # on average, from the start of the worker to the first fetches
COUNT_SECONDS = 60.0  # between two counts of all buckets, for operators


@dataclass(slots=True)
class BucketFetch:
    """A fetch from one bucket, for `clients` or for all clients.

    `messages_left`: how many messages must still be taken; None if they are not counted yet. `recount`: they must be
    counted again after the present batch. `in_batch`: a batch is being taken. `failures`: how many batches failed in a
    row. `no_batch_before`: the moment of the next batch at the earliest.
    """

    clients: set[ClientKey] = field(default_factory=set)
    for_all_clients: bool = False
    messages_left: int | None = None
    recount: bool = False
    in_batch: bool = False
    failures: int = 0
    no_batch_before: float = -math.inf


class BucketFetches:
    """Carries out the fetches that `Deferrals` requests.

    `take` starts a fetched delivery, and returns False if it is parked again. `spawn` runs a task of the worker.
    `wall` is the system's clock.
    """

    def __init__(
        self,
        queues: BucketQueues,
        scheduler: Scheduler,
        take: Callable[[Message], bool],
        spawn: Callable[[Coroutine[object, object, None]], None],
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
        self._taking_count = 0
        self._no_batch_before = -math.inf
        self._worker_count = 0
        self._fetched_at: dict[str, float] = {}  # by bucket: when a message was last fetched from it

    def start_batches(self, *, fresh_waits: bool) -> None:
        """Begin the requested fetches, and start batches as there is room. `fresh_waits`: a fresh delivery waits."""
        worker_count = self._scheduler.slots.worker_count()
        if worker_count < self._worker_count:
            self.on_queue_lost()  # messages that a stopped worker had fetched are in the buckets again
        self._worker_count = worker_count
        if self._scheduler.deferrals.requested:
            self._begin_requested_fetches()
        max_taken = 1 if fresh_waits else MAX_TAKEN
        for _ in range(min(len(self._fetches), MAX_TAKEN)):
            is_busy = self._taking_count >= max_taken or self._scheduler.slots.used_share() > CROWDED_SHARE
            if is_busy or self._clock() < self._no_batch_before:
                return
            bucket, fetch = next(iter(self._fetches.items()))
            self._fetches.move_to_end(bucket)
            if fetch.in_batch or self._clock() < fetch.no_batch_before:
                continue
            count = min(self._prepare_batch(bucket, fetch), max_taken - self._taking_count)
            if count > 0:
                if fetch.failures:
                    count = 1  # this batch may hang, too, and keep its share of MAX_TAKEN
                fetch.in_batch, fetch.recount = True, False
                self._taking_count += count
                self._spawn(self._take_batch(bucket, fetch, count))

    def _begin_requested_fetches(self) -> None:
        """Begin a fetch for each client in `Deferrals.requested`, or add the client to the fetch of its bucket."""
        for key in self._scheduler.deferrals.requested:
            fetch = self._fetches.setdefault(self._queues.bucket(key), BucketFetch())
            fetch.messages_left, fetch.recount = None, True
            if len(fetch.clients) < MAX_FETCH_CLIENTS:
                fetch.clients.add(key)
                self._scheduler.deferrals.on_fetch(key, is_fetching=True)
            elif key not in fetch.clients:
                fetch.for_all_clients = True
        self._scheduler.deferrals.requested.clear()

    def _prepare_batch(self, bucket: str, fetch: BucketFetch) -> int:
        """Remove clients that do not need the fetch, and a fetch without any. Return how many messages may be taken."""
        if fetch.for_all_clients:
            return MAX_TAKEN
        total = 0
        for key in tuple(fetch.clients):
            if (count := self._scheduler.deferrals.fetchable_count(key)) is None:
                fetch.clients.discard(key)
                self._scheduler.deferrals.on_fetch(key, is_fetching=False)
            else:
                total += count
        if not fetch.clients:
            del self._fetches[bucket]
        return total

    async def _take_batch(self, bucket: str, fetch: BucketFetch, max_messages: int) -> None:
        """Take messages from the bucket and start their deliveries. End the fetch if no message is left."""
        try:
            messages_left = fetch.messages_left
            if messages_left is None:
                messages_left = (await self._queues.count_parked([bucket])).get(bucket, 0)
            messages = await self._queues.fetch(bucket, max_messages)  # even if the count is 0, which is not reliable
            fetch.failures = 0
            messages_left = messages_left - len(messages) if len(messages) == max_messages else 0
            fetch.messages_left = None if fetch.recount else messages_left
            if messages:
                self._fetched_at[bucket] = self._clock()
            parked_again = sum(not self._take(message) for message in messages)
            for_all = fetch.for_all_clients
            max_rate = MAX_PARKED_AGAIN_AT_START_PER_SECOND if for_all else MAX_PARKED_AGAIN_PER_SECOND
            self._no_batch_before = max(self._clock(), self._no_batch_before) + parked_again / max_rate
        except QueueUnavailable:  # other fetches continue: perhaps only this bucket is unavailable
            if not fetch.failures:
                self.on_queue_lost()
            wait = min(MAX_RETRY_SECONDS, MIN_RETRY_SECONDS * 2**fetch.failures)
            fetch.no_batch_before = self._clock() + wait
            fetch.failures, fetch.messages_left = fetch.failures + 1, None
        finally:
            fetch.in_batch = False
            self._taking_count -= max_messages
        at_end = fetch.messages_left is not None and fetch.messages_left <= 0
        if at_end and self._fetches.get(bucket) is fetch:
            del self._fetches[bucket]
            for key in fetch.clients:
                self._scheduler.deferrals.on_fetch(key, is_fetching=False, empty=True)

    def on_queue_lost(self) -> None:
        """Repeat the fetches of the last two minutes: fetched messages that were not acked are in the buckets again."""
        self._request_fetches(
            [bucket for bucket, at in self._fetched_at.items() if self._clock() - at < RECENT_SECONDS]
        )

    def _request_fetches(self, buckets: Iterable[str]) -> None:
        for bucket in buckets:
            fetch = self._fetches.setdefault(bucket, BucketFetch())
            fetch.for_all_clients, fetch.messages_left, fetch.recount = True, None, True

    async def run(self) -> None:
        """Fetch from all buckets, then count them and request overdue fetches each minute, until cancelled."""
        await asyncio.sleep(FIRST_FETCH_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311  spreads the workers; no secret
        self._request_fetches(self._queues.inherited_buckets())
        while True:
            with suppress(QueueUnavailable):
                self._counts.forget_empty(set(await self._queues.count_parked()))
            self._scheduler.deferrals.request_overdue_fetches()
            await asyncio.sleep(seconds_until_count(self._wall()))


def seconds_until_count(now: float) -> float:
    """Return the time until the next count. All workers count at the same moments, by the system's clock.

    Otherwise one worker forgets the deliveries that it fetched from an empty bucket up to a minute before another
    forgets that it parked them, and the status shows them as pending meanwhile.
    """
    return COUNT_SECONDS - now % COUNT_SECONDS
