"""Delays a message on RabbitMQ by sending it through up to three delay queues.

A delay queue holds every message for the same time, so no message waits behind another with a longer wait. There is a
delay queue for each power of two seconds up to 65,536, and each dead-letters into `retries`. Three passes reach 13 % of
any wait: 45 s become 32, 8 and 4. The remaining passes are in the message's document, `"schedule": {"due": …, "hops":
[8, 4]}`, since any worker may take the message after a pass. `Forwarder` publishes it again. So the pipeline only
receives due messages.
"""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from pydantic_core import from_json, to_json

from notifier.model.backoff import MIN_WAIT_SECONDS, Rounding, deferral_wait, whole_seconds
from notifier.model.errors import QueueUnavailable
from notifier.model.message import Kind, Lane, Message, Outgoing
from notifier.model.moment import Clock
from notifier.queues.queue_port import Inbox

DELAY_QUEUES: Mapping[str, int] = MappingProxyType({f"delay.{2**power}s": 2**power for power in range(17)})
"""The wait in seconds by delay queue (name without prefix)."""

HOP_SECONDS = tuple(DELAY_QUEUES.values())
MAX_HOPS = 3
_TAIL_BYTES = 512  # bytes at the end of a document that contain its schedule
_NO_HOPS = re.compile(rb'"schedule":\{"due":[^][{},]+\}\}\Z')


def split_into_hops(seconds: float, rounding: Rounding = "down") -> tuple[int, ...]:
    """Return the wait as one to three delay queues, longest first: 45 s → (32, 8, 4) down, (32, 16) up."""
    whole = whole_seconds(min(seconds, MAX_HOPS * HOP_SECONDS[-1]), rounding)
    parts: list[int] = []
    while whole > HOP_SECONDS[-1] and len(parts) < MAX_HOPS - 1:
        parts.append(HOP_SECONDS[-1])
        whole -= HOP_SECONDS[-1]
    hops_left = MAX_HOPS - len(parts)
    while rounding == "up" and whole.bit_count() > hops_left and whole < HOP_SECONDS[-1]:
        whole += whole & -whole  # carry the lowest bit: the next larger sum of fewer powers of two
    for _ in range(hops_left):
        if not whole:
            break
        hop = min(1 << (whole.bit_length() - 1), HOP_SECONDS[-1])
        parts.append(hop)
        whole -= hop
    return tuple(parts)


def to_first_pass(message: Outgoing, seconds: float, rounding: Rounding) -> tuple[str, Outgoing]:
    """Return the first delay queue of a message's wait, and the message with the remaining passes.

    A document without a due time cannot contain passes, so it has only one.
    """
    first, *rest = split_into_hops(seconds, rounding)
    if rest and _NO_HOPS.search(message.body, max(0, len(message.body) - _TAIL_BYTES)):
        message = replace(message, body=b'%b,"hops":%b}}' % (message.body[:-2], to_json(rest)))
    elif rest:
        first = deferral_wait(seconds, rounding)
    return f"delay.{first}s", message


def to_next_pass(message: Message, now: float) -> tuple[str, Outgoing] | None:
    """Return the delay queue and the message for the next pass; None if the wait is over.

    The wall clock can only shorten a wait: it is over after the last pass, or if no delay queue can keep it.
    """
    if message.kind not in (Kind.EVENT, Kind.DELIVERY) or b'"hops":[' not in message.body[-_TAIL_BYTES:]:
        return None
    try:
        document = from_json(message.body, allow_inf_nan=False)
        schedule = document["schedule"]
        first, *rest = schedule["hops"]
        seconds_left = schedule["due"] - now
    except (ValueError, TypeError, KeyError):
        return None
    queue = f"delay.{first}s"
    if not MIN_WAIT_SECONDS <= seconds_left < math.inf or queue not in DELAY_QUEUES:
        return None
    document["schedule"] = {**schedule, "hops": rest} if rest else {"due": schedule["due"]}
    body, headers = to_json(document), message.lasting_headers
    again = Outgoing(kind=message.kind, body=body, message_id=message.message_id or "", headers=headers)
    return queue, again


class Forwarder:
    """Wraps the inbox of the retries: forwards messages with further passes, and passes due messages to the inbox.

    A message is acked once its next pass is confirmed. If the ack is lost, it is redelivered and forwarded again.
    """

    def __init__(
        self,
        inbox: Inbox,
        publish: Callable[[str, Outgoing], Awaitable[None]],
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
        """Forward the message or pass it to the inbox; at its delivery limit it is passed and becomes a dead letter."""
        if message.lane is Lane.RETRIES:
            self._on_retry(message)
        waits = message.lane is Lane.RETRIES and not message.at_delivery_limit
        following = to_next_pass(message, self._clock()) if waits else None
        if following is None:
            self._inbox.take(message)
            return
        task = asyncio.get_running_loop().create_task(self._forward(message, *following))
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

    async def _forward(self, message: Message, queue: str, again: Outgoing) -> None:
        while True:
            try:
                await self._publish(queue, again)
            except QueueUnavailable:
                await self._available()
            else:
                self._ack(message)
                return
