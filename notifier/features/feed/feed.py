"""Publish the results of deliveries to audit systems, best-effort. It never delays or loses a delivery.

An observer converts facts to notices in a buffer of 1 MiB. A separate task (`run`) sends them to the target. A notice
is dropped and counted if the buffer is full; so is a batch that cannot be sent. Nothing is sent twice. Only durable
results are published.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import structlog
from prometheus_client import Metric

from notifier.delivery.facts import (
    Attempted,
    ClientFailing,
    ClientRecovered,
    DeadLettered,
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

MAX_BUFFER_BYTES = 1024 * 1024  # estimated
MAX_PENDING_ATTEMPTS = 8192  # failed attempts without a verdict; a worker holds far fewer
FLUSH_TIMEOUT_SECONDS = 2.0  # at the end of a drain; the rest is dropped
NOTICE_OVERHEAD_BYTES = 400  # per notice, without its texts


class Feed:
    """Buffers notices of facts, and sends them to a target."""

    def __init__(
        self, *, include_successes: bool, clock: Clock, new_id: Callable[[], str], max_bytes: int = MAX_BUFFER_BYTES
    ) -> None:
        self._include_successes = include_successes
        self._clock = clock
        self._new_id = new_id
        self._max_bytes = max_bytes
        self._attempts: dict[str, Attempted] = {}  # by delivery id
        self._pending: deque[tuple[FeedNotice, int]] = deque()
        self._held_bytes = 0  # pending notices and notices being sent
        self._has_pending = asyncio.Event()
        self.dropped_count = 0

    def families(self) -> Iterator[Metric]:
        """Return the metric families for a scrape."""
        yield plain_counter("outcomes_dropped_total", "Outcome events that were lost.", self.dropped_count)

    # ── the observer ──

    def observe(self, fact: Fact) -> None:
        """Buffer the notice of a fact. Never waits."""
        match fact:
            case LogoutDelivered() | Skipped() if not self._include_successes:
                pass
            case LogoutDelivered():
                self._put(self._to_notice(fact, fact))
            case Attempted() if fact.outcome.reason is not Reason.PROXY:  # a deferral follows, without a notice
                if len(self._attempts) >= MAX_PENDING_ATTEMPTS:
                    del self._attempts[next(iter(self._attempts))]
                self._attempts[fact.delivery.id] = fact
            case Deferred(delivery=Delivery(id=id_)):
                self._attempts.pop(id_, None)  # an internal fault: the attempt does not count
            case RetryScheduled(delivery=delivery) | DeadLettered(delivery=Delivery() as delivery):
                self._put(self._to_notice(fact, self._attempts.pop(delivery.id, None)))
            case DeadLettered() | Skipped():
                self._put(self._to_notice(fact, None))
            case ClientFailing() | ClientRecovered():
                state = ClientChange.FAILING if isinstance(fact, ClientFailing) else ClientChange.RECOVERED
                id_, at = self._new_id(), self._clock()
                self._put(ClientNotice(id=id_, at=at, state=state, iss=fact.iss, client_id=fact.client_id))

    def _to_notice(self, fact: Fact, attempt: Attempted | None) -> Notice | None:
        last = None
        if attempt is not None:
            last = LastAttempt(
                number=attempt.number, jti=attempt.jti or None, status=attempt.outcome.status, seconds=attempt.seconds
            )
        # No token is sent twice, so its `jti` identifies the notice of its attempt, also in a repeated copy.
        id_ = self._new_id() if last is None or last.jti is None else last.jti
        notice = notice_of(fact)
        return None if notice is None else replace(notice, id=id_, at=self._clock(), last_attempt=last)

    # ── the buffer ──

    def _put(self, notice: FeedNotice | None) -> None:
        if notice is None:
            return
        size = NOTICE_OVERHEAD_BYTES + len(notice.iss) + len(notice.client_id)
        if isinstance(notice, Notice):
            size += len(notice.event_id) + len(notice.publisher or "") + len(notice.text)
        if self._held_bytes + size > self._max_bytes:
            self.dropped_count += 1
            return
        self._held_bytes += size
        self._pending.append((notice, size))
        self._has_pending.set()

    @asynccontextmanager
    async def connect(self, target: FeedTarget) -> AsyncIterator[None]:
        """Send notices while entered. On exit send the remaining notices within FLUSH_TIMEOUT_SECONDS."""
        sending, keeping_open = (asyncio.create_task(work) for work in (self.run(target), target.run()))
        try:
            yield
        finally:
            sending.cancel()
            await asyncio.wait([sending])
            await self.flush(target, FLUSH_TIMEOUT_SECONDS)
            keeping_open.cancel()
            await asyncio.gather(sending, keeping_open, return_exceptions=True)

    async def run(self, target: FeedTarget) -> None:
        """Send notices until cancelled."""
        while True:
            await self._has_pending.wait()
            await target.wait_until_available()
            await self._send(target)

    async def flush(self, target: FeedTarget, within: float) -> None:
        """Send the remaining notices. Drop what is not sent `within` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._pending:
                    await self._send(target)
        self.dropped_count += len(self._pending)
        self._pending.clear()

    async def _send(self, target: FeedTarget) -> None:
        batch = [self._pending.popleft() for _ in range(min(target.max_batch, len(self._pending)))]
        sent = False
        try:
            await target.send([notice for notice, _ in batch])
            sent = True
        except QueueError:
            pass  # counted below; the target logs the reason
        except Exception as error:  # noqa: BLE001  an observer must not end the worker
            structlog.get_logger().error("outcomes_failed", error=type(error).__name__)
        finally:  # also on cancellation
            self.dropped_count += 0 if sent else len(batch)
            self._held_bytes -= sum(size for _, size in batch)
            if not self._pending:
                self._has_pending.clear()
