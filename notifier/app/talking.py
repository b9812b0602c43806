"""What this worker says beside the logouts: replies to publishers who asked, and how it stands to who asks for that."""

import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial

from notifier.adapters.queues.rabbitmq.queue import RabbitQueue
from notifier.adapters.queues.rabbitmq.talk import Listener
from notifier.adapters.queues.sqlite import SqliteQueue
from notifier.app.ids import new_id
from notifier.app.queue import Queue
from notifier.domain.fate import Told, dump_told, load_told
from notifier.domain.reply import ReplyTo
from notifier.operations.fates import Fates
from notifier.operations.waiting import Waits

HERE = "here"  # the address of those who wait over HTTP, where the queue is this process's alone


class Talking:
    """Sends replies to publishers, and tells whoever asks how this worker stands.

    `stands` tells how this worker stands; `waits` are those who wait here over HTTP.
    """

    def __init__(self, queue: Queue, stands: Callable[[], bytes]) -> None:
        self._queue = queue
        self._stands = stands
        to = queue.talk.address if isinstance(queue, RabbitQueue) else HERE
        self.waits = Waits(to, clock=time.time, new_id=new_id)
        self.observe = Fates(self._reply).observe
        if isinstance(queue, RabbitQueue):
            queue.talk.listen(Listener(answer=stands, heard=self._heard))

    def around(self) -> Iterator[Callable[[], Coroutine[object, object, None]]]:
        """What is to run beside the worker."""
        if isinstance(self._queue, SqliteQueue):
            yield partial(self._queue.talk.run, self._stands)

    def _reply(self, asked: ReplyTo, told: Told) -> None:
        if not self.waits.heard(asked.correlation_id, told):
            self._queue.talk.reply(asked.to, asked.correlation_id, dump_told(told))

    def _heard(self, correlation_id: str, body: bytes) -> None:
        """From another worker, of an event that was published here."""
        if (told := load_told(body)) is not None:
            self.waits.heard(correlation_id, told)
