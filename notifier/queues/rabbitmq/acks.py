"""Sends the acks of one channel in batches: at 3,000 messages a second one frame acks ten.

Delivery tags of a channel count up from 1. `multiple` acks every tag up to the given tag, so it is used only if all
these are settled. RabbitMQ closes the channel if a tag is acked twice, so each tag is sent once.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import aiormq

from notifier.queues.rabbitmq.connection import CONNECTION_ERRORS

FLUSH_DELAY_SECONDS = 0.003  # during which acks are collected


class AckLedger:
    """Decides which acks to send: settled tags in, frames out, without I/O."""

    __slots__ = ("_ahead", "_fresh", "_next")

    def __init__(self) -> None:
        self._next = 1  # the lowest tag that is not settled
        self._ahead: set[int] = set()  # settled tags above it
        self._fresh: list[int] = []  # settled tags not yet sent

    def settle(self, tag: int) -> bool:
        """Record that `tag` is settled. Return False if it was settled before."""
        if tag < self._next or tag in self._ahead:
            return False
        self._ahead.add(tag)
        self._fresh.append(tag)
        return True

    def take(self) -> list[tuple[int, bool]]:
        """Return the frames to send now, as (tag, multiple): one for the contiguous run, one per other tag."""
        first = self._next
        while self._next in self._ahead:
            self._ahead.remove(self._next)
            self._next += 1
        fresh, self._fresh = self._fresh, []
        if first == self._next:
            return [(tag, False) for tag in fresh]
        # The last unsent tag of the run. `first` is unsent, so there is at least one.
        end = max(tag for tag in fresh if tag < self._next)
        return [(end, True), *((tag, False) for tag in fresh if tag > end)]


class ChannelAcks:
    """The acks of one channel, sent in batches. Once the channel is closed, `settle` has no effect.

    `needs_renewal` is set once `max_set_aside` messages are set aside since the consumer started, if it `may_renew`.
    """

    def __init__(
        self, channel: aiormq.Channel, max_set_aside: float = math.inf, may_renew: Callable[[], bool] = lambda: True
    ) -> None:
        self._channel = channel
        self._ledger = AckLedger()
        self._wake = asyncio.Event()
        self._gone = False
        self._max_set_aside, self._set_aside_count = max_set_aside, 0
        self._may_renew = may_renew
        self.needs_renewal = asyncio.Event()

    def settle(self, tag: int) -> None:
        """Ack the message of this delivery tag with the next batch."""
        if not self._gone and self._ledger.settle(tag):
            self._wake.set()

    def set_aside(self) -> None:
        """Count a message whose ack will be late."""
        self._set_aside_count += 1
        if self._set_aside_count >= self._max_set_aside and self._may_renew():
            self.needs_renewal.set()

    def on_renewed(self) -> None:
        """Record that a new consumer has a free prefetch."""
        self._set_aside_count = 0
        self.needs_renewal.clear()

    def forget(self) -> None:
        """Send no more acks: the channel is closed, and its unacked messages will be redelivered."""
        self._gone = True

    async def run(self) -> None:
        """Send acks in batches, until cancelled or the channel is closed."""
        with suppress(*CONNECTION_ERRORS):
            while True:
                await self._wake.wait()
                await asyncio.sleep(FLUSH_DELAY_SECONDS)
                await self.flush()

    async def flush(self) -> None:
        """Send every pending ack."""
        self._wake.clear()
        for tag, multiple in self._ledger.take():
            await self._channel.basic_ack(tag, multiple=multiple, wait=False)


@dataclass(frozen=True, slots=True)
class AckTag:
    """The `tag` of a message: its delivery tag, and the acks of its channel."""

    acks: ChannelAcks
    number: int
