"""Tells what became of deliveries where the configuration asks for it: an observer, its buffer, and where that goes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager

from notifier.adapters.queues.rabbitmq.outcomes import OutcomePublisher
from notifier.adapters.queues.sqlite import SqliteQueue
from notifier.adapters.queues.sqlite.outcomes import KeptOutcomes
from notifier.app.ids import new_id
from notifier.app.queue import Queue, rabbit_options
from notifier.pipeline.facts import Observer
from notifier.pipeline.outcomes import Outcomes, Sink
from notifier.settings import Settings

FLUSH_WITHIN = 2.0  # seconds at the end of a drain; what is left then is dropped


class OutcomeFeed:
    """The feed of one worker; with `outcomes: off` it does nothing and costs nothing."""

    def __init__(self, settings: Settings, queue: Queue) -> None:
        self._outcomes: Outcomes | None = None
        self._sink: Sink
        self._link: OutcomePublisher | None = None
        if settings.outcomes == "off":
            return
        self._outcomes = Outcomes(settings.outcomes, clock=time.time, new_id=new_id)
        if isinstance(queue, SqliteQueue):
            self._sink = KeptOutcomes(queue)
        else:
            self._sink = self._link = OutcomePublisher(rabbit_options(settings.queue))

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who is to be told of facts."""
        return () if self._outcomes is None else (self._outcomes.observe,)

    def dropped(self) -> int:
        """How many were lost."""
        return 0 if self._outcomes is None else self._outcomes.dropped

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hand over what is told, for as long as it is entered; then what is left, in a bounded time."""
        if self._outcomes is None:
            yield
            return
        tasks = [asyncio.create_task(work()) for work in self._work(self._outcomes)]
        try:
            yield
        finally:
            tasks[0].cancel()
            await asyncio.wait(tasks[:1])
            await self._outcomes.flush(self._sink, FLUSH_WITHIN)
            for task in tasks[1:]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _work(self, outcomes: Outcomes) -> Iterator[Callable[[], Coroutine[object, object, None]]]:
        yield lambda: outcomes.run(self._sink)
        if self._link is not None:
            yield self._link.run
