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
RENEWAL_SHARE = 0.25  # of the prefetch: so many more messages another consumer can take when the consumer is renewed


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

    @property
    def unacked_from(self) -> int:
        """Return the lowest tag that was not acked."""
        return self._next

    def unsettled_count(self, last_tag: int) -> int:
        """Return how many of the tags up to this one are not settled."""
        return last_tag - self._next + 1 - len(self._ahead)

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

    `needs_renewal` is set while another consumer could take so many more messages than the present one, if it
    `may_renew`. The broker counts all unacked messages of a consumer, but none of a former one, against its prefetch.
    """

    def __init__(
        self, channel: aiormq.Channel, prefetch: float = math.inf, may_renew: Callable[[], bool] = lambda: True
    ) -> None:
        self._channel = channel
        self._ledger = AckLedger()
        self._wake = asyncio.Event()
        self._gone = False
        self._prefetch = prefetch
        self._set_aside = set[int]()  # unsettled tags
        self._former_tag = 0  # the last of the former consumers
        self._gain = 0  # how many more messages another consumer could take
        self._may_renew = may_renew
        self.needs_renewal = asyncio.Event()

    def settle(self, tag: int) -> None:
        """Ack the message of this delivery tag with the next batch."""
        if not self._gone and self._ledger.settle(tag):
            self._wake.set()
            is_former, is_set_aside = tag <= self._former_tag, tag in self._set_aside
            if is_former or is_set_aside:
                self._set_aside.discard(tag)
                self._change_gain(is_former - is_set_aside)

    def set_aside(self, tag: int) -> None:
        """Record that the ack of this message will be late."""
        self._set_aside.add(tag)
        self._change_gain(1)

    def _change_gain(self, change: int) -> None:
        self._gain += change
        if self._gain >= RENEWAL_SHARE * self._prefetch and self._may_renew():
            self.needs_renewal.set()
        else:
            self.needs_renewal.clear()

    def start_consumer(self, last_tag: int) -> int:
        """Return the prefetch of another consumer: what the unsettled messages up to `last_tag` leave free.

        Messages that are set aside leave their places free.
        """
        self._former_tag, self._gain = last_tag, 0
        self.needs_renewal.clear()
        return int(max(1, self._prefetch - self._ledger.unsettled_count(last_tag) + len(self._set_aside)))

    @property
    def has_former_consumers(self) -> bool:
        """Return whether messages of former consumers are not acked: the broker still counts such consumers."""
        return self._ledger.unacked_from <= self._former_tag

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
