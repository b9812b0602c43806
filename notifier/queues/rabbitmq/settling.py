"""Waits until a new queue would survive a crash of the broker.

RabbitMQ (3.10 to 4.x) keeps the names of quorum queues in a file, `names.dets`. A declared name is written to it 0.5 to
1.0 s after the broker has confirmed the declare. If the broker is killed before that, it does not find the name at its
next start, and creates the queue again: all confirmed messages are lost. On a single node the queue never elects a
leader either: it confirms and delivers nothing.
"""

import asyncio
import math
from collections.abc import Callable, Sequence

import structlog

from notifier.model.errors import QueueUnavailable

SETTLE_SECONDS = 2.0  # twice the longest measured time: docs/decisions/new-queues-settle.md
NEW_QUEUES_PROBLEM = "queues are new; they are used once RabbitMQ has written their names to its disk"

OnNewQueues = Callable[[Sequence[str], float], None]
"""Called with the names of the new queues, and the seconds until they are used."""


def log_new_queues(names: Sequence[str], seconds: float) -> None:
    """Log the number of new queues, and why they are not used yet."""
    log = structlog.get_logger(__name__)
    log.info("queues_new", queues=len(names), used_in=round(seconds, 1), reason=NEW_QUEUES_PROBLEM)


class Settling:
    """Records which queues are too new to be used."""

    def __init__(self, on_new_queues: OnNewQueues = log_new_queues, *, seconds: float | None = None) -> None:
        self._on_new_queues = on_new_queues
        self._seconds = SETTLE_SECONDS if seconds is None else seconds
        self._usable_at: dict[str, float] = {}  # new queues by name, in the loop's time

    def on_missing(self, name: str) -> None:
        """Record that this queue will be created. It is too new until `wait_until_usable` returns."""
        self._usable_at[name] = math.inf

    def on_declared(self, name: str) -> None:
        """Record that this queue exists. If it was missing, its waiting time starts."""
        if self._usable_at.get(name) == math.inf:
            self._usable_at[name] = asyncio.get_running_loop().time() + self._seconds

    def check(self, name: str) -> None:
        """Raise QueueUnavailable if this queue is too new."""
        if name in self._usable_at and self._usable_at[name] > asyncio.get_running_loop().time():
            raise QueueUnavailable(NEW_QUEUES_PROBLEM)

    @property
    def problem(self) -> str | None:
        """Return the reason for the wait, or None."""
        now = asyncio.get_running_loop().time()
        return NEW_QUEUES_PROBLEM if any(now < at < math.inf for at in self._usable_at.values()) else None

    async def wait_until_usable(self) -> None:
        """Return once no queue is too new; at once if none was missing."""
        latest = max((at for at in self._usable_at.values() if at < math.inf), default=0.0)
        if (seconds := latest - asyncio.get_running_loop().time()) > 0:
            self._on_new_queues(list(self._usable_at), seconds)
            await asyncio.sleep(seconds)
        self._usable_at.clear()
