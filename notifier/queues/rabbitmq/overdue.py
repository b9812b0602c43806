"""Moves messages that are stuck in delay queues because the broker's clock was set back.

The expiry of a quorum queue follows the wall clock of its node, and only the message at the head expires. After a
restart with the clock set back an hour, older messages stay an hour longer, and so do all behind them (measured on
3.10.8 and 4.0.5). This worker records by a monotonic clock when its messages should leave each delay queue. If they are
OVERDUE_SECONDS late, and the queue delivered nothing meanwhile, it passes over the queue and moves the messages that
are overdue by their document to `retries`.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

import structlog
from pydantic_core import from_json

from notifier.model.errors import QueueError
from notifier.model.message import PARKED, Kind, Lane, Message, MessageDraft, Transfer
from notifier.model.moment import Clock
from notifier.model.record import copy_record
from notifier.queues.passes import ReadMessage
from notifier.queues.rabbitmq.connection import is_cancelled
from notifier.queues.rabbitmq.delays import DELAY_QUEUES
from notifier.queues.rabbitmq.waiting import RabbitWaiting

OVERDUE_SECONDS = 30.0
CHECK_INTERVAL_SECONDS = 5.0
MAX_PAUSE_SECONDS = 1024.0  # between two passes that moved nothing
HELP = "notifier explain NotifierDelaysStuck"
_SCHEDULE = re.compile(rb'"schedule":(\{[^{}]{1,200}\})\}$')


class OverdueDelays:
    """Detects delay queues that do not deliver due messages, and moves these messages. `moved` counts them.

    `_first` and `_last`: by queue, when the first and the last message that this worker recorded should leave it, by
    the monotonic clock. `_pause`: the seconds until a queue is examined again.
    """

    def __init__(
        self,
        waiting: Callable[[], RabbitWaiting],
        is_empty: Callable[[str], Awaitable[bool]],
        clock: Clock,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self._waiting = waiting
        self._is_empty = is_empty
        self._clock = clock
        self._monotonic = monotonic
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._pause: dict[str, float] = {}
        self._log = structlog.get_logger(__name__)
        self.moved = 0

    def on_published(self, queue: str) -> None:
        """Record that a message was published to this queue, if it is a delay queue."""
        if (delay_seconds := DELAY_QUEUES.get(queue)) is not None:
            self._last[queue] = leaves_at = self._monotonic() + delay_seconds
            self._first.setdefault(queue, leaves_at)

    def on_received(self, message: Message) -> None:
        """Record that the delay queue from which this message came, if any, delivers messages."""
        deaths = message.headers.get("x-death")
        newest = deaths[0] if isinstance(deaths, list) and deaths else None
        queue = str(newest.get("queue")) if isinstance(newest, dict) else ""
        prefix, _, delay = queue.rpartition(".delay.")
        name = f"delay.{delay}"
        if name not in self._first or f".{PARKED}-" in prefix:
            return
        self._pause.pop(name, None)
        last_leaves_at = self._last[name]
        if last_leaves_at > self._monotonic():
            self._first[name] = last_leaves_at
        else:
            del self._first[name], self._last[name]

    async def run(self) -> None:
        """Check every few seconds, until cancelled."""
        while not is_cancelled():
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
            for queue in self.find_missed():
                await self._move_overdue(queue)

    def find_missed(self) -> list[str]:
        """Return the delay queues that delivered no message although one is overdue."""
        return [queue for queue, leaves_at in self._first.items() if self._monotonic() > leaves_at + OVERDUE_SECONDS]

    async def _move_overdue(self, queue: str) -> None:
        """Move the overdue messages of this queue to the retries, and plan its next examination. Never raises."""
        moved = remaining = 0
        try:
            if await self._is_empty(queue):  # another worker received the message
                self._first.pop(queue, None)
                return
            async with self._waiting().open_pass(self.read, parked=False, only=queue) as queue_pass:
                while page := await queue_pass.next_page():
                    overdue = [entry.message for entry in page if entry.summary]
                    remaining += len(page) - len(overdue)
                    if overdue:
                        moved += len((await queue_pass.move([_to_transfer(message) for message in overdue])).done)
        except QueueError as error:
            remaining += 1  # unknown whether one remains: examine the queue again
            self._log.info("delays_not_looked_at", queue=queue, reason=str(error))
        self.moved += moved
        if moved:
            self._log.warning("delays_stuck", queue=queue, moved=moved, help=HELP)
        if not moved and not remaining:
            self._first.pop(queue, None)
            return
        pause = 0.0 if moved else min(MAX_PAUSE_SECONDS, 2 * self._pause.get(queue, OVERDUE_SECONDS))
        self._pause[queue] = pause
        # So `find_missed` returns the queue after the pause.
        self._first[queue] = self._monotonic() + pause - OVERDUE_SECONDS + CHECK_INTERVAL_SECONDS
        self._last.setdefault(queue, self._first[queue])

    def read(self, message: Message) -> ReadMessage[bool]:
        """Return the message, with its body only if it is overdue."""
        overdue = (
            message.kind in (Kind.EVENT, Kind.DELIVERY) and _read_due(message.body) + OVERDUE_SECONDS < self._clock()
        )
        return ReadMessage(message=message if overdue else copy_record(message, body=b""), summary=overdue or None)


def _read_due(body: bytes) -> float:
    """Return when the message is due, in epoch seconds; infinity if its document has no due time."""
    try:
        schedule = _SCHEDULE.search(body, max(0, len(body) - 250))  # it is at the end of the document
        return float("inf") if schedule is None else float(from_json(schedule[1])["due"])
    except (ValueError, TypeError, KeyError):
        return float("inf")


def _to_transfer(message: Message) -> Transfer:
    assert message.kind is not None
    outgoing = MessageDraft(
        kind=message.kind, body=message.body, message_id=message.message_id or "", headers=message.lasting_headers
    )
    return Transfer(taken=message, queue=Lane.RETRIES, outgoing=outgoing)
