"""Makes passes through buckets: fetches parked deliveries, and starts them or parks them again.

A pass is for one or several clients that share the bucket. It fetches as many messages at a time as these clients can
take, and ends once it has fetched each message that was there when the pass was last requested (a message that is
parked again goes to the end of the bucket), or if none of its clients needs it any more. Each bucket has one pass at a
time. The rate of messages that are parked again is bounded. A bucket that cannot be read keeps its pass, and is tried
less and less often.

A worker makes a pass through every bucket when it starts, since a former worker may have died during a pass. After the
queue was lost, and when another worker is gone, it repeats the passes of the last two minutes: messages that were not
acked are in the buckets again.
"""

import asyncio
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from notifier.delivery.gate import Gate
from notifier.delivery.known_client import CROWDED_SHARE
from notifier.delivery.pending_counts import BucketCounts
from notifier.model.client import ClientKey
from notifier.model.errors import QueueUnavailable
from notifier.model.message import Message
from notifier.model.moment import Clock
from notifier.queues.queue_port import Parking

MAX_FETCHES = 4  # deliveries being fetched at a time; 1 while a fresh delivery waits for the event loop
MAX_PARKED_AGAIN_PER_SECOND = 400.0  # costs a thirtieth of a core …
MAX_PARKED_AGAIN_AT_START_PER_SECOND = 2000.0  # … and this in passes for all clients: 100,000 take a minute
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.5, 32.0  # after the first failed fetch, and after many
RECENT_SECONDS = 120.0  # after which a fetched delivery is certainly settled
MAX_PASS_CLIENTS = 1000  # of one pass. With more it is for all clients: the reports of peers may name any number
FIRST_PASS_SECONDS = 1.0  # on average, from the start of the worker to the first passes
COUNT_SECONDS = 60.0  # between two counts of all buckets, for operators


@dataclass(slots=True)
class BucketPass:
    """A pass through one bucket, for `clients` or for all clients.

    `messages_left`: how many messages the pass must still fetch; None if they are not counted yet. `recount`: they must
    be counted again after the present fetch. `failures`: how many fetches failed in a row.
    """

    clients: set[ClientKey] = field(default_factory=set)
    for_all_clients: bool = False
    messages_left: int | None = None
    recount: bool = False
    fetching: bool = False
    failures: int = 0
    no_fetch_before: float = -math.inf


