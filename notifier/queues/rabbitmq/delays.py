"""Delays a message on RabbitMQ by sending it through up to three delay queues.

A delay queue holds every message for the same time, so no message waits behind another with a longer wait. There is a
delay queue for each power of two seconds up to 65,536, and each dead-letters into `retries`. Three hops reach 13 % of
any wait: 45 s become 32, 8 and 4. The remaining hops are in the message's document, `"schedule": {"due": …, "hops":
[8, 4]}`, since any worker may take the message after a hop. `Forwarder` publishes it again. So the pipeline only
receives due messages.

If a delay queue takes nothing, messages go to a *neighbour*: a delay queue of an eighth, half, two or eight times the
delay. With a shorter one, the rest of the delay becomes hops, so that the wait is the same. The publishes to a delay
queue and to its neighbours use different channels, since a queue that does not answer may block its channel.
"""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace

from pydantic_core import from_json, to_json

from notifier.model.backoff import MIN_WAIT_SECONDS, Rounding, deferral_wait, whole_seconds
from notifier.model.errors import OneQueueUnavailable, QueueFull, QueueUnavailable
from notifier.model.message import Kind, Lane, Message, MessageDraft
from notifier.model.moment import Clock
from notifier.queues.queue_port import Inbox

DELAY_QUEUES: Mapping[str, int] = {f"delay.{2**power}s": 2**power for power in range(17)}
"""The wait in seconds by delay queue (name without prefix)."""

HOP_SECONDS = tuple(DELAY_QUEUES.values())
MAX_HOPS = 3
# Powers of two by which the delays of neighbours differ: odd, since the parity of its power decides a queue's channel.
NEIGHBOUR_POWERS = (1, 3)
_TAIL_BYTES = 512  # bytes at the end of a document that contain its schedule
_SCHEDULE = re.compile(rb'("schedule":\{"due":[^][{},]+)(?:,"hops":\[([0-9,]+)\])?\}\}\Z')
_NO_HOPS = re.compile(rb'"schedule":\{"due":[^][{},]+\}\}\Z')


def split_into_hops(seconds: float, rounding: Rounding = "down") -> tuple[int, ...]:
    """Return the delays in seconds of the one to three delay queues of a wait, longest first.

    45 s are (32, 8, 4) if rounded down, and (32, 16) if rounded up.
    """
    seconds_left = whole_seconds(min(seconds, MAX_HOPS * HOP_SECONDS[-1]), rounding)
    hops: list[int] = []
    while seconds_left > HOP_SECONDS[-1] and len(hops) < MAX_HOPS - 1:
        hops.append(HOP_SECONDS[-1])
        seconds_left -= HOP_SECONDS[-1]
    hops_left = MAX_HOPS - len(hops)
    while rounding == "up" and seconds_left.bit_count() > hops_left and seconds_left < HOP_SECONDS[-1]:
        seconds_left += seconds_left & -seconds_left  # round up to a sum of fewer powers of two
    for _ in range(hops_left):
        if not seconds_left:
            break
        hop = min(1 << (seconds_left.bit_length() - 1), HOP_SECONDS[-1])
        hops.append(hop)
        seconds_left -= hop
    return tuple(hops)


def to_first_hop(message: MessageDraft, seconds: float, rounding: Rounding) -> tuple[str, MessageDraft]:
    """Return the first delay queue of a message's wait, and the message that contains the remaining delays.

    A document without a due time cannot contain delays, so its wait has a single delay queue.
    """
    first, *remaining = split_into_hops(seconds, rounding)
    if remaining and _NO_HOPS.search(message.body, max(0, len(message.body) - _TAIL_BYTES)):
        message = replace(message, body=b'%b,"hops":%b}}' % (message.body[:-2], to_json(remaining)))
    elif remaining:
        first = deferral_wait(seconds, rounding)
    return f"delay.{first}s", message


def to_next_hop(message: Message, now: float) -> tuple[str, MessageDraft] | None:
    """Return the next delay queue of a message that left one, and the message for it; None if the wait is over.

    The wait is over after the last delay, and also if the message is due by the wall clock.
    """
    if message.kind not in (Kind.EVENT, Kind.DELIVERY) or b'"hops":[' not in message.body[-_TAIL_BYTES:]:
        return None
    try:
        document = from_json(message.body, allow_inf_nan=False)
        schedule = document["schedule"]
        first, *remaining = schedule["hops"]
        seconds_left = schedule["due"] - now
    except (ValueError, TypeError, KeyError):
        return None
    queue = f"delay.{first}s"
    if not MIN_WAIT_SECONDS <= seconds_left < math.inf or queue not in DELAY_QUEUES:
        return None
    document["schedule"] = {**schedule, "hops": remaining} if remaining else {"due": schedule["due"]}
    body, headers = to_json(document), message.lasting_headers
    return queue, MessageDraft(kind=message.kind, body=body, message_id=message.message_id or "", headers=headers)


