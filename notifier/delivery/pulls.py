"""Makes passes through buckets: takes out the deliveries that can go now, and puts the rest back.

A pass is for one or several clients that share the bucket. It fetches as many messages at a time as these clients can
take, and sees each message once that was there when the pass was last requested: a message that is parked again goes to
the end of the bucket. A pass ends early if none of its clients needs it. Each bucket has one pass at a time, and the
messages fetched without effect are bounded. A bucket that cannot be read keeps its pass, and is tried less and less
often.

A worker goes through every bucket once when it begins, since the worker before it may have died in the middle of a
pass. After a loss, and when another worker is gone, it goes again through the buckets that it has lately fetched from:
messages that were not acked are there again.
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

MAX_FETCHES = 4  # deliveries on their way out of buckets; 1 while a fresh delivery waits for the loop
VAIN_FETCHES_PER_SECOND = 400.0  # fetched a second for clients that are down: a thirtieth of a core …
START_FETCHES_PER_SECOND = 2000.0  # … and while a worker goes through every bucket: 100,000 take a minute
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.5, 32.0  # to wait after the first failure to fetch, and after many
RECENT_SECONDS = 120.0  # in which a fetched delivery is settled
MAX_PASS_CLIENTS = 1000  # that a pass is for; beyond that it is for all, since other workers may name any number
FIRST_PASS_SECONDS = 1.0  # seconds, on average, from the start to the first passes
COUNT_SECONDS = 60.0  # between two counts of all buckets, for operators


@dataclass(slots=True)
class BucketPass:
    """A pass through a bucket for these clients, or `of_all` clients.

    `messages_left`: still to be seen, None if not counted yet. `recount`: more may have been parked since a fetch
    began, and so since the count. `failures`: fetches that failed in a row.
    """

    clients: set[ClientKey] = field(default_factory=set)
    of_all: bool = False
    messages_left: int | None = None
    recount: bool = False
    fetching: bool = False
    failures: int = 0
    away_until: float = -math.inf


class Pulls:
    """Makes the passes that `Buckets` requests. `take` begins a fetched delivery. False: it is parked again.

    `spawn` runs a task of the worker's.
    """

    def __init__(
        self,
        parking: Parking,
        gate: Gate,
        take: Callable[[Message], bool],
        spawn: Callable[[Coroutine[object, object, None]], None],
        counts: BucketCounts,
        clock: Clock,
    ) -> None:
        self._parking = parking
        self._gate = gate
        self._take = take
        self._spawn = spawn
        self._counts = counts
        self._clock = clock
        self._passes: OrderedDict[str, BucketPass] = OrderedDict()
        self._fetching = 0
        self._rests_until = -math.inf
        self._workers = 0
        self._fetched_at: dict[str, float] = {}  # by bucket: when something was last fetched from it

    def begin(self, *, fresh_waits: bool) -> None:
        """Begin the fetches that there is room for."""
        if (workers := self._gate.slots.workers()) < self._workers:
            self.on_queue_lost()  # the fetched messages of a stopped worker: the bucket seemed empty meanwhile
        self._workers = workers
        for key in self._gate.buckets.requested:
            bucket_pass = self._passes.setdefault(self._parking.bucket(key), BucketPass())
            bucket_pass.messages_left, bucket_pass.recount = None, True
            if len(bucket_pass.clients) < MAX_PASS_CLIENTS:
                bucket_pass.clients.add(key)
                self._gate.buckets.on_pass(key, in_pass=True)
            elif key not in bucket_pass.clients:
                bucket_pass.of_all = True
        self._gate.buckets.requested.clear()
        most = 1 if fresh_waits else MAX_FETCHES
        for _ in range(min(len(self._passes), MAX_FETCHES)):
            if self._fetching >= most or self._clock() < self._rests_until or self._gate.slots.fill() > CROWDED_SHARE:
                return
            bucket, bucket_pass = next(iter(self._passes.items()))
            self._passes.move_to_end(bucket)
            if (
                not bucket_pass.fetching
                and self._clock() >= bucket_pass.away_until
                and (want := min(self._wanted(bucket, bucket_pass), most - self._fetching)) > 0
            ):
                want = 1 if bucket_pass.failures else want  # it may take its share of those on their way for long
                bucket_pass.fetching, bucket_pass.recount = True, False
                self._fetching += want
                self._spawn(self._fetch(bucket, bucket_pass, want))

    def _wanted(self, bucket: str, bucket_pass: BucketPass) -> int:
        """Return how many messages the pass may fetch now. It drops the clients that do not need it."""
        if bucket_pass.of_all:
            return MAX_FETCHES
        want = 0
        for key in tuple(bucket_pass.clients):
            if (bears := self._gate.buckets.fetchable_count(key)) is None:
                bucket_pass.clients.discard(key)
                self._gate.buckets.on_pass(key, in_pass=False)
            else:
                want += bears
        if not bucket_pass.clients:
            del self._passes[bucket]
        return want

    async def _fetch(self, bucket: str, bucket_pass: BucketPass, most: int) -> None:
        try:
            messages_left = bucket_pass.messages_left
            if messages_left is None:
                messages_left = (await self._parking.count_parked([bucket])).get(bucket, 0)
            messages = await self._parking.fetch(bucket, most)  # also if it seems to be empty: the fetch is the proof
            bucket_pass.failures = 0
            messages_left = messages_left - len(messages) if len(messages) == most else 0
            bucket_pass.messages_left = None if bucket_pass.recount else messages_left
            if messages:
                self._fetched_at[bucket] = self._clock()
            in_vain = sum(not self._take(message) for message in messages)
            pace = START_FETCHES_PER_SECOND if bucket_pass.of_all else VAIN_FETCHES_PER_SECOND
            self._rests_until = max(self._clock(), self._rests_until) + in_vain / pace
        except QueueUnavailable:  # others go on meanwhile: perhaps it is this bucket alone
            if not bucket_pass.failures:
                self.on_queue_lost()
            bucket_pass.away_until = self._clock() + min(MAX_RETRY_SECONDS, MIN_RETRY_SECONDS * 2**bucket_pass.failures)
            bucket_pass.failures, bucket_pass.messages_left = bucket_pass.failures + 1, None
        finally:
            bucket_pass.fetching = False
            self._fetching -= most
        at_end = bucket_pass.messages_left is not None and bucket_pass.messages_left <= 0
        if at_end and self._passes.get(bucket) is bucket_pass:
            del self._passes[bucket]
            for key in bucket_pass.clients:
                self._gate.buckets.on_pass(key, in_pass=False, empty=True)

    def on_queue_lost(self) -> None:
        """Go again through the buckets that were lately fetched from: what is not acked may be there again."""
        self._go_through([bucket for bucket, at in self._fetched_at.items() if self._clock() - at < RECENT_SECONDS])

    def _go_through(self, buckets: Iterable[str]) -> None:
        for bucket in buckets:
            bucket_pass = self._passes.setdefault(bucket, BucketPass())
            bucket_pass.of_all, bucket_pass.messages_left, bucket_pass.recount = True, None, True

    async def run(self) -> None:
        """Go through all buckets once, then count them regularly and find forgotten deliveries, until cancelled."""
        await asyncio.sleep(FIRST_PASS_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311  spreads the workers; no secret
        self._go_through(self._parking.inherited_buckets())
        while True:
            with suppress(QueueUnavailable):
                self._counts.forget_empty(set(await self._parking.count_parked()))
            self._gate.buckets.look_after_overdue()
            await asyncio.sleep(COUNT_SECONDS)
