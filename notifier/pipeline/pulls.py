"""Passes through buckets: takes out what can go now, and puts the rest back.

A pass is for one or several clients that share the bucket. It fetches as many at a time as these clients bear, and sees
each message once that was there when it was last wished for: one that is parked again stands at the bucket's end. It
ends early if none of its clients has any use of it. There is one pass at a time for each bucket, and what they take in
vain is bounded.

A worker goes once through every bucket when it begins: the one before may have died in the middle of a pass, and its
buckets hold what no traveller looks after.
"""

import asyncio
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from notifier.domain.errors import QueueUnavailable
from notifier.domain.message import Message
from notifier.pipeline.bucket_counts import BucketCounts
from notifier.pipeline.gate import Gate
from notifier.pipeline.known_client import Key
from notifier.pipeline.ports import Clock, Parking

AT_ONCE = 4  # deliveries on their way out of buckets; 1 while a fresh one waits for the loop
IN_VAIN = 400.0  # fetched a second for clients that are down: a thirtieth of a core
AWAY = 0.5  # seconds to wait after a fetch from a queue that is away
FIRST = 1.0  # seconds, on average, from the start to the first passes
COUNT_EVERY = 60.0  # seconds between two looks at all buckets, for what operators are told


@dataclass(slots=True)
class Pass:
    """Goes through a bucket for these clients, or for `all`. `left`: messages to be seen, None if not counted yet."""

    clients: set[Key] = field(default_factory=set)
    all: bool = False
    left: int | None = None
    fetching: bool = False
    away_until: float = -math.inf


class Pulls:
    """Makes the passes that the gate wishes. `take` begins a fetched delivery, and returns False if it parks it again.

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
        self._passes: OrderedDict[str, Pass] = OrderedDict()
        self._fetching = 0
        self._rests_until = -math.inf

    def begin(self, *, fresh_waits: bool) -> None:
        """Begin the fetches that there is room for."""
        for key in self._gate.wishes:
            one = self._passes.setdefault(self._parking.bucket(key), Pass())
            one.clients.add(key)
            one.left = None
            self._gate.pulls(key, pulling=True)
        self._gate.wishes.clear()
        most = 1 if fresh_waits else AT_ONCE
        for _ in range(min(len(self._passes), AT_ONCE)):
            if self._fetching >= most or self._clock() < self._rests_until or self._gate.crowded:
                return
            bucket, one = next(iter(self._passes.items()))
            self._passes.move_to_end(bucket)
            if (
                not one.fetching
                and self._clock() >= one.away_until
                and (want := min(self._wanted(bucket, one), most - self._fetching)) > 0
            ):
                one.fetching = True
                self._fetching += want
                self._spawn(self._fetch(bucket, one, want))

    def _wanted(self, bucket: str, one: Pass) -> int:
        """Return how many the pass may fetch now. It loses the clients that have no use of it."""
        if one.all:
            return AT_ONCE
        want = 0
        for key in tuple(one.clients):
            if (bears := self._gate.wanted(key)) is None:
                one.clients.discard(key)
                self._gate.pulls(key, pulling=False)
            else:
                want += bears
        if not one.clients:
            del self._passes[bucket]
        return want

    async def _fetch(self, bucket: str, one: Pass, most: int) -> None:
        try:
            if one.left is None:
                one.left = (await self._parking.parked([bucket])).get(bucket, 0)
            found = await self._parking.fetch(bucket, most) if one.left else ()
            if one.left is not None:  # else more was parked meanwhile
                one.left = one.left - len(found) if len(found) == most else 0
            in_vain = sum(not self._take(message) for message in found)
            if in_vain:
                self._rests_until = max(self._clock(), self._rests_until) + in_vain / IN_VAIN
            self._gate.fetched(one.clients)
        except QueueUnavailable:  # others go on meanwhile: perhaps it is this bucket alone
            one.away_until = self._clock() + AWAY
        finally:
            one.fetching = False
            self._fetching -= most
        if one.left is not None and one.left <= 0 and self._passes.get(bucket) is one:
            del self._passes[bucket]
            for key in one.clients:
                self._gate.pulls(key, pulling=False, empty=True)

    async def run(self) -> None:
        """Go through all buckets once, and count them now and then, until cancelled."""
        await asyncio.sleep(FIRST * random.uniform(0.5, 1.5))  # noqa: S311  spreads the workers; no secret
        first = True
        while True:
            try:
                filled = await self._parking.parked()
            except QueueUnavailable:
                await asyncio.sleep(AWAY)
                continue
            self._counts.seen(set(filled))
            if first:
                for bucket in filled:
                    self._passes.setdefault(bucket, Pass()).all = True
                first = False
            await asyncio.sleep(COUNT_EVERY)
