"""Gives a delivery its durable fate: done, or a retry, a deferral or a dead letter that the queue has confirmed.

Nothing is told to the observers, and no message acked, before the queue has confirmed. While the queue is away the
delivery waits here, in memory; the worker's window bounds how many can. One that was only put off waits no longer than
until it is due: then it can be made without the queue.
"""

import asyncio
from collections.abc import Iterable
from itertools import islice

from notifier.domain import dead_letter, documents
from notifier.domain.backoff import hops
from notifier.domain.delivery import Delivery
from notifier.domain.documents import DeliveryDocument, Schedule
from notifier.domain.errors import QueueUnavailable
from notifier.domain.frozen import frozen, replace
from notifier.domain.message import DEAD, Kind, Outgoing, delay
from notifier.domain.verdict import Dead, Defer, Done, RetryAt, Skip, Verdict
from notifier.pipeline import facts
from notifier.pipeline.ports import Clock, Publisher

AGAIN = 1.0  # seconds, at the least, until one that was put off is due: a thousand of them must not hold the loop
BATCH = 16  # messages that are made and confirmed together; more would hold the loop while they are made


@frozen
class Send:
    """One message to be made durable, and what is to be told once it is."""

    queue: str
    message: Outgoing
    fact: facts.Fact | None = None


class Settlement:
    """Acts on verdicts."""

    def __init__(self, publisher: Publisher, *, clock: Clock, observe: facts.Observer) -> None:
        self._publisher = publisher
        self._clock = clock
        self._observe = observe

    async def settle(self, delivery: Delivery, verdict: Verdict) -> bool:
        """Return True once the fate is durable; False where a deferral is due, and the queue has not taken it yet."""
        now = self._clock()
        match verdict:
            case Done():
                ended = delivery.ended_at
                propagation = None if ended is None else max(0.0, now - ended)
                self._observe(facts.Delivered(delivery=delivery, propagation=propagation))
            case Skip():
                self._observe(
                    facts.Skipped(
                        iss=delivery.iss,
                        client_id=delivery.client_id,
                        event_id=delivery.event_id,
                        reply_to=delivery.reply_to,
                    )
                )
            case RetryAt():
                await self.send(*_later(delivery, verdict.due, hops(verdict.due - now, verdict.rounding)))
                self._observe(facts.RetryScheduled(delivery=delivery, due=verdict.due))
            case Defer():
                later = _later(delivery, verdict.due, hops(verdict.due - now, verdict.rounding, most=1))
                if not await self._send_within(max(AGAIN, verdict.due - now), *later):
                    return False
                self._observe(_deferred(delivery, verdict))
            case Dead():
                await self._bury(delivery, verdict, now)
        return True

    async def _bury(self, delivery: Delivery, verdict: Dead, now: float) -> None:
        letter = dead_letter.bury_delivery(delivery, verdict.reason, verdict.text, now)
        await self.send(DEAD, dead_letter.dump_dead_letter(letter))
        self._observe(
            facts.Buried(
                iss=letter.iss,
                client_id=letter.client_id,
                event_id=letter.event_id,
                reason=letter.reason,
                text=letter.text,
                delivery=delivery,
                reply_to=delivery.reply_to,
            )
        )

    async def send_all(self, sends: Iterable[Send]) -> None:
        """Return once each is durable. They are made as they are sent, so a large event is never whole in memory."""
        rest = iter(sends)
        while batch := list(islice(rest, BATCH)):
            await asyncio.gather(*(self.send(send.queue, send.message) for send in batch))
            for fact in (send.fact for send in batch if send.fact is not None):
                self._observe(fact)

    async def send(self, queue: str, message: Outgoing) -> None:
        """Return once the message is durable, however long the queue is away."""
        while True:
            try:
                return await self._publisher.publish(queue, message)
            except QueueUnavailable:
                await self._publisher.available()

    async def _send_within(self, seconds: float, queue: str, message: Outgoing) -> bool:
        """Whether the message became durable, where the queue was not away for so long."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                await self._publisher.publish(queue, message)
            except QueueUnavailable:
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._publisher.available()
                except TimeoutError:
                    return False
            else:
                return True


def _later(delivery: Delivery, due: float, path: tuple[int, ...]) -> tuple[str, Outgoing]:
    """The message that brings it back, and the queue to send it to."""
    first, *rest = path
    # An id that is written down is the same at every reading, and marks a duplicate like one that was given.
    known = delivery if delivery.id_given else replace(delivery, id_given=True)
    document = DeliveryDocument(delivery=known, schedule=Schedule(due=due, hops=tuple(rest)))
    body = documents.dump_delivery(document)
    return delay(first), Outgoing(kind=Kind.DELIVERY, body=body, message_id=delivery.id)


def _deferred(delivery: Delivery, verdict: Defer) -> facts.Deferred:
    return facts.Deferred(
        iss=delivery.iss,
        client_id=delivery.client_id,
        event_id=delivery.event_id,
        cause=verdict.cause,
        due=verdict.due,
        text=verdict.text,
        delivery=delivery,
        reply_to=delivery.reply_to,
    )
