"""Fetches parked deliveries, when their client is well or when one of them is to become its leash.

Two nets catch what a lost leash would leave behind. The watch looks at the buckets of clients that recovered a minute
ago at most: other workers park there until their own rest ends. The audit looks at all buckets now and then: one that
was not empty twice, and that nobody looks after, gives out a few deliveries, of which one becomes a leash. They are
a few, so that one that kills the process does not hide those behind it. Its first look comes soon after the start, and
once is enough then: the worker before may have died in the middle of a drain, with no leash.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence

from notifier.domain.errors import QueueUnavailable
from notifier.domain.message import Message
from notifier.pipeline.bucket_counts import BucketCounts
from notifier.pipeline.drains import AT_ONCE
from notifier.pipeline.gate import Gate
from notifier.pipeline.known_client import Key
from notifier.pipeline.ports import Parking

WATCH_EVERY = 0.5  # seconds between two looks at the buckets of clients that recovered lately
AUDIT_EVERY = 40.0  # seconds, on average, between two looks at all buckets: two of them take two minutes at most
FIRST_AUDIT = 2.0  # seconds, on average, from the start to the first look
AWAY = 0.5  # seconds to wait after a fetch from a queue that is away
USELESS = 32  # fetched in a row for clients that are down, after which the rest of the bucket is counted


class Fetching:
    """Fetches what the gate wants fetched. `take` begins a fetched delivery, and returns True if it was of use.

    One that is parked again was not. `spawn` runs a task of the worker's.
    """

    def __init__(
        self,
        parking: Parking,
        gate: Gate,
        take: Callable[[Message], bool],
        spawn: Callable[[Coroutine[object, object, None]], None],
        counts: BucketCounts,
    ) -> None:
        self._parking = parking
        self._gate = gate
        self._take = take
        self._spawn = spawn
        self._counts = counts
        self._useless: dict[str, int] = {}  # by bucket: fetched in a row for clients that are down
        self._searches: dict[str, tuple[int, Key]] = {}  # by bucket: how often all came in vain, for whom at last

    def begin(self, *, fresh_waits: bool) -> None:
        """Begin the fetches that there is room for."""
        for key, most in self._gate.fetches(fresh_waits=fresh_waits):
            self._spawn(self._fetch(key, most))

    async def _fetch(self, key: Key, most: int) -> None:
        bucket, parks = self._parking.bucket(key), self._gate.parks(key)
        before, useful = self._searches.get(bucket, (0, key)), False
        messages: Sequence[Message] | None = None
        try:
            messages = await self._parking.fetch(bucket, most)
            for message in messages:
                taken = self._take(message)
                useful = useful or taken
                self._useless[bucket] = 0 if taken else self._useless.get(bucket, 0) + 1
        except QueueUnavailable:
            await asyncio.sleep(AWAY)
        finally:
            self._gate.fetched(key, most)
        if messages is not None and (len(messages) < most or await self._only_useless(bucket)):
            if len(messages) == most:
                self._gate.watch_no_longer(key)
                self._searches[bucket] = (self._searches.get(bucket, before)[0] + 1, key)
            self._useless.pop(bucket, None)
            self._gate.empty(key, parks)
        elif messages is None or useful or (search := self._searches.get(bucket, before)) == before or search[1] != key:
            # Else a fetch beside this one, for the same client, has ended the search: to go on would begin it anew.
            self._gate.fetch_again(key)  # if what came was another client's, it still lacks a leash

    async def _only_useless(self, bucket: str) -> bool:
        """True if the whole bucket was fetched in vain: what lies there is for other clients, which are down."""
        if self._useless.get(bucket, 0) < USELESS:
            return False
        try:
            return self._useless.get(bucket, 0) > (await self._parking.parked([bucket])).get(bucket, 0)
        except QueueUnavailable:
            return False

    async def watch(self) -> None:
        """Look at the buckets of clients that recovered lately, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_EVERY)
            if not (watched := self._gate.watched()):
                continue
            buckets = {self._parking.bucket(key): key for key in watched}
            try:
                for bucket in await self._parking.parked(buckets):
                    self._gate.fetch_again(buckets[bucket])
            except QueueUnavailable:
                continue
            self.begin(fresh_waits=False)

    async def audit(self) -> None:
        """Look at all buckets now and then, until cancelled."""
        before: set[str] | None = None
        while True:
            wait = FIRST_AUDIT if before is None else AUDIT_EVERY
            await asyncio.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311  spreads the workers; no secret
            try:
                filled = set(await self._parking.parked())
                self._counts.seen(filled)
                forgotten = filled if before is None else filled & before
                for bucket in forgotten - {self._parking.bucket(key) for key in self._gate.looked_after()}:
                    for message in await self._parking.fetch(bucket, AT_ONCE):
                        self._take(message)
            except QueueUnavailable:
                continue
            before = filled
