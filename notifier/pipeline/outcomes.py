"""Tells audit systems what became of deliveries, at best effort: it never slows a delivery and never loses one.

An observer makes facts into outcomes and puts them into a buffer of 1 MiB; a task of its own (`run`) hands them to a
target. What finds the buffer full, since the target is away, blocked or too slow, is dropped and counted, and so is a
batch that the target loses: nothing is sent twice. Only durable fates are told, since only those are facts.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Literal, Protocol

import structlog

from notifier.domain import outcome
from notifier.domain.delivery import Delivery
from notifier.domain.errors import QueueError
from notifier.domain.outcome_event import NO_URI, ClientTold, DeliveryTold, Fate, Sent, State, Told
from notifier.pipeline.facts import Attempted, Buried, CircuitTurned, Deferred, Delivered, Fact, RetryScheduled, Skipped
from notifier.pipeline.ports import Clock

ROOM = 1024 * 1024  # bytes, reckoned, that may wait
UNDER_WAY = 8192  # attempts whose settlement is still to come; the worker's window holds far fewer
FLUSH_WITHIN = 2.0  # seconds at the end of a drain; what is left then is dropped
OVERHEAD = 400  # bytes of an outcome beside the names in it

Wanted = Literal["failures", "all"]


class FeedTarget(Protocol):
    """Where the feed goes."""

    @property
    def at_once(self) -> int:
        """How many notices one batch may have."""

    async def run(self) -> None:
        """Keep the way there open, until cancelled."""

    async def available(self) -> None:
        """Wait until a batch can be sent. Never raises."""

    async def send(self, batch: Sequence[Told]) -> None:
        """Send a batch. Raises QueueUnavailable if it may be lost."""


class Outcomes:
    """The observer and its buffer. `failures`: what ended well is not told."""

    def __init__(self, wanted: Wanted, *, clock: Clock, new_id: Callable[[], str], room: int = ROOM) -> None:
        self._all = wanted == "all"
        self._clock = clock
        self._new_id = new_id
        self._room = room
        self._under_way: dict[str, Attempted] = {}  # by delivery id
        self._waiting: deque[tuple[Told, int]] = deque()
        self._held = 0  # bytes, of those that wait and those that are being sent
        self._filled = asyncio.Event()
        self.dropped = 0

    # ── the observer ──

    def observe(self, fact: Fact) -> None:
        """Tell of it, if it is wanted. Never waits."""
        match fact:
            case Attempted():
                self._attempted(fact)
            case Delivered(delivery=delivery) if self._all:
                reason = outcome.Reason.DELIVERED.value
                self._put(self._told(delivery, Fate.DELIVERED, reason, propagation=fact.propagation))
            case RetryScheduled(delivery=delivery):
                reason = delivery.history[-1].reason if delivery.history else ""
                self._put(self._told(delivery, Fate.RETRYING, reason, next_due=fact.due))
            case Deferred(delivery=Delivery(id=id_)):
                self._under_way.pop(id_, None)  # the attempt is over, and counts as none: a fault of ours
            case Buried():
                self._put(self._buried(fact))
            case Skipped() if self._all:
                self._put(self._without_delivery(fact, Fate.SKIPPED, NO_URI))
            case CircuitTurned():
                state = State.FAILING if fact.open else State.RECOVERED
                id_, at = self._new_id(), self._clock()
                self._put(ClientTold(id=id_, at=at, state=state, iss=fact.iss, client_id=fact.client_id))

    def _attempted(self, fact: Attempted) -> None:
        if fact.outcome.reason is outcome.Reason.PROXY or (
            isinstance(fact.outcome, outcome.Delivered) and not self._all
        ):
            return  # a deferral, of which nothing is told; or not wanted
        if len(self._under_way) >= UNDER_WAY:
            del self._under_way[next(iter(self._under_way))]
        self._under_way[fact.delivery.id] = fact

    def _told(
        self,
        delivery: Delivery,
        fate: Fate,
        reason: str,
        *,
        propagation: float | None = None,
        next_due: float | None = None,
    ) -> DeliveryTold:
        made = self._under_way.pop(delivery.id, None)
        sent = None
        if made is not None:
            sent = Sent(attempt=made.number, jti=made.jti or None, status=made.outcome.status, seconds=made.seconds)
        return DeliveryTold(
            # No token is sent twice, so its `jti` names the outcome of its attempt wherever that is told again.
            id=self._new_id() if sent is None or sent.jti is None else sent.jti,
            at=self._clock(),
            fate=fate,
            reason=reason,
            iss=delivery.iss,
            client_id=delivery.client_id,
            event_id=delivery.event_id,
            delivery_id=delivery.id,
            publisher=delivery.publisher,
            ended_at=delivery.ended_at,
            propagation=propagation,
            next_due=next_due,
            sent=sent,
        )

    def _buried(self, fact: Buried) -> DeliveryTold:
        if fact.delivery is None:
            return self._without_delivery(fact, Fate.DEAD, fact.reason.value)
        return self._told(fact.delivery, Fate.DEAD, fact.reason.value)

    def _without_delivery(self, fact: Buried | Skipped, fate: Fate, reason: str) -> DeliveryTold:
        return DeliveryTold(
            id=self._new_id(),
            at=self._clock(),
            fate=fate,
            reason=reason,
            iss=fact.iss,
            client_id=fact.client_id,
            event_id=fact.event_id,
        )

    # ── the buffer ──

    def _put(self, told: Told) -> None:
        size = OVERHEAD + len(told.iss) + len(told.client_id)
        if isinstance(told, DeliveryTold):
            size += len(told.event_id) + len(told.publisher or "")
        if self._held + size > self._room:
            self.dropped += 1
            return
        self._held += size
        self._waiting.append((told, size))
        self._filled.set()

    @asynccontextmanager
    async def running(self, target: FeedTarget) -> AsyncIterator[None]:
        """Send what comes while the block lasts; then what is left, for two seconds at most."""
        sending, keeping_open = (asyncio.create_task(work) for work in (self.run(target), target.run()))
        try:
            yield
        finally:
            sending.cancel()
            await asyncio.wait([sending])
            await self.flush(target, FLUSH_WITHIN)
            keeping_open.cancel()
            await asyncio.gather(sending, keeping_open, return_exceptions=True)

    async def run(self, target: FeedTarget) -> None:
        """Hand over what comes, until cancelled."""
        while True:
            await self._filled.wait()
            await target.available()
            await self._send(target)

    async def flush(self, target: FeedTarget, within: float) -> None:
        """Hand over what is left, or count it as dropped once so many seconds have passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._waiting:
                    await self._send(target)
        self.dropped += len(self._waiting)
        self._waiting.clear()

    async def _send(self, target: FeedTarget) -> None:
        batch = [self._waiting.popleft() for _ in range(min(target.at_once, len(self._waiting)))]
        sent = False
        try:
            await target.send([told for told, _ in batch])
            sent = True
        except QueueError:
            pass  # counted below; the target says why
        except Exception as error:  # noqa: BLE001  around one observer: what only watches must not end a worker
            structlog.get_logger().error("outcomes_failed", error=type(error).__name__)
        finally:  # by a cancellation too
            self.dropped += 0 if sent else len(batch)
            self._held -= sum(size for _, size in batch)
            if not self._waiting:
                self._filled.clear()
