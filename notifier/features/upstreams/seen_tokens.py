"""Remembers the logout tokens that this worker or another one accepted, so that no copy of them is published.

A worker shares the ids of its tokens over the side channel once their events are durable: within about 20 ms, and
without a guarantee. A copy that reaches another worker before that is published again: delivery is at least once. An id
is a digest of the token's claims, so nobody who lacks the token can invent it. The embedded queue has one worker.
"""

import asyncio
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic requires this one before Python 3.12

from notifier.model.moment import Clock
from notifier.model.shared_resources import shared_bound, shared_ring

MAX_SEEN_TOKENS = shared_bound(10_000)  # the oldest are dropped; the event of a dropped one has the same id again
MAX_UNSHARED_TOKENS = 1000  # with 50 updates a second, half a second of the most that a worker accepts
MAX_UPDATE_TOKENS = 50  # 3 KiB
MAX_UPDATE_BYTES = 4 * 1024
MAX_UPDATES_PER_SECOND = shared_bound(500)  # of all workers; some may be forged


class _Update(TypedDict):
    v: Literal[1]
    seen: dict[str, float]


_UPDATE = TypeAdapter(_Update)


class SeenTokens:
    """Tokens by id (RFC 7519 §4.1.7). `clock` returns epoch seconds."""

    def __init__(self, clock: Clock = time.time) -> None:
        self._clock = clock
        self._expires_at: OrderedDict[str, float] = OrderedDict()
        self._unshared = shared_ring(MAX_UNSHARED_TOKENS)
        self._has_unshared = asyncio.Event()
        self._second, self._updates_read = 0, 0  # the present second, and the updates read in it

    def is_seen(self, token_id: str) -> bool:
        """Return whether the token was accepted before, and is not too old to be accepted again."""
        return self._expires_at.get(token_id, 0.0) >= self._clock()

    def add(self, token_id: str, expires_at: float) -> None:
        """Remember and share an accepted token until `expires_at` (epoch seconds), when it is refused for its age."""
        self._store(token_id, expires_at)
        self._unshared.append((token_id, expires_at))
        self._has_unshared.set()

    async def next_update(self) -> bytes:
        """Return tokens for other workers. Wait until there are some."""
        await self._has_unshared.wait()
        seen = dict(self._unshared.popleft() for _ in range(min(len(self._unshared), MAX_UPDATE_TOKENS)))
        if not self._unshared:
            self._has_unshared.clear()
        return _UPDATE.dump_json({"v": 1, "seen": seen})

    def on_update(self, update: bytes) -> None:
        """Remember the tokens of another worker. Ignore unreadable and excess updates."""
        if (second := int(self._clock())) != self._second:
            self._second, self._updates_read = second, 0
        self._updates_read += 1
        if self._updates_read <= MAX_UPDATES_PER_SECOND and len(update) <= MAX_UPDATE_BYTES:
            with suppress(ValidationError):
                for token_id, expires_at in _UPDATE.validate_json(update)["seen"].items():
                    self._store(token_id, expires_at)

    def _store(self, token_id: str, expires_at: float) -> None:
        self._expires_at[token_id] = expires_at
        self._expires_at.move_to_end(token_id)
        while len(self._expires_at) > MAX_SEEN_TOKENS:
            self._expires_at.popitem(last=False)
