"""Publish the results of deliveries to audit systems, best-effort, without effect on the deliveries.

An observer converts facts to notices in a buffer of 1 MiB. A separate task (`run`) sends them to the target. Notices
are dropped and counted if the buffer is full, or if they cannot be sent. No notice is sent twice. A result is published
only after it is durable.
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
    notice_of,
)
from notifier.model.delivery import Delivery
from notifier.model.errors import QueueError, describe_error
from notifier.model.moment import Clock
from notifier.model.notice import ClientChange, ClientNotice, FeedNotice, LastAttempt, Notice
from notifier.model.outcome import Reason
from notifier.model.record import copy_record
from notifier.model.shared_resources import shared_bound
from notifier.queues.queue_port import FeedTarget
from notifier.telemetry.families import plain_counter

MAX_BUFFER_BYTES = shared_bound(1024 * 1024)  # by the estimate below
MAX_PENDING_ATTEMPTS = shared_bound(8192)  # failed attempts whose verdict is not yet durable; a worker has far fewer
FLUSH_TIMEOUT_SECONDS = 2.0  # at the end of a drain; then the remaining notices are dropped
NOTICE_OVERHEAD_BYTES = 400  # of a notice without its texts, estimated


class Feed:
    """Buffers notices of facts, and sends them to a target. `include_successes`: also of successes and skips."""

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
        """Buffer the notice of a fact. An attempt is kept until its verdict is durable, and is part of that notice."""
        match fact:
            case LogoutDelivered() | Skipped() if not self._include_successes:
                pass
            case LogoutDelivered():
                self._put(self._to_notice(fact, fact))
            case Attempted() if fact.outcome.reason is not Reason.PROXY:  # a deferral follows each PROXY attempt
                if len(self._attempts) >= MAX_PENDING_ATTEMPTS:
                    del self._attempts[next(iter(self._attempts))]
                self._attempts[fact.delivery.id] = fact
            case Deferred(delivery=Delivery(id=delivery_id)):
                self._attempts.pop(delivery_id, None)  # after an internal fault, the attempt does not count
            case RetryScheduled(delivery=delivery) | DeadLettered(delivery=Delivery() as delivery):
                self._put(self._to_notice(fact, self._attempts.pop(delivery.id, None)))
            case DeadLettered() | Skipped():
                self._put(self._to_notice(fact, None))
            case ClientFailing() | ClientRecovered():
                state = ClientChange.FAILING if isinstance(fact, ClientFailing) else ClientChange.RECOVERED
                notice_id, at = self._new_id(), self._clock()
                self._put(ClientNotice(id=notice_id, at=at, state=state, iss=fact.iss, client_id=fact.client_id))

    def _to_notice(self, fact: Fact, attempt: Attempted | None) -> Notice | None:
        """Return the notice of a fact with its last attempt; None if the fact has no notice."""
        last = None
        if attempt is not None:
            last = LastAttempt(
                number=attempt.number, jti=attempt.jti or None, status=attempt.outcome.status, seconds=attempt.seconds
            )
        # The `jti` of the token, which no other attempt sends, is the id, so that a copy of the notice has the same id.
        notice_id = self._new_id() if last is None or last.jti is None else last.jti
        notice = notice_of(fact)
        return None if notice is None else copy_record(notice, id=notice_id, at=self._clock(), last_attempt=last)

    # ── the buffer ──

    def _put(self, notice: FeedNotice | None) -> None:
        """Add a notice to the buffer, or drop and count it if the buffer is full."""
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
        """Send notices during the `with` block. At its end, send the remaining notices within FLUSH_TIMEOUT_SECONDS."""
        send_task, connection_task = asyncio.create_task(self.run(target)), asyncio.create_task(target.run())
        try:
            yield
        finally:
            send_task.cancel()
            await asyncio.wait([send_task])
            await self.flush(target, FLUSH_TIMEOUT_SECONDS)
            connection_task.cancel()
            await asyncio.gather(send_task, connection_task, return_exceptions=True)

    async def run(self, target: FeedTarget) -> None:
        """Send notices until cancelled."""
        while True:
            await self._has_pending.wait()
            await target.wait_until_available()
            await self._send(target)

    async def flush(self, target: FeedTarget, limit_seconds: float) -> None:
        """Send the remaining notices. After `limit_seconds`, drop and count the others."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_seconds):
                while self._pending:
                    await self._send(target)
        self.dropped_count += len(self._pending)
        self._pending.clear()

    async def _send(self, target: FeedTarget) -> None:
        """Send the oldest notices, as many as the target accepts. After an error, drop and count them."""
        batch = [self._pending.popleft() for _ in range(min(target.max_batch, len(self._pending)))]
        is_sent = False
        try:
            await target.send([notice for notice, _ in batch])
            is_sent = True
        except QueueError:
            pass  # counted below; the target logs the reason
        except Exception as error:  # noqa: BLE001  an observer must not end the worker
            structlog.get_logger().error("outcomes_failed", error=describe_error(error))
        finally:  # also on cancellation
            self.dropped_count += 0 if is_sent else len(batch)
            self._held_bytes -= sum(size for _, size in batch)
            if not self._pending:
                self._has_pending.clear()
