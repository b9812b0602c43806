"""Lets one request at a time go through the messages of a queue. Those that only look wait for one another first.

So a repair waits for one look at most.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from notifier.model.errors import QueueError
from notifier.network.listeners.problem import Refusal, problem

BUSY_FOR = 20.0  # seconds that a request waits for another to end


class Turns:
    """The turns at such messages. `away` is the sentence of a refusal: the queue is away, or another has them."""

    def __init__(self, away: str) -> None:
        self._away = away
        self._alone = asyncio.Lock()
        self._looking = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, *, looking: bool = False) -> AsyncIterator[None]:
        """Have the messages alone. Raises Refusal (503) if that takes too long, or if the queue is away."""
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(BUSY_FOR):
                    for each in (self._looking, self._alone) if looking else (self._alone,):
                        await held.enter_async_context(each)
            except TimeoutError:
                raise self.refusal() from None
            try:
                yield
            except QueueError:
                raise self.refusal() from None

    def refusal(self) -> Refusal:
        """What the caller is told."""
        return Refusal(problem(503, f"{self._away.rstrip('.')}; try again soon", headers={"Retry-After": "5"}))
