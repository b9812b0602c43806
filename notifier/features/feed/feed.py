"""Feeds audit systems with the fates of deliveries, at best effort: it never slows a delivery and never loses one.

An observer turns facts into notices and puts them into a buffer of 1 MiB. A task of its own (`run`) sends them to the
target. A notice that finds the buffer full is dropped and counted; so is a batch that the target loses. Nothing is sent
twice. Only durable fates are told.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import structlog
from prometheus_client import Metric

from notifier.delivery.facts import (
    Attempted,
    Buried,
    ClientFailing,
    ClientRecovered,
    Deferred,
    Fact,
    LogoutDelivered,
    RetryScheduled,
    Skipped,
)
from notifier.delivery.notices import notice_of
from notifier.model.delivery import Delivery
from notifier.model.errors import QueueError
from notifier.model.fate import ClientChange, ClientNotice, FeedNotice, LastAttempt, Notice
from notifier.model.frozen import replace
from notifier.model.moment import Clock
from notifier.model.outcome import Reason
from notifier.queues.queue_port import FeedTarget
from notifier.telemetry.families import plain_counter

ROOM = 1024 * 1024  # bytes, estimated, that may wait
UNDER_WAY = 8192  # failed attempts whose settlement is still to come; the worker's window holds far fewer
FLUSH_WITHIN = 2.0  # seconds at the end of a drain; what is left then is dropped
OVERHEAD = 400  # bytes of a notice beside the texts in it


class Feed:
    """The observer and its buffer. Unless `everything` is true it leaves out successes."""

    def __init__(self, *, everything: bool, clock: Clock, new_id: Callable[[], str], room: int = ROOM) -> None:
        self._everything = everything
        self._clock = clock
        self._new_id = new_id
        self._room = room
        self._under_way: dict[str, Attempted] = {}  # by delivery id
        self._waiting: deque[tuple[FeedNotice, int]] = deque()
        self._held = 0  # bytes of what waits and of what is being sent
        self._filled = asyncio.Event()
        self.dropped = 0

    def families(self) -> Iterator[Metric]:
        """The families for a scrape."""
        yield plain_counter("outcomes_dropped_total", "Outcome events that were lost.", self.dropped)

    # ── the observer ──

    def observe(self, fact: Fact) -> None:
        """Put the notice of a fact into the buffer. Never waits."""
        match fact:
            case LogoutDelivered() | Skipped() if not self._everything:
                pass
            case LogoutDelivered():
                self._put(self._noticed(fact, fact))
            case Attempted() if fact.outcome.reason is not Reason.PROXY:  # else a deferral follows, which has no notice
                if len(self._under_way) >= UNDER_WAY:
                    del self._under_way[next(iter(self._under_way))]
                self._under_way[fact.delivery.id] = fact
            case Deferred(delivery=Delivery(id=id_)):
                self._under_way.pop(id_, None)  # a fault of ours: the attempt does not count
            case RetryScheduled(delivery=delivery) | Buried(delivery=Delivery() as delivery):
                self._put(self._noticed(fact, self._under_way.pop(delivery.id, None)))
            case Buried() | Skipped():
                self._put(self._noticed(fact, None))
            case ClientFailing() | ClientRecovered():
                state = ClientChange.FAILING if isinstance(fact, ClientFailing) else ClientChange.RECOVERED
                id_, at = self._new_id(), self._clock()
                self._put(ClientNotice(id=id_, at=at, state=state, iss=fact.iss, client_id=fact.client_id))

    def _noticed(self, fact: Fact, attempt: Attempted | None) -> Notice | None:
        last = None
        if attempt is not None:
            last = LastAttempt(
                number=attempt.number, jti=attempt.jti or None, status=attempt.outcome.status, seconds=attempt.seconds
            )
        # No token is sent twice, so its `jti` identifies the notice of its attempt wherever that is repeated.
        id_ = self._new_id() if last is None or last.jti is None else last.jti
        notice = notice_of(fact)
        return None if notice is None else replace(notice, id=id_, at=self._clock(), last_attempt=last)

    # ── the buffer ──

    def _put(self, notice: FeedNotice | None) -> None:
        if notice is None:
            return
        size = OVERHEAD + len(notice.iss) + len(notice.client_id)
        if isinstance(notice, Notice):
            size += len(notice.event_id) + len(notice.publisher or "") + len(notice.text)
        if self._held + size > self._room:
            self.dropped += 1
            return
        self._held += size
        self._waiting.append((notice, size))
        self._filled.set()

    @asynccontextmanager
    async def running(self, target: FeedTarget) -> AsyncIterator[None]:
        """Send what comes while entered; then what is left, for a bounded time."""
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
        """Send what comes, until cancelled."""
        while True:
            await self._filled.wait()
            await target.wait_until_available()
            await self._send(target)

    async def flush(self, target: FeedTarget, within: float) -> None:
        """Send what is left, and drop what is not sent within so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._waiting:
                    await self._send(target)
        self.dropped += len(self._waiting)
        self._waiting.clear()

    async def _send(self, target: FeedTarget) -> None:
        batch = [self._waiting.popleft() for _ in range(min(target.max_batch, len(self._waiting)))]
        sent = False
        try:
            await target.send([notice for notice, _ in batch])
            sent = True
        except QueueError:
            pass  # counted below; the target logs why
        except Exception as error:  # noqa: BLE001  around one observer: what only watches must not end a worker
            structlog.get_logger().error("outcomes_failed", error=type(error).__name__)
        finally:  # by a cancellation too
            self.dropped += 0 if sent else len(batch)
            self._held -= sum(size for _, size in batch)
            if not self._waiting:
                self._filled.clear()