class BucketPasses:
    """Makes the passes that `Buckets` requests.

    `take` starts a fetched delivery, and returns False if it is parked again. `spawn` runs a task of the worker.
    `wall` is the system's clock.
    """

    def __init__(
        self,
        parking: Parking,
        gate: Gate,
        take: Callable[[Message], bool],
        spawn: Callable[[Coroutine[object, object, None]], None],
        counts: BucketCounts,
        clock: Clock,
        wall: Clock,
    ) -> None:
        self._parking = parking
        self._gate = gate
        self._take = take
        self._spawn = spawn
        self._counts = counts
        self._clock = clock
        self._wall = wall
        self._passes: OrderedDict[str, BucketPass] = OrderedDict()
        self._fetching_count = 0
        self._no_fetch_before = -math.inf
        self._worker_count = 0
        self._fetched_at: dict[str, float] = {}  # by bucket: when a message was last fetched from it

    def start_fetches(self, *, fresh_waits: bool) -> None:
        """Begin the requested passes, and start fetches as there is room. `fresh_waits`: a fresh delivery waits."""
        worker_count = self._gate.slots.worker_count()
        if worker_count < self._worker_count:
            self.on_queue_lost()  # messages that a stopped worker had fetched are in the buckets again
        self._worker_count = worker_count
        if self._gate.buckets.requested:
            self._begin_requested_passes()
        max_fetches = 1 if fresh_waits else MAX_FETCHES
        for _ in range(min(len(self._passes), MAX_FETCHES)):
            is_busy = self._fetching_count >= max_fetches or self._gate.slots.used_share() > CROWDED_SHARE
            if is_busy or self._clock() < self._no_fetch_before:
                return
            bucket, bucket_pass = next(iter(self._passes.items()))
            self._passes.move_to_end(bucket)
            if bucket_pass.fetching or self._clock() < bucket_pass.no_fetch_before:
                continue
            count = min(self._fetchable_count(bucket, bucket_pass), max_fetches - self._fetching_count)
            if count > 0:
                if bucket_pass.failures:
                    count = 1  # this fetch may hang, too, and keep its share of MAX_FETCHES
                bucket_pass.fetching, bucket_pass.recount = True, False
                self._fetching_count += count
                self._spawn(self._fetch(bucket, bucket_pass, count))

    def _begin_requested_passes(self) -> None:
        """Begin a pass for each client in `Buckets.requested`, or add the client to the pass of its bucket."""
        for key in self._gate.buckets.requested:
            bucket_pass = self._passes.setdefault(self._parking.bucket(key), BucketPass())
            bucket_pass.messages_left, bucket_pass.recount = None, True
            if len(bucket_pass.clients) < MAX_PASS_CLIENTS:
                bucket_pass.clients.add(key)
                self._gate.buckets.on_pass(key, in_pass=True)
            elif key not in bucket_pass.clients:
                bucket_pass.for_all_clients = True
        self._gate.buckets.requested.clear()

    def _fetchable_count(self, bucket: str, bucket_pass: BucketPass) -> int:
        """Return how many messages the pass may fetch now. Remove clients that do not need it, and an empty pass."""
        if bucket_pass.for_all_clients:
            return MAX_FETCHES
        total = 0
        for key in tuple(bucket_pass.clients):
            if (count := self._gate.buckets.fetchable_count(key)) is None:
                bucket_pass.clients.discard(key)
                self._gate.buckets.on_pass(key, in_pass=False)
            else:
                total += count
        if not bucket_pass.clients:
            del self._passes[bucket]
        return total

    async def _fetch(self, bucket: str, bucket_pass: BucketPass, max_messages: int) -> None:
        """Fetch messages from the bucket and start their deliveries. End the pass if no message is left."""
        try:
            messages_left = bucket_pass.messages_left
            if messages_left is None:
                messages_left = (await self._parking.count_parked([bucket])).get(bucket, 0)
            messages = await self._parking.fetch(bucket, max_messages)  # even if the count is 0, which is not reliable
            bucket_pass.failures = 0
            messages_left = messages_left - len(messages) if len(messages) == max_messages else 0
            bucket_pass.messages_left = None if bucket_pass.recount else messages_left
            if messages:
                self._fetched_at[bucket] = self._clock()
            parked_again = sum(not self._take(message) for message in messages)
            for_all = bucket_pass.for_all_clients
            max_rate = MAX_PARKED_AGAIN_AT_START_PER_SECOND if for_all else MAX_PARKED_AGAIN_PER_SECOND
            self._no_fetch_before = max(self._clock(), self._no_fetch_before) + parked_again / max_rate
        except QueueUnavailable:  # other passes continue: perhaps only this bucket is unavailable
            if not bucket_pass.failures:
                self.on_queue_lost()
            wait = min(MAX_RETRY_SECONDS, MIN_RETRY_SECONDS * 2**bucket_pass.failures)
            bucket_pass.no_fetch_before = self._clock() + wait
            bucket_pass.failures, bucket_pass.messages_left = bucket_pass.failures + 1, None
        finally:
            bucket_pass.fetching = False
            self._fetching_count -= max_messages
        at_end = bucket_pass.messages_left is not None and bucket_pass.messages_left <= 0
        if at_end and self._passes.get(bucket) is bucket_pass:
            del self._passes[bucket]
            for key in bucket_pass.clients:
                self._gate.buckets.on_pass(key, in_pass=False, empty=True)

    def on_queue_lost(self) -> None:
        """Repeat the passes of the last two minutes: fetched messages that were not acked are in the buckets again."""
        self._request_passes([bucket for bucket, at in self._fetched_at.items() if self._clock() - at < RECENT_SECONDS])

    def _request_passes(self, buckets: Iterable[str]) -> None:
        for bucket in buckets:
            bucket_pass = self._passes.setdefault(bucket, BucketPass())
            bucket_pass.for_all_clients, bucket_pass.messages_left, bucket_pass.recount = True, None, True

    async def run(self) -> None:
        """Make a pass through all buckets, then count them and request overdue passes each minute, until cancelled."""
        await asyncio.sleep(FIRST_PASS_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311  spreads the workers; no secret
        self._request_passes(self._parking.inherited_buckets())
        while True:
            with suppress(QueueUnavailable):
                self._counts.forget_empty(set(await self._parking.count_parked()))
            self._gate.buckets.request_overdue_passes()
            await asyncio.sleep(seconds_until_count(self._wall()))


def seconds_until_count(now: float) -> float:
    """Return the time until the next count. All workers count at the same moments, by the system's clock.

    Otherwise one worker forgets the deliveries that it fetched from an empty bucket up to a minute before another
    forgets that it parked them, and the status shows them as pending meanwhile.
    """
    return COUNT_SECONDS - now % COUNT_SECONDS