def find_neighbours(queue: str, message: MessageDraft) -> Iterator[tuple[str, MessageDraft]]:
    """Yield the neighbours of this delay queue, each with the message for it: those with a shorter delay first.

    A document without a due time cannot contain the rest of a delay, so it gets none of these.
    """
    seconds, body = DELAY_QUEUES[queue], message.body
    is_own = message.kind in (Kind.EVENT, Kind.DELIVERY)  # other bodies are those of publishers
    if is_own and (schedule := _SCHEDULE.search(body, max(0, len(body) - _TAIL_BYTES))) is not None:
        start = body[: schedule.start()] + schedule[1]
        for power in NEIGHBOUR_POWERS:
            if first := seconds >> power:
                hops = [str(first << doublings).encode() for doublings in range(power)]
                rest = b",".join(hops if schedule[2] is None else [*hops, schedule[2]])
                yield f"delay.{first}s", replace(message, body=b'%b,"hops":[%b]}}' % (start, rest))
    for power in NEIGHBOUR_POWERS:
        if (longer := f"delay.{seconds << power}s") in DELAY_QUEUES:
            yield longer, message


async def publish_delayed(
    publish: Callable[[str, MessageDraft], Awaitable[None]], queue: str, message: MessageDraft
) -> None:
    """Return once the message is durable in this delay queue or a neighbour. Raises QueueUnavailable.

    If a neighbour does not confirm it, no other is tried: each would deliver a copy later.
    """
    try:
        return await publish(queue, message)
    except OneQueueUnavailable as error:
        refused = error
    for neighbour, copy in find_neighbours(queue, message):
        try:
            return await publish(neighbour, copy)
        except QueueFull:
            continue
        except OneQueueUnavailable:
            break
    raise QueueUnavailable(str(refused)) from refused


class Forwarder:
    """An inbox before the worker's: publishes retries with remaining delays to the next delay queue, passes others on.

    `on_retry` gets each retry, forwarded or not. A message is acked once its copy in the next delay queue is confirmed.
    If the ack is lost, the message is redelivered and forwarded again.
    """

    def __init__(
        self,
        inbox: Inbox,
        publish: Callable[[str, MessageDraft], Awaitable[None]],
        available: Callable[[], Awaitable[None]],
        ack: Callable[[Message], None],
        clock: Clock,
        on_retry: Callable[[Message], None] = lambda _: None,
    ) -> None:
        self._inbox = inbox
        self._on_retry = on_retry
        self._publish = publish
        self._available = available
        self._ack = ack
        self._clock = clock
        self._forwarding: set[asyncio.Task[None]] = set()

    def take(self, message: Message) -> None:
        """Forward the message if its wait is not over; otherwise pass it to the inbox.

        A message at its delivery limit is passed on, too, so that the worker dead-letters it.
        """
        if message.lane is Lane.RETRIES:
            self._on_retry(message)
        may_wait = message.lane is Lane.RETRIES and not message.at_delivery_limit
        next_hop = to_next_hop(message, self._clock()) if may_wait else None
        if next_hop is None:
            self._inbox.take(message)
            return
        task = asyncio.get_running_loop().create_task(self._forward(message, *next_hop))
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)

    def on_lost(self, lane: Lane, source: str | None = None) -> None:
        """Stop forwarding the messages of a lost channel, which are redelivered. Each lane has a separate channel."""
        if lane is Lane.RETRIES:
            self.stop()
        self._inbox.on_lost(lane, source)

    def stop(self) -> None:
        """Stop forwarding. Messages whose publish is unconfirmed return to the broker."""
        for task in self._forwarding:
            task.cancel()

    async def _forward(self, message: Message, queue: str, copy: MessageDraft) -> None:
        """Publish the copy to the delay queue, and then ack the message."""
        while True:
            try:
                await publish_delayed(self._publish, queue, copy)
            except QueueUnavailable:
                await self._available()
            else:
                self._ack(message)
                return
