"""Settles deliveries: makes each verdict durable as a retry, a deferral or a dead letter that the queue confirms.

No fact is reported, and no message is acked, before the queue has confirmed. While the queue is unavailable, deliveries
stay in memory; the worker's window bounds their number. A deferral is given up once it is due, since the delivery can
then be attempted without the queue.
"""

import asyncio
from collections.abc import Iterable
from itertools import islice

from notifier.delivery import facts
from notifier.delivery.replacements import Send, send_dead_letter
from notifier.delivery.verdict import Dead, Defer, RetryAt, WaitKind, queue_delay
from notifier.model.backoff import MIN_WAIT_SECONDS
from notifier.model.delivery import Delivery
from notifier.model.documents import dead_letter, documents
from notifier.model.errors import QueueUnavailable
from notifier.model.frozen import replace
from notifier.model.message import MAX_PARKED_SECONDS, Kind, Message, Outgoing, crash_headers
from notifier.model.moment import Clock
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
                await self.send(self._to_send(delivery, verdict, now, crashes=0))
                self._observe(facts.RetryScheduled(delivery=delivery, due=verdict.due))
            case Defer():
                send = self._to_send(delivery, verdict, now, message.crashes)
                if not await self.send(send, max_seconds=max(MIN_TRY_SECONDS, verdict.due - now)):
                    return False
                deferred = facts.Deferred(
                    iss=delivery.iss, client_id=delivery.client_id, event_id=delivery.event_id, cause=verdict.cause,
                    due=verdict.due, text=verdict.text, delivery=delivery, reply_to=delivery.reply_to,
                )  # fmt: skip
                self._observe(deferred)
            case Dead():
                letter = dead_letter.dead_letter_delivery(delivery, verdict.reason, verdict.text, now)
                await self.send_all((send_dead_letter(letter, delivery.reply_to, delivery),))
        return True

    async def send_all(self, sends: Iterable[Send]) -> None:
        """Return once all are durable. The messages are made in batches, so a large event is never whole in memory."""
        remaining = iter(sends)
        while batch := list(islice(remaining, BATCH_MESSAGES)):
            await asyncio.gather(*(self.send(send) for send in batch))
            for fact in (send.fact for send in batch if send.fact is not None):
                self._observe(fact)

    async def send(self, send: Send, *, max_seconds: float | None = None) -> bool:
        """Return True once the message is durable; False if the queue is unavailable for `max_seconds` seconds."""
        deadline = None if max_seconds is None else asyncio.get_running_loop().time() + max_seconds
        while True:
            try:
                if send.bucket is not None and send.due is not None:
                    await self._queue.park(send.bucket, send.message, until=send.due)
                elif send.due is None:
                    await self._queue.publish(send.queue, send.message)
                else:
                    await self._queue.publish_later(send.message, due=send.due, rounding=send.rounding)
            except QueueUnavailable:
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._queue.wait_until_available()
                except TimeoutError:
                    return False
            else:
                return True

    def _to_send(self, delivery: Delivery, verdict: RetryAt | Defer, now: float, crashes: int) -> Send:
        """Return the message with which the delivery returns, to be delayed or parked."""
        parked = verdict.wait_kind is WaitKind.PARKED
        wait, rounding = queue_delay(verdict, now)
        if parked:
            wait = min(verdict.until - now, MAX_PARKED_SECONDS)
        # From now on the id is the same at every reading, so it identifies copies like an id that a publisher gave.
        progress = delivery.progress.after_dispatch(now, max(MIN_WAIT_SECONDS, wait), parked=parked)
        body = documents.dump_delivery(replace(delivery, id_given=True, progress=progress), due=verdict.due)
        message = Outgoing(kind=Kind.DELIVERY, body=body, message_id=delivery.id, headers=crash_headers(crashes))
        bucket = self._queue.bucket(delivery.key) if parked else None
        return Send(message=message, bucket=bucket, due=now + wait, rounding=rounding)
