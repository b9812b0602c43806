"""Has a message wait on RabbitMQ, by sending it through up to three delay queues.

A delay queue holds every message for the same time, so that none waits behind one with a longer wait. There is a delay
queue for each power of two seconds up to 65,536, and each hands its messages on to `retries`. Three passes come within
13 % of any wait: 45 s become 32, 8 and 4. The passes that are left stand in the message's document, `"schedule":
{"due": …, "hops": [8, 4]}`, since any worker may take the message after a pass. `Forwarder` publishes it again. So the
pipeline gets only messages that are due.
"""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from pydantic_core import from_json, to_json

from notifier.model.backoff import SOON, Rounding, deferral_wait, whole_seconds
from notifier.model.errors import QueueUnavailable
from notifier.model.message import Kind, Lane, Message, Outgoing
from notifier.model.moment import Clock
from notifier.queues.queue_port import Inbox

DELAY_QUEUES: Mapping[str, int] = MappingProxyType({f"delay.{2**power}s": 2**power for power in range(17)})
"""The seconds that a message waits in each delay queue, by the queue's name without prefix."""

HOPS = tuple(DELAY_QUEUES.values())
MOST_HOPS = 3
_TAIL = 512  # bytes at a document's end in which its schedule stands
_NO_HOPS = re.compile(rb'"schedule":\{"due":[^][{},]+\}\}\Z')


def hops(seconds: float, rounding: Rounding = "down") -> tuple[int, ...]:
    """Return the wait as one to three delay queues, longest first: 45 s → (32, 8, 4) down, (32, 16) up."""
    whole = whole_seconds(min(seconds, MOST_HOPS * HOPS[-1]), rounding)
    parts: list[int] = []
    while whole > HOPS[-1] and len(parts) < MOST_HOPS - 1:
        parts.append(HOPS[-1])
        whole -= HOPS[-1]
    hops_left = MOST_HOPS - len(parts)
    while rounding == "up" and whole.bit_count() > hops_left and whole < HOPS[-1]:
        whole += whole & -whole  # clears the lowest bit upwards: the next sum that needs fewer powers of two
    for _ in range(hops_left):
        if not whole:
            break
        hop = min(1 << (whole.bit_length() - 1), HOPS[-1])
        parts.append(hop)
        whole -= hop
    return tuple(parts)


def first_pass(message: Outgoing, seconds: float, rounding: Rounding) -> tuple[str, Outgoing]:
    """Return the delay queue in which a message begins its wait, and the message with the passes that follow.

    A document that does not say its due time cannot say its passes either: it has one pass.
    """
    first, *rest = hops(seconds, rounding)
    if rest and _NO_HOPS.search(message.body, max(0, len(message.body) - _TAIL)):
        message = replace(message, body=b'%b,"hops":%b}}' % (message.body[:-2], to_json(rest)))
    elif rest:
        first = deferral_wait(seconds, rounding)
    return f"delay.{first}s", message


def next_pass(message: Message, now: float) -> tuple[str, Outgoing] | None:
    """Return the delay queue that a message has to pass next, after one; None if its wait is over.

    The wall clock may only shorten a wait: after the last pass it is over. A wait that no queue could keep is over,
    too.
    """
    if message.kind not in (Kind.EVENT, Kind.DELIVERY) or b'"hops":[' not in message.body[-_TAIL:]:
        return None
    try:
        document = from_json(message.body, allow_inf_nan=False)
        schedule = document["schedule"]
        first, *rest = schedule["hops"]
        seconds_left = schedule["due"] - now
    except (ValueError, TypeError, KeyError):
        return None
    queue = f"delay.{first}s"
    if not SOON <= seconds_left < math.inf or queue not in DELAY_QUEUES:
        return None
    document["schedule"] = {**schedule, "hops": rest} if rest else {"due": schedule["due"]}
    body, headers = to_json(document), message.lasting_headers
    again = Outgoing(kind=message.kind, body=body, message_id=message.message_id or "", headers=headers)
    return queue, again


class Forwarder:
    """Stands before the inbox of the retries, and forwards what still has to wait. What is due goes into the inbox.

    A message is acked once its next pass is confirmed. One whose ack is lost comes again, and is forwarded again.
    """

    def __init__(
        self,
        inbox: Inbox,
        publish: Callable[[str, Outgoing], Awaitable[None]],
        available: Callable[[], Awaitable[None]],
        ack: Callable[[Message], None],
        clock: Clock,
        came: Callable[[Message], None] = lambda _: None,
    ) -> None:
        self._inbox = inbox
        self._came = came
        self._publish = publish
        self._available = available
        self._ack = ack
        self._clock = clock
        self._forwarding: set[asyncio.Task[None]] = set()

    def take(self, message: Message) -> None:
        """Forward the message, or put it into the inbox. One that is worn out must be buried, due or not."""
        if message.lane is Lane.RETRIES:
            self._came(message)
        waits = message.lane is Lane.RETRIES and not message.worn_out
        following = next_pass(message, self._clock()) if waits else None
        if following is None:
            self._inbox.take(message)
            return
        task = asyncio.get_running_loop().create_task(self._forward(message, *following))
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)

    def lost(self, lane: Lane, source: str | None = None) -> None:
        """Forget what is forwarded now, if it comes again: each lane has a channel of its own."""
        if lane is Lane.RETRIES:
            self.stop()
        self._inbox.lost(lane, source)

    def stop(self) -> None:
        """Forward no more. What has no confirm yet goes back to the broker."""
        for task in self._forwarding:
            task.cancel()

    async def _forward(self, message: Message, queue: str, again: Outgoing) -> None:
        while True:
            try:
                await self._publish(queue, again)
            except QueueUnavailable:
                await self._available()
            else:
                self._ack(message)
                return
