"""Maintains the topology while a worker runs: detects missing queues, and declares or verifies them again."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from notifier.model.errors import NotifierError, QueueUnavailable
from notifier.model.message import Lane
from notifier.model.moment import Clock
from notifier.model.shared_resources import shared_lock
from notifier.queues.rabbitmq import topology
from notifier.queues.rabbitmq.administration import COUNTED_LANE, read_depths
from notifier.queues.rabbitmq.broker_trials import require_kept_expired
from notifier.queues.rabbitmq.buckets import bucket_names, bucket_number
from notifier.queues.rabbitmq.connection import (
    CONNECTION_ERRORS,
    RPC_TIMEOUT_SECONDS,
    Connection,
    broker_timeout,
    is_cancelled,
)
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.settling import Settling

CHECK_INTERVAL_SECONDS = 15.0  # between checks of the number of consumers and of required queues
ANNOUNCED_SECONDS = CHECK_INTERVAL_SECONDS + 5.0  # for which an announcement counts: workers repeat it every 5 s
SECOND_CHECK_SECONDS = 2.0  # from the first check to the second, which counts workers that started together
REPAIR_INTERVAL_SECONDS = 0.5
FAILED_REPAIR_INTERVAL_SECONDS = 5.0  # after a failed repair: an operator must act first


class WorkerCount:
    """The number of workers, including this one, ready or not; `value` is 0 while it is unknown.

    Workers announce themselves to each other (`side_channel`). A worker whose user may have no side channel does not,
    and has one consumer of `COUNTED_LANE`: consumers beyond the announced workers are such workers. An announced worker
    may have several consumers for a while, and announces that. Until 20 s later the number of unannounced workers is
    kept. Since that announcement may come 5 s late, an increase counts once it was seen at two checks in a row.

    `has_large_buckets`: whether the large buckets exist, as far as this worker has seen.
    """

    def __init__(self, monotonic: Clock = time.monotonic) -> None:
        self.value = 0
        self.has_large_buckets = True
        self._monotonic = monotonic
        self._large_buckets_unused_until = -math.inf
        self._renewed_until = -math.inf  # until then consumers are no number of workers
        self._announced = self._unannounced = 0
        self._consumers, self._consumers_before = 0, math.inf

    def may_renew(self, lane: Lane) -> bool:
        """Return whether this worker may have several consumers of this lane for a while.

        Workers that do not announce themselves count consumers only.
        """
        return lane is not COUNTED_LANE or 0 < self._announced == self.value

    @property
    def may_use_large_buckets(self) -> bool:
        """True while all workers announce that they have the large buckets. A single worker needs no announcement."""
        if self.value > max(1, self._announced):
            return False
        return self.has_large_buckets and self._monotonic() >= self._large_buckets_unused_until

    def on_announcement(self, *, has_large_buckets: bool, is_renewed: bool) -> None:
        """Take an announcement, which its worker repeats. `is_renewed`: it has several consumers of `COUNTED_LANE`."""
        until = self._monotonic() + ANNOUNCED_SECONDS
        if not has_large_buckets:
            self._large_buckets_unused_until = until
        if is_renewed:
            self._renewed_until = until

    def on_announced(self, count: int) -> None:
        """Take the number of workers that announce themselves; 0 while it is unknown, and without a side channel."""
        self._announced = count
        self._update()

    def on_consumers(self, count: int, *, may_decrease: bool) -> None:
        """Take the number of consumers. Unless `may_decrease`, other workers may only have lost their connections."""
        confirmed = self.value if self._is_renewed else min(count, self._consumers_before)
        self._consumers = max(1, int(confirmed), 0 if may_decrease else self._consumers)
        self._consumers_before = count
        self._update()

    @property
    def _is_renewed(self) -> bool:
        return self._monotonic() < self._renewed_until

    def _update(self) -> None:
        if not self._is_renewed:
            self._unannounced = max(0, self._consumers - self._announced)
        self.value = self._announced + self._unannounced


class TopologyWatch:
    """Watches the topology over the current connection. `repair_soon` requests an immediate check.

    `problem`: what cannot be repaired; `settling`: which queues are too new to be used. From the second check on,
    `workers` gets the number of consumers. `on_new_register` is called when the register's queue was declared.
    """

    def __init__(
        self,
        options: RabbitOptions,
        wait_for_publishing: Callable[[], Awaitable[Connection]],
        workers: WorkerCount,
        on_new_register: Callable[[], None] = lambda: None,
    ) -> None:
        self._declares = options.topology == "declare"
        self._prefix = options.prefix
        self._wait_for_publishing, self._on_new_register = wait_for_publishing, on_new_register
        self._expiry_tested = self._established = False
        self._topology = topology.topology_of(options)
        self._bucket_count, self._buckets = options.buckets, bucket_names(options)
        self._watched_queues = {
            lane.value: f"{options.prefix}.{lane}" for lane in (Lane.EVENTS, Lane.RETRIES, COUNTED_LANE)
        }
        self._connection: Connection | None = None
        self._repairing = shared_lock()
        self._repairs = 0
        self._log = structlog.get_logger(__name__)
        self.settling = Settling()
        self.repair_soon = asyncio.Event()
        self.problem: str | None = None
        self._workers = workers
        self._has_checked = False
        self._decrease_allowed_at = 0.0  # from then on the count of consumers may decrease; by the loop's clock

    @property
    def buckets(self) -> tuple[str, ...]:
        """Return the names of the buckets that exist."""
        return self._buckets if self._workers.has_large_buckets else self._buckets[: self._bucket_count]

    @property
    def unused_buckets(self) -> tuple[str, ...]:
        """Return the names of the large buckets, unless all workers have them."""
        return () if self._workers.may_use_large_buckets else self.buckets[self._bucket_count :]

    def bucket_of(self, client: tuple[str, str], *, large: bool) -> str:
        """Return the name of the client's bucket, or of its large bucket if all workers have it."""
        return self._buckets[
            bucket_number(client, self._bucket_count, large=large and self._workers.may_use_large_buckets)
        ]

    async def prepare(self, connection: Connection) -> None:
        """Establish the topology before its first use. Later connections are used at once, while `run` does it.

        Raises QueueError.
        """
        if self._established:
            self.repair_soon.set()
        else:
            await self._establish(connection)

    async def _establish(self, connection: Connection) -> None:
        """Declare or verify the topology, beside the test that the broker keeps expired messages. Raises QueueError."""
        async with broker_timeout(None):
            if self._declares:
                if await topology.declare(connection, self._topology, self.settling, self._try_expiry()):
                    self._on_new_register()
            else:
                self._workers.has_large_buckets = await topology.verify(connection, self._topology)
        self._established = True

    async def _try_expiry(self) -> None:
        if not self._expiry_tested:
            with suppress(QueueUnavailable, TimeoutError):  # such as during an alarm; the next connection tests it
                async with asyncio.timeout(RPC_TIMEOUT_SECONDS if self._established else None):
                    connection = await self._wait_for_publishing()
                await require_kept_expired(connection, self._prefix)
                self._expiry_tested = True

    async def repair(self) -> None:
        """Declare or verify the topology again, after a part of it was found missing."""
        if (connection := self._connection) is None:
            return
        former = self._repairs
        async with self._repairing:
            if self._repairs > former:
                return  # another repair has just ended; if it was too early, the caller requests one again
            try:
                await self._establish(connection)
            except (QueueUnavailable, *CONNECTION_ERRORS):
                pass  # the connection is lost, and a new one follows
            except NotifierError as error:
                if str(error) != self.problem:
                    self._log.error("queue_topology_wrong", reason=str(error))
                self.problem = str(error)
            else:
                self.problem = None
            self._repairs += 1

    async def run(self, connection: Connection) -> None:
        """Check the queues over this connection at intervals, and repair the topology when needed, until cancelled."""
        self._connection, next_interval = connection, SECOND_CHECK_SECONDS
        self._decrease_allowed_at = asyncio.get_running_loop().time() + CHECK_INTERVAL_SECONDS
        try:
            while not is_cancelled():
                if not await self._check_queues(connection):
                    self.repair_soon.set()
                interval, next_interval = next_interval, CHECK_INTERVAL_SECONDS
                try:
                    async with asyncio.timeout(interval):
                        await self.repair_soon.wait()
                except TimeoutError:
                    continue
                await self.repair()
                await asyncio.sleep(REPAIR_INTERVAL_SECONDS if self.problem is None else FAILED_REPAIR_INTERVAL_SECONDS)
                self.repair_soon.clear()
        finally:
            self._connection = None

    async def _check_queues(self, connection: Connection) -> bool:
        """Count the consumers. Return False if a queue is missing, or if a former problem remains.

        `retries` must exist even without consumers: messages of the delay queues go there, and a broker that does not
        find it retries only after three minutes.
        """
        try:
            depths = await read_depths(connection, self._watched_queues)
        except QueueUnavailable:
            return True
        if COUNTED_LANE in depths and self._has_checked:  # at the first check other workers may be starting too
            may_decrease = asyncio.get_running_loop().time() >= self._decrease_allowed_at
            self._workers.on_consumers(depths[COUNTED_LANE].consumers, may_decrease=may_decrease)
        self._has_checked = True
        return len(depths) == len(self._watched_queues) and self.problem is None
