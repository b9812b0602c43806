"""A publisher's side of the queue, for one who wants to hear what becomes of its events."""

import asyncio
from collections.abc import Callable

from notifier.adapters.queues.rabbitmq.queue import RabbitQueue
from notifier.adapters.queues.sqlite.store import ASKER
from notifier.adapters.queues.sqlite.talk import LOOK_EVERY, take_answers
from notifier.app.ids import new_id
from notifier.app.queue import Queue
from notifier.domain.fate import Told, load_told
from notifier.domain.message import Lane


class Asking:
    """Publishes events and hears what becomes of them.

    To be made before the queue is opened. `listen` in a task of its own, while it is open.
    """

    def __init__(self, queue: Queue, heard: Callable[[Told], None]) -> None:
        self._queue = queue
        self._heard = heard
        self._asker = new_id()
        if isinstance(queue, RabbitQueue):
            queue.ask_for_replies(self._hear)

    async def send_event(
        self, lane: Lane, body: bytes, *, message_id: str | None, content_type: str = "application/json"
    ) -> None:
        """Return once the event is durable. Raises QueueUnavailable."""
        headers = {} if isinstance(self._queue, RabbitQueue) else {ASKER: self._asker}
        await self._queue.send_event(lane, body, message_id=message_id, content_type=content_type, headers=headers)

    async def listen(self) -> None:
        """Until cancelled: RabbitMQ brings what is said, in a file it must be looked for. Raises QueueError."""
        while True:
            await asyncio.sleep(LOOK_EVERY / 2)
            if not isinstance(self._queue, RabbitQueue):
                for body in await take_answers(self._queue, self._asker):
                    self._hear(body)

    def _hear(self, body: bytes) -> None:
        if (told := load_told(body)) is not None:
            self._heard(told)
