"""Does all SQLite work on one thread, in group commits: operations that arrive during a commit go into the next one.

Rules of this module:
- One round is one transaction: acks, publishes, due messages, and messages for lanes with room. One report to the loop
  follows. So a round costs one fsync and two thread switches, whatever the number of operations.
- Nothing is reported before it is durable, and no state of a round is updated before its commit.
- On a full disk, publishes are refused earlier than by SQLite: the remaining space is for acks, which free space.
- A failed commit refuses its publishes and keeps its acks for the next round, one poll later. Only a damaged file ends
  the thread of a worker, since further writes would increase the damage.
"""

import time
from asyncio import Future
from collections.abc import Callable, Collection, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, assert_never

from notifier.model.errors import DiskFull, NotifierError, QueueError, QueueUnavailable, TopologyMismatch
from notifier.model.message import PARKED, Depth, Lane, Message
from notifier.model.moment import earliest
from notifier.model.shared_resources import shared_bound
from notifier.queues.sqlite.file import examine
from notifier.queues.sqlite.lanes import Lanes, ParkedRows
from notifier.queues.sqlite.lock import WorkerLock, has_worker
from notifier.queues.sqlite.options import SqliteOptions
from notifier.queues.sqlite.rows import Ack, Call, FutureResult, Insert, Operation, SetAside, WriterReport
from notifier.queues.sqlite.store import LANES, QUEUES, Store

T = TypeVar("T")
ACKS_PER_COMMIT = shared_bound(8)  # 1 MiB of the largest events, half of the space that a full disk has left
POLL_SECONDS = 0.25  # seconds between checks for commits of other processes; a check reads one number


