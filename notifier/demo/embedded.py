"""Runs the real service for the demo: in this process, on the embedded queue, with a separate configuration."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import load
from notifier.delivery.facts import Observer
from notifier.feature import Feature
from notifier.features import FEATURES
from notifier.model.documents.dead_letter import DeadLetter, load_dead_letter
from notifier.model.message import Lane
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.repair_pass import find_messages
from notifier.queues.queue_port import Queue
from notifier.service.service import Service


class EmbeddedService:
    """The running service, as publishers and operators use it."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def publish(self, event: Mapping[str, object]) -> None:
        """Publish an event, as any publisher does."""
        await self._queue.send_event(Lane.EVENTS, json.dumps(event).encode(), message_id=None)

    async def dead_letters(self) -> Sequence[DeadLetter]:
        """Return the dead letters, and leave them in the queue."""
        async with aclosing(find_messages(self._queue.dead_letters(), DeadLetterFilter(), whole=True)) as letters:
            return [load_dead_letter(message) async for _, message in letters]


@asynccontextmanager
async def start_service(config: Path, observe: Observer, *more: Feature) -> AsyncIterator[EmbeddedService]:
    """Run the service with additional features while entered. The service ignores settings in the environment."""
    features = (*FEATURES, *more)
    service = Service(LiveConfiguration(config, {}, load(config, {}, features)), (observe,), features=features)
    stop, started = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(service.serve(stop, started.set))
        try:
            await started.wait()
            yield EmbeddedService(service.queue)
        finally:
            stop.set()
