"""Moves messages that are stuck in delay queues because the broker's clock was set back.

The expiry of a quorum queue follows the wall clock of its node, and only the message at the head expires. After a
restart with the clock set back an hour, older messages stay an hour longer, and so do all behind them (measured on
3.10.8 and 4.0.5). This worker records by a monotonic clock when its messages should leave each delay queue. If they are
OVERDUE_SECONDS late, and the queue delivered nothing meanwhile, it visits the queue and moves the messages that are
overdue by their document to `retries`.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

import structlog
from pydantic_core import from_json

from notifier.model.errors import QueueError
from notifier.model.frozen import replace
from notifier.model.message import PARKED, Kind, Lane, Message, Outgoing, Transfer
from notifier.model.moment import Clock
from notifier.queues.passes import VisitedMessage
from notifier.queues.rabbitmq.connection import is_cancelled
from notifier.queues.rabbitmq.delays import DELAY_QUEUES
from notifier.queues.rabbitmq.waiting import RabbitWaiting

OVERDUE_SECONDS = 30.0
CHECK_INTERVAL_SECONDS = 5.0
MAX_PAUSE_SECONDS = 1024.0  # between two visits that moved nothing
HELP = "notifier explain NotifierDelaysStuck"
_SCHEDULE = re.compile(rb'"schedule":(\{[^{}]{1,200}\})\}$')


class OverdueDelays:
    """The messages that this worker expects from each delay queue. `moved` counts the moved messages."""

    def __init__(
        self,
        waiting: Callable[[], RabbitWaiting],
        is_empty: Callable[[str], Awaitable[bool]],
        clock: Clock,
        steady: Clock = time.monotonic,
    ) -> None:
        self._waiting = waiting
        self._is_empty = is_empty
        self._clock = clock
        self._steady = steady
        self._first: dict[str, float] = {}  # when the first recorded message should have left the queue
        self._last: dict[str, float] = {}
        self._pause: dict[str, float] = {}
        self._log = structlog.get_logger(__name__)
        self.moved = 0

    def on_published(self, queue: str) -> None:
        """Record a message that was published to this queue. Only delay queues count."""
        if (hop := DELAY_QUEUES.get(queue)) is not None:
            self._last[queue] = leaves = self._steady() + hop
            self._first.setdefault(queue, leaves)

    def on_received(self, message: Message) -> None:
        """Record a message that was received, perhaps from a delay queue."""
        deaths = message.headers.get("x-death")
        newest = deaths[0] if isinstance(deaths, list) and deaths else None
        queue = str(newest.get("queue")) if isinstance(newest, dict) else ""
        before, _, hop = queue.rpartition(".delay.")
        name = f"delay.{hop}"
        if name not in self._first or f".{PARKED}-" in before:
            return
        self._pause.pop(name, None)
        if (last := self._last[name]) > self._steady():
            self._first[name] = last
        else:
            del self._first[name], self._last[name]

    async def run(self) -> None:
        """Check every few seconds, until cancelled."""
        while not is_cancelled():
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
            for queue in self.find_missed():
                await self._move_overdue(queue)

    def find_missed(self) -> list[str]:
        """Return the delay queues with overdue messages that delivered nothing."""
        return [queue for queue, leaves in self._first.items() if self._steady() > leaves + OVERDUE_SECONDS]

    async def _move_overdue(self, queue: str) -> None:
        """Move the overdue messages of this queue. Never raises."""
        moved = left = 0
        try:
            if await self._is_empty(queue):  # another worker received the message
                self._first.pop(queue, None)
                return
            async with self._waiting().visit(self.read, parked=False, only=queue) as walk:
                while page := await walk.next_page():
                    overdue = [found.message for found in page if found.summary]
                    left += len(page) - len(overdue)
                    if overdue:
                        moved += len((await walk.move([_to_transfer(message) for message in overdue])).done)
        except QueueError as error:
            left += 1
            self._log.info("delays_not_looked_at", queue=queue, reason=str(error))
        self.moved += moved
        if moved:
            self._log.warning("delays_stuck", queue=queue, moved=moved, help=HELP)
        if not moved and not left:
            self._first.pop(queue, None)
            return
        pause = 0.0 if moved else min(MAX_PAUSE_SECONDS, 2 * self._pause.get(queue, OVERDUE_SECONDS))
        self._pause[queue] = pause
        self._first[queue] = self._steady() + pause - OVERDUE_SECONDS + CHECK_INTERVAL_SECONDS
        self._last.setdefault(queue, self._first[queue])

    def read(self, message: Message) -> VisitedMessage[bool]:
        """Return the message, with its body only if it is overdue."""
        overdue = (
            message.kind in (Kind.EVENT, Kind.DELIVERY) and _read_due(message.body) + OVERDUE_SECONDS < self._clock()
        )
        return VisitedMessage(message=message if overdue else replace(message, body=b""), summary=overdue or None)


def _read_due(body: bytes) -> float:
    """Return when the message is due, or infinity if its document has no due time."""
    try:
        found = _SCHEDULE.search(body, max(0, len(body) - 250))
        return float("inf") if found is None else float(from_json(found[1])["due"])
    except (ValueError, TypeError, KeyError):
        return float("inf")


def _to_transfer(message: Message) -> Transfer:
    assert message.kind is not None
    outgoing = Outgoing(
        kind=message.kind, body=message.body, message_id=message.message_id or "", headers=message.lasting_headers
    )
    return Transfer(taken=message, queue=Lane.RETRIES, outgoing=outgoing)
