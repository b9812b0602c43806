"""Gives a delivery its durable fate: done, or a retry, a deferral or a dead letter that the queue has confirmed.

Nothing is told to the observers, and no message acked, before the queue has confirmed. While the queue is away the
delivery waits here, in memory; the worker's window bounds how many can.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

from notifier.domain import dead_letter, documents
from notifier.domain.backoff import hops
from notifier.domain.dead_letter import DeadLetter
from notifier.domain.delivery import Delivery
from notifier.domain.documents import DeliveryDocument, Schedule
from notifier.domain.errors import QueueUnavailable
from notifier.domain.message import DEAD, Kind, Outgoing, delay
from notifier.domain.verdict import Dead, Defer, Done, RetryAt, Skip, Verdict
from notifier.pipeline import facts
from notifier.pipeline.ports import Clock, Publisher

BATCH = 16  # messages that are made and confirmed together; more would hold the loop while they are made


@dataclass(frozen=True, slots=True, kw_only=True)
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

    async def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """Return once the fate is durable."""
        now = self._clock()
        match verdict:
            case Done():
                ended = delivery.ended_at
                propagation = None if ended is None else max(0.0, now - ended)
                self._observe(facts.Delivered(delivery=delivery, propagation=propagation))
            case Skip():
                self._observe(facts.Skipped(iss=delivery.iss, client_id=delivery.client_id, event_id=delivery.event_id))
            case RetryAt():
                await self._later(delivery, verdict.due, hops(verdict.due - now, verdict.rounding))
                self._observe(facts.RetryScheduled(delivery=delivery, due=verdict.due))
            case Defer():
                await self._later(delivery, verdict.due, hops(verdict.due - now, verdict.rounding, most=1))
                self._observe(_deferred(delivery, verdict))
            case Dead():
                await self.bury(dead_letter.bury_delivery(delivery, verdict.reason, verdict.text, now))

    async def bury(self, letter: DeadLetter) -> None:
        """Return once the dead letter is durable."""
        await self.send(DEAD, dead_letter.dump_dead_letter(letter))
        self._observe(
            facts.Buried(
                iss=letter.iss,
                client_id=letter.client_id,
                event_id=letter.event_id,
                reason=letter.reason,
                text=letter.text,
                delivery=letter.delivery,
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

    async def _later(self, delivery: Delivery, due: float, path: tuple[int, ...]) -> None:
        first, *rest = path
        # An id that is written down is the same at every reading, and marks a duplicate like one that was given.
        document = DeliveryDocument(
            delivery=replace(delivery, id_given=True), schedule=Schedule(due=due, hops=tuple(rest))
        )
        body = documents.dump_delivery(document)
        await self.send(delay(first), Outgoing(kind=Kind.DELIVERY, body=body, message_id=delivery.id))


def _deferred(delivery: Delivery, verdict: Defer) -> facts.Deferred:
    return facts.Deferred(
        iss=delivery.iss,
        client_id=delivery.client_id,
        event_id=delivery.event_id,
        cause=verdict.cause,
        due=verdict.due,
        text=verdict.text,
    )
