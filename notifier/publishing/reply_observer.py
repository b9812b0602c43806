"""Replies to publishers that requested the results of their events, and passes replies on to waiting requests."""

from collections.abc import Callable

from notifier.delivery.facts import (
    DeadLettered,
    Deferred,
    EventTaken,
    Fact,
    FactHandlers,
    LogoutDelivered,
    RetryScheduled,
    Skipped,
    notice_of,
)
from notifier.model.moment import Clock
from notifier.model.reply import ReplyTo
from notifier.publishing.notice_wait import WaitingRequests, dump_reply, load_reply
from notifier.queues.queue_port import SideChannel


class ReplyObserver:
    """Sends the replies of one worker. `waiting` are its HTTP requests that wait for replies."""

    def __init__(self, side_channel: SideChannel, *, clock: Clock, new_id: Callable[[], str]) -> None:
        self._side_channel = side_channel
        self.waiting = WaitingRequests(side_channel.address, clock=clock, new_id=new_id)
        self.observe = FactHandlers(
            {
                LogoutDelivered: self._on_delivery,
                RetryScheduled: self._on_delivery,
                EventTaken: self._on_event,
                Deferred: self._on_event,
                DeadLettered: self._on_event,
                Skipped: self._on_event,
            }
        )
        """Send a reply if the publisher requested it and the fact has a notice."""

    def _on_delivery(self, fact: LogoutDelivered | RetryScheduled) -> None:
        if (asked := fact.delivery.reply_to) is not None:
            self._reply(asked, fact)

    def _on_event(self, fact: EventTaken | Deferred | DeadLettered | Skipped) -> None:
        if (asked := fact.reply_to) is not None:
            self._reply(asked, fact)

    def _reply(self, asked: ReplyTo, fact: Fact) -> None:
        if (notice := notice_of(fact)) is None:
            return
        if not self.waiting.on_notice(asked.correlation_id, notice):
            self._side_channel.reply(asked.to, asked.correlation_id, dump_reply(notice))

    def on_reply(self, correlation_id: str, body: bytes) -> None:
        """Pass on the reply of another worker to an event that was published here."""
        if (notice := load_reply(body)) is not None:
            self.waiting.on_notice(correlation_id, notice)
