"""The real service as the demo uses it: on a configuration of its own, in this process, on the embedded queue."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from notifier.adapters.configuration.live_configuration import LiveConfiguration, load
from notifier.app import Service
from notifier.domain.dead_letter import DeadLetter, load_dead_letter
from notifier.domain.message import DEAD, Lane
from notifier.operations.queue_port import Queue
from notifier.pipeline.facts import Observer


class Embedded:
    """The service from a publisher's and an operator's side."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def publish(self, event: Mapping[str, object]) -> None:
        """Make this event durable in the queue, as any publisher would."""
        await self._queue.send_event(Lane.EVENTS, json.dumps(event).encode(), message_id=None)

    async def dead_letters(self) -> Sequence[DeadLetter]:
        """The dead letters in the queue, none taken away."""
        depths = await self._queue.depths()
        messages = await self._queue.browse(DEAD, depths[DEAD].ready)
        return [load_dead_letter(message) for message in messages]


@asynccontextmanager
async def start(config: Path, observe: Observer) -> AsyncIterator[Embedded]:
    """Run the service for as long as the block lasts. The environment's settings are not this one's."""
    service = Service(LiveConfiguration(config, {}, load(config, {})), observers=(observe,))
    stop, started = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(service.serve(stop, started.set))
        try:
            await started.wait()
            yield Embedded(service.queue)
        finally:
            stop.set()