class Writer:
    """Does all work on the queue file, on a dedicated thread.

    `put` is for the loop, `run` for the thread, other methods for `Call`s. `on_report` is called on the thread.
    """

    def __init__(self, options: SqliteOptions, on_report: Callable[[WriterReport], object]) -> None:
        self._path = options.path
        self._delay_clock = options.delay_clock
        self._on_report = on_report
        self._inbox: SimpleQueue[Operation] = SimpleQueue()
        self._current_operations: Sequence[Operation] = ()
        self._lanes = Lanes(options.prefetch)
        self._store: Store | None = None
        self._lock: WorkerLock | None = None
        self._acks: list[int] = []
        self._parked = ParkedRows()
        self._problem: str | None = None
        self._damage: str | None = None
        self._consuming = False
        self._closing = False
        self._next_due: float | None = None
        self._next_check = 0.0  # by the monotonic clock
        self._foreign_changes: int | None = None

    def put(self, operation: Operation) -> None:
        """Pass an operation to the thread. Never waits."""
        self._inbox.put(operation)

    def run(self) -> None:
        """Run rounds until `finish`, or until a worker's file is damaged. The last report follows."""
        try:
            while not self._closing:
                self._current_operations = self._gather()
                self._run_round(self._current_operations)
                self._current_operations = ()
        finally:  # also after a bug: callers must not wait forever, and the next worker must be able to start
            if self._store is not None:
                self._store.close()
            if self._lock is not None:
                self._lock.release()
            closed = f"the queue {self._path} was closed"
            self._report(WriterReport(connected=False, problem=self._damage or closed, damage=self._damage, ended=True))

    def take_abandoned(self) -> list[Future[Any]]:
        """Return the futures of operations that the thread did not complete before it ended."""
        remaining = list(self._current_operations)
        while not self._inbox.empty():
            remaining.append(self._inbox.get_nowait())
        return [each.done for each in remaining if not isinstance(each, Ack | SetAside) and not each.done.done()]

    def _report(self, report: WriterReport) -> None:
        try:
            self._on_report(report)
        except RuntimeError:  # the loop was closed before the queue, so there are no callers
            self._closing = True

    def _gather(self) -> list[Operation]:
        """Return the operations that have arrived. Wait for the first, unless another round is due earlier."""
        operations: list[Operation] = []
        try:
            operations.append(self._inbox.get(timeout=self._wait_seconds()))
            while True:
                operations.append(self._inbox.get_nowait())
        except Empty:
            return operations

    def _wait_seconds(self) -> float | None:
        """Return the seconds to wait for an operation before the next round; None for no limit."""
        if self._problem is not None:
            return POLL_SECONDS
        if self._lock is None:
            return None
        if self._parked.has_inherited or self._count_takeable():
            return 0.0
        if self._next_due is None:
            return POLL_SECONDS
        return min(POLL_SECONDS, max(0.0, self._next_due - self._delay_clock()))

    def _run_round(self, operations: Sequence[Operation]) -> None:
        """Commit the operations in one transaction, run the calls, and report the results to the event loop."""
        publishes: list[Insert] = []
        calls: list[Call] = []
        for operation in operations:
            match operation:
                case Insert():
                    publishes.append(operation)
                case Ack():
                    self._on_ack(operation)
                case SetAside(id=id_, lane=lane):
                    self._lanes.on_set_aside(lane, id_)
                case Call():
                    calls.append(operation)
                case _:
                    assert_never(operation)
        former_problem, disk_problem, taken = self._problem, None, list[Message]()
        try:
            if former_problem is not None:
                self._make_room(self._open_store())
                taken += self._commit([])
            disk_problem = self._open_store().describe_full_disk()
            taken += self._commit(publishes if disk_problem is None else [])
            self._problem = disk_problem
        except QueueError as error:
            disk_problem = str(error) if isinstance(error, DiskFull) else disk_problem
            self._problem = disk_problem or str(error)
            if isinstance(error, TopologyMismatch) and self._lock is not None:
                self._damage, self._closing = str(error), True
        problem, error_type = self._problem, QueueUnavailable if disk_problem is None else DiskFull
        completions = [FutureResult(p.done, error=None if problem is None else error_type(problem)) for p in publishes]
        completions += [self._run(call) for call in calls]
        if completions or taken or self._problem != former_problem:
            connected = self._store is not None and self._store.in_place
            self._report(WriterReport(connected=connected, completions=completions, taken=taken, problem=self._problem))

    def _make_room(self, store: Store) -> None:
        """Commit acks without publishes, a few at a time (deletions are first logged), except the last few."""
        store.reclaim()
        while len(self._acks) > ACKS_PER_COMMIT:
            with store.transaction():
                store.delete(self._acks[:ACKS_PER_COMMIT])
            del self._acks[:ACKS_PER_COMMIT]
            store.reclaim()

    def _on_ack(self, ack: Ack) -> None:
        self._acks.append(ack.id)
        if ack.bucket is None:
            self._lanes.on_acked(ack.lane, ack.id)
        else:
            self._parked.on_acked(ack.bucket, ack.id)

    def _commit(self, publishes: Sequence[Insert]) -> list[Message]:
        """Run one transaction: delete acked rows, write the publishes, move due and parked rows, and take messages.

        Return the messages that were taken from the lanes. Without any such work no transaction is run.
        """
        store = self._open_store()
        rows = [publish.row for publish in publishes]
        if inserted_lanes := {Lane(row.queue) for row in rows if row.due is None and row.queue in LANES}:
            self._lanes.on_inserted(*inserted_lanes)
        changes = self._count_foreign_changes(store)
        if is_changed := changes != self._foreign_changes:
            self._lanes.on_inserted()
        now = self._delay_clock()
        has_due = self._lock is not None and self._next_due is not None and self._next_due <= now
        has_inherited = self._parked.has_inherited
        if has_due or has_inherited:
            self._lanes.on_inserted(Lane.RETRIES)
        limits = self._count_takeable()
        if not (rows or self._acks or limits or is_changed or has_due or has_inherited):
            return []
        with store.transaction():
            store.delete(self._acks)
            store.insert(rows)
            if has_inherited:
                self._parked.wake_inherited(store)
            if has_due:
                store.move_due(now, self._parked.in_hand)
            pages = self._lanes.take(store, limits)
            dues = [self._next_due, *(row.due for row in rows)]
            if has_due or is_changed:
                dues = [store.read_next_due(self._parked.in_hand)]
        self._acks.clear()
        self._parked.on_committed()
        self._foreign_changes = changes
        self._next_due = earliest(*dues)
        self._lanes.on_committed(pages, limits)
        return [message for page in pages.values() for _, message in page]

    def _count_takeable(self) -> dict[Lane, int]:
        return self._lanes.count_takeable() if self._consuming else {}

    def _count_foreign_changes(self, store: Store) -> int | None:
        """Return a number that changes with each commit of another process. A worker reads it at each poll."""
        if self._lock is None or time.monotonic() < self._next_check:
            return self._foreign_changes
        changes = store.count_foreign_changes()
        self._next_check = time.monotonic() + POLL_SECONDS
        return changes

    def _run(self, call: Call) -> FutureResult:
        try:
            return FutureResult(call.done, result=call.run())
        except NotifierError as error:  # not only of the file: a later release may have written what the call reads
            return FutureResult(call.done, error=error)

    def _open_store(self) -> Store:
        if self._store is None:
            if not has_worker(self._path):  # a running worker has already examined the file, which may be large
                examine(self._path)
            self._store = Store.open(self._path)
        self._store.check_place()
        return self._store

    def check(self) -> None:
        """Raise QueueError if the file cannot be used."""
        self._open_store()

    def describe_full_disk(self) -> str | None:
        """Return an error if the disk is full, otherwise None. Raises QueueError."""
        return self._open_store().describe_full_disk()

    def start_consuming(self) -> None:
        """Take messages from now on. Raises QueueUnavailable if another worker consumes the file."""
        store = self._open_store()
        if self._lock is None:
            lock = WorkerLock(self._path, store.files)
            store.reclaim()
            try:
                with store.transaction():
                    store.give_back(self._delay_clock())  # the messages of a worker that was killed
                    store.bound_delays(self._delay_clock())
                self._parked.start(store)
            except BaseException:
                lock.release()
                raise
            self._lock = lock
        self._consuming = True

    def stop_consuming(self) -> None:
        """Take no further messages. Messages already taken can still be acked."""
        self._consuming = False

    def depths(self) -> dict[str, Depth]:
        """Return the depth of every queue."""
        consumed = self._lock is not None or has_worker(self._path)
        ready = dict(self._open_store().depths(consumed=consumed))
        ready[PARKED] -= len(self._parked.in_hand)
        return {queue: Depth(ready=ready.get(queue, 0), consumers=int(consumed and queue in LANES)) for queue in QUEUES}

    def fetch(self, bucket: str, most: int, fetched: list[Message]) -> None:
        """Take messages out of a bucket into `fetched`. Raises QueueUnavailable."""
        problem = self._problem or (None if self._lock else f"nothing is fetched before {self._path} is consumed")
        if problem is not None:
            raise QueueUnavailable(problem)
        self._parked.fetch(self._open_store(), bucket, most, fetched)

    def put_back(self, bucket: str, fetched: Sequence[Message]) -> None:
        """Release messages whose caller was cancelled, so that they can be fetched again. Raises QueueUnavailable."""
        self._parked.put_back(bucket, fetched)
        self._next_due = self._open_store().read_next_due(self._parked.in_hand)

    def count_parked(self, buckets: Collection[str] | None) -> Mapping[str, int]:
        """Return the number of messages per bucket. Raises QueueUnavailable."""
        return self._parked.count(self._open_store(), buckets)

    def use(self, work: Callable[[Store], T], *, writing: bool) -> T:
        """Run `work` on the store, in a separate transaction if it writes: a failure must not affect deliveries.

        If it writes, check the lanes again, since it may have added messages.
        """
        store = self._open_store()
        result = store.use(work, writing=writing)
        if writing:
            self._lanes.on_inserted()
            self._next_due = store.read_next_due(self._parked.in_hand)
        return result

    def finish(self) -> None:
        """End the thread, after a last transaction that returns the unacked messages."""
        self._consuming = False
        self._closing = True
        if self._store is not None and self._lock is not None:
            with self._store.transaction():
                self._store.delete(self._acks)
                self._store.give_back(self._delay_clock())
                self._store.count_return(self._parked.in_hand)
