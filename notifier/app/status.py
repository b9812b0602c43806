"""How everything stands: what this worker tells of itself, and what is heard when all are asked."""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from notifier import __version__
from notifier.adapters.queues.rabbitmq import administration
from notifier.adapters.queues.rabbitmq.queue import RabbitQueue
from notifier.adapters.queues.sqlite import SqliteOptions, SqliteQueue
from notifier.adapters.queues.sqlite.talk import ask_worker, oldest
from notifier.app.ids import new_id
from notifier.app.queue import Queue, rabbit_options
from notifier.domain.errors import QueueError, QueueUnavailable
from notifier.domain.message import Depth, Lane
from notifier.operations.health import Health
from notifier.operations.status import HeldStands, Status, WorkerStands, clients_of, dump_stands, status_of
from notifier.pipeline.worker import Worker
from notifier.settings import QueueSettings

ASKED_FOR = 2.0  # seconds that workers have to answer
FRESH = 0.5  # seconds for which an answer stands: asked at a hundred times a second, a worker looks twice


class Stands:
    """Tells how this worker stands."""

    def __init__(self, worker: Callable[[], Worker], health: Health, *, draining: Callable[[], bool]) -> None:
        self._worker = worker
        self._health = health
        self._draining = draining
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._since = time.time()
        self._last = (b"", 0.0)
        self.replies_dropped: Callable[[], int] = lambda: 0

    def told(self) -> bytes:
        """As a document. Returns at once."""
        document, at = self._last
        now = time.monotonic()
        if not document or now - at > FRESH:
            document = dump_stands(self._now())
            self._last = (document, now)
        return document

    def _now(self) -> WorkerStands:
        worker = self._worker()
        clients, left_out = clients_of(self._health, worker.circuits, worker.lines)
        return WorkerStands(
            worker=self._name,
            version=__version__,
            since=self._since,
            draining=self._draining(),
            in_flight=worker.in_flight,
            held={
                lane.value: HeldStands(unsettled=len(shelf), oldest=shelf.oldest)
                for lane, shelf in worker.shelves.items()
            },
            rates=self._health.rates(),
            clients=clients,
            left_out=left_out,
            replies_dropped=self.replies_dropped(),
        )


async def look_from_worker(queue: Queue, own: Callable[[], bytes]) -> Status:
    """As a worker sees it, that asks the others. While the queue is away, of itself alone."""
    depths: dict[str, Depth] = {}
    answers: list[bytes] = []
    since: dict[str, float] = {}
    with suppress(QueueError):
        depths = dict(await queue.depths())
        if isinstance(queue, RabbitQueue):
            answers = await queue.talk.ask(ASKED_FOR, depths[Lane.EVENTS].consumers if Lane.EVENTS in depths else 1)
        else:
            since = dict(await oldest(queue))
    return status_of(depths, answers or [own()], now=time.time(), oldest=since)


async def look_around(settings: QueueSettings) -> Status:
    """As the command line sees it. Raises QueueError."""
    if settings.sqlite_file is None:
        depths, answers = await administration.look_around(rabbit_options(settings), within=ASKED_FOR)
        return status_of(depths, answers, now=time.time())
    if not settings.sqlite_file.exists():
        raise QueueUnavailable(f"there is no queue file {settings.sqlite_file} yet; a worker or a publisher makes it")
    queue = SqliteQueue(SqliteOptions(path=settings.sqlite_file))
    await queue.open()
    try:
        await queue.ready()
        depths = await queue.depths()
        answer = None
        if depths[Lane.EVENTS].consumers:
            answer = await ask_worker(queue, new_id(), now=time.time(), within=ASKED_FOR)
        since = await oldest(queue)
        return status_of(depths, [] if answer is None else [answer], now=time.time(), oldest=since)
    finally:
        await queue.close()
