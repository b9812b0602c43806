"""Settles deliveries: makes each verdict durable as a retry, a deferral or a dead letter that the queue confirms.

No fact is reported, and no message is acked, before the queue has confirmed. While the queue is unavailable, deliveries
stay in memory; the worker's window bounds their number. A deferral is given up once it is due, since the delivery can
then be attempted without the queue.
"""

import asyncio
from collections.abc import Iterable
from itertools import islice

from notifier.delivery import facts
from notifier.delivery.replacements import OutgoingMessage, to_dead_letter_message
from notifier.delivery.verdict import Dead, Defer, RetryAt, WaitKind, queue_delay
from notifier.model.backoff import MIN_WAIT_SECONDS
from notifier.model.delivery import Delivery
from notifier.model.documents import dead_letter, documents
from notifier.model.errors import QueueUnavailable
from notifier.model.message import MAX_PARKED_SECONDS, Kind, Message, MessageDraft, crash_headers
from notifier.model.moment import Clock
from notifier.model.record import copy_record
from notifier.queues.queue_port import WorkerQueue

MIN_TRY_SECONDS = 1.0  # for which a deferral is tried at least: a thousand deferrals must not block the event loop
BATCH_MESSAGES = 16  # messages made and confirmed together: making more at once would block the event loop


class Settlement:
    """Publishes what verdicts require, and reports it."""

    def __init__(self, queue: WorkerQueue, *, clock: Clock, observe: facts.Observer) -> None:
        self._queue = queue
        self._clock = clock
        self._observe = observe

    async def settle(self, delivery: Delivery, verdict: RetryAt | Defer | Dead, message: Message) -> bool:
        """Return True once the verdict is durable; False if a deferral became due before that.

        A deferral keeps the crash count of the delivery's `message`; a retry follows an ended attempt and resets it.
        """
        now = self._clock()
        match verdict:
            case RetryAt():
                await self.send(self._to_outgoing(delivery, verdict, now, crashes=0))
                self._observe(facts.RetryScheduled(delivery=delivery, due=verdict.due))
            case Defer():
                outgoing = self._to_outgoing(delivery, verdict, now, message.crashes)
                if not await self.send(outgoing, max_seconds=max(MIN_TRY_SECONDS, verdict.due - now)):
                    return False
                deferred = facts.Deferred(
                    iss=delivery.iss, client_id=delivery.client_id, event_id=delivery.event_id, cause=verdict.cause,
                    due=verdict.due, text=verdict.text, delivery=delivery, reply_to=delivery.reply_to,
                )  # fmt: skip
                self._observe(deferred)
            case Dead():
                letter = dead_letter.dead_letter_delivery(delivery, verdict.reason, verdict.text, now)
                await self.send_all((to_dead_letter_message(letter, delivery.reply_to, delivery),))
        return True

    async def send_all(self, messages: Iterable[OutgoingMessage]) -> None:
        """Return once all are durable. The messages are made in batches, so a large event is never whole in memory."""
        remaining = iter(messages)
        while batch := list(islice(remaining, BATCH_MESSAGES)):
            await asyncio.gather(*(self.send(outgoing) for outgoing in batch))
            for fact in (outgoing.fact for outgoing in batch if outgoing.fact is not None):
                self._observe(fact)

    async def send(self, outgoing: OutgoingMessage, *, max_seconds: float | None = None) -> bool:
        """Return True once the message is durable; False if the queue is unavailable for `max_seconds` seconds."""
        deadline = None if max_seconds is None else asyncio.get_running_loop().time() + max_seconds
        while True:
            try:
                if outgoing.bucket is not None and outgoing.due is not None:
                    await self._queue.park(outgoing.bucket, outgoing.message, until=outgoing.due)
                elif outgoing.due is None:
                    await self._queue.publish(outgoing.queue, outgoing.message)
                else:
                    await self._queue.publish_later(outgoing.message, due=outgoing.due, rounding=outgoing.rounding)
            except QueueUnavailable:
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._queue.wait_until_available()
                except TimeoutError:
                    return False
            else:
                return True

    def _to_outgoing(self, delivery: Delivery, verdict: RetryAt | Defer, now: float, crashes: int) -> OutgoingMessage:
        """Return the message with which the delivery returns, to be delayed or parked."""
        parked = verdict.wait_kind is WaitKind.PARKED
        wait, rounding = queue_delay(verdict, now)
        if parked:
            wait = min(verdict.until - now, MAX_PARKED_SECONDS)
        # From now on the id is the same at every reading, so it identifies copies like an id that a publisher gave.
        progress = delivery.progress.after_dispatch(now, max(MIN_WAIT_SECONDS, wait), parked=parked)
        body = documents.dump_delivery(copy_record(delivery, id_given=True, progress=progress), due=verdict.due)
        message = MessageDraft(kind=Kind.DELIVERY, body=body, message_id=delivery.id, headers=crash_headers(crashes))
        bucket = self._queue.bucket(delivery.key) if parked else None
        return OutgoingMessage(message=message, bucket=bucket, due=now + wait, rounding=rounding)
