"""The one thread that does all SQLite work. What arrives while a commit runs rides in the next one.

Rules of this module:
- One turn is one transaction: acks, publishes, what came due, what the lanes have room for. Then one call to the loop
  tells everything that came of it. So a turn costs one fsync and two changes of thread, however much is in it.
- Nothing is told before it is durable, and nothing of a turn is remembered before its commit.
- A failed commit refuses its publishes, keeps its acks for the next, and is tried again a poll later. Only damage of
  the file ends the thread of a worker: it does not pass, and writing on would make it worse.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from sqlite3 import Connection
from typing import TypeVar, assert_never

from notifier.adapters.feed.feed_table import Retention
from notifier.adapters.queues.sqlite.file import examine
from notifier.adapters.queues.sqlite.handover import Ack, Call, FutureResult, Insert, Operation, Report
from notifier.adapters.queues.sqlite.lock import WorkerLock, worker_at
from notifier.adapters.queues.sqlite.store import QUEUES, Store
from notifier.domain.defaults import PREFETCH
from notifier.domain.errors import QueueError, QueueUnavailable, TopologyMismatch
from notifier.domain.fate import FeedNotice
from notifier.domain.message import Depth, Lane, Message

T = TypeVar("T")
POLL = 0.25  # seconds between looks for what another process wrote; a look reads one number
TAKE_AT_ONCE = 128  # messages a lane and turn: 16 MiB of bodies at the largest event


def from_now_on() -> Callable[[], float]:
    """The wall clock as it stands now, and from now on at an even pace, however the wall clock is set meanwhile."""
    ahead = time.time() - time.monotonic()
    return lambda: ahead + time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteOptions:
    """Where the file is, how many unacked messages a lane may have (a lane left out: the default), whose time it is.

    `clock` tells when a message was published. Delays go by `pace`, in epoch seconds too, since another process goes on
    with them: by the wall clock, all would end at once when it is set an hour ahead, and last an hour more when back.
    """

    path: Path
    prefetch: Mapping[Lane, int] = field(default_factory=lambda: PREFETCH)
    clock: Callable[[], float] = time.time
    pace: Callable[[], float] = field(default_factory=from_now_on)


@dataclass(slots=True, kw_only=True)
class _Lane:
    """What the thread knows of a lane. `hungry`: there may be more beyond `taken_to`."""

    room: int
    taken_to: int = 0
    hungry: bool = True


class Writer:
    """Does all work on the queue file, on a thread of its own.

    `put` is for the loop, `run` for the thread, the rest for `Call`s. `tell` runs on the thread.
    """

    def __init__(self, options: SqliteOptions, tell: Callable[[Report], object]) -> None:
        self._path = options.path
        self._pace = options.pace
        self._tell = tell
        self._inbox: SimpleQueue[Operation] = SimpleQueue()
        self._now_doing: Sequence[Operation] = ()
        self._lanes = {lane: _Lane(room=options.prefetch.get(lane, PREFETCH[lane])) for lane in Lane}
        self._store: Store | None = None
        self._lock: WorkerLock | None = None
        self._acks: list[int] = []
        self._problem: str | None = None
        self._damage: str | None = None
        self._consuming = False
        self._closing = False
        self._next_due: float | None = None
        self._next_look = 0.0  # by the monotonic clock
        self._seen_elsewhere: int | None = None

    def put(self, operation: Operation) -> None:
        """Hand an operation to the thread. Never waits."""
        self._inbox.put(operation)

    def run(self) -> None:
        """The thread: turns until `finish`."""
        try:
            while not self._closing:
                self._now_doing = self._gather()
                self._turn(self._now_doing)
                self._now_doing = ()
        finally:  # by a fault of ours too: nobody may wait for ever, and the next worker may start
            if self._store is not None:
                self._store.close()
            if self._lock is not None:
                self._lock.release()
            closed = f"the queue {self._path} was closed"
            self._report(Report(connected=False, problem=self._damage or closed, damage=self._damage, ended=True))

    def abandoned(self) -> list[Operation]:
        """What nobody will do any more, once the thread has ended."""
        left = list(self._now_doing)
        while not self._inbox.empty():
            left.append(self._inbox.get_nowait())
        return left

    def _report(self, report: Report) -> None:
        try:
            self._tell(report)
        except RuntimeError:  # the loop was closed before the queue: there is nobody left to work for
            self._closing = True

    def _gather(self) -> list[Operation]:
        operations: list[Operation] = []
        try:
            operations.append(self._inbox.get(timeout=self._patience()))
            while True:
                operations.append(self._inbox.get_nowait())
        except Empty:
            return operations

    def _patience(self) -> float | None:
        """Seconds until there is something to do although nobody asks."""
        if self._problem is not None:
            return POLL
        if self._lock is None:
            return None
        if self._takers():
            return 0.0
        return POLL if self._next_due is None else min(POLL, max(0.0, self._next_due - self._pace()))

    def _turn(self, operations: Sequence[Operation]) -> None:
        publishes: list[Insert] = []
        calls: list[Call] = []
        for operation in operations:
            match operation:
                case Insert():
                    publishes.append(operation)
                case Ack():
                    self._acks.append(operation.id)
                    self._lanes[operation.lane].room += 1
                case Call():
                    calls.append(operation)
                case _:
                    assert_never(operation)
        before, taken = self._problem, list[Message]()
        try:
            if before is not None:
                self._opened().reclaim()
                taken += self._commit([])  # acks without publishes first: on a full disk they make room
            taken += self._commit(publishes)
            self._problem = None
        except QueueError as error:
            self._problem = str(error)
            if isinstance(error, TopologyMismatch) and self._lock is not None:
                self._damage, self._closing = str(error), True
        problem = self._problem
        answers = [
            FutureResult(p.done, error=None if problem is None else QueueUnavailable(problem)) for p in publishes
        ]
        answers += [self._answer(call) for call in calls]
        if answers or taken or self._problem != before:
            connected = self._store is not None
            self._report(Report(connected=connected, answers=answers, taken=taken, problem=self._problem))

    def _commit(self, publishes: Sequence[Insert]) -> list[Message]:
        """One transaction. Returns what was taken in it."""
        store = self._opened()
        rows = [publish.row for publish in publishes]
        for row in rows:
            if row.due is None and row.queue in self._lanes:
                self._lanes[Lane(row.queue)].hungry = True
        seen = self._look_elsewhere(store)
        if recount := seen != self._seen_elsewhere:
            for any_lane in self._lanes.values():
                any_lane.hungry = True
        now = self._pace()
        due = self._lock is not None and self._next_due is not None and self._next_due <= now
        if due:
            self._lanes[Lane.RETRIES].hungry = True
        takers = self._takers()
        if not (rows or self._acks or takers or recount):
            return []
        with store.transaction():
            store.delete(self._acks)
            store.insert(rows)
            if due:
                store.move_due(now)
            pages = {lane: store.read(lane, self._lanes[lane].taken_to, limit) for lane, limit in takers.items()}
            for lane, page in pages.items():
                if page:
                    store.take_to(lane, page[-1][0])
            dues = [store.next_due()] if due or recount else [self._next_due, *(row.due for row in rows)]
        self._acks.clear()
        self._seen_elsewhere = seen
        self._next_due = min((moment for moment in dues if moment is not None), default=None)
        for lane, page in pages.items():
            self._remember(lane, page, takers[lane])
        return [message for page in pages.values() for _, message in page]

    def _takers(self) -> dict[Lane, int]:
        """How much each lane that may have more can take now."""
        if not self._consuming:
            return {}
        return {name: min(lane.room, TAKE_AT_ONCE) for name, lane in self._lanes.items() if lane.hungry and lane.room}

    def _remember(self, name: Lane, page: Sequence[tuple[int, Message]], limit: int) -> None:
        lane = self._lanes[name]
        lane.hungry = len(page) == limit
        lane.room -= len(page)
        if page:
            lane.taken_to = page[-1][0]

    def _look_elsewhere(self, store: Store) -> int | None:
        """A number that is another one once another process wrote. The last one where it is too soon to look."""
        if self._lock is None or time.monotonic() < self._next_look:
            return self._seen_elsewhere
        seen = store.changes_elsewhere()
        self._next_look = time.monotonic() + POLL
        return seen

    def _answer(self, call: Call) -> FutureResult:
        try:
            return FutureResult(call.done, result=call.run())
        except QueueError as error:
            return FutureResult(call.done, error=error)

    def _opened(self) -> Store:
        if self._store is None:
            if not worker_at(self._path):  # else that has done so, and the file may be large
                examine(self._path)
            self._store = Store.open(self._path)
        return self._store

    def check(self) -> None:
        """Raise QueueError where the file cannot be used."""
        self._opened()

    def start_consuming(self) -> None:
        """Take from now on. Raises QueueUnavailable where another worker does."""
        store = self._opened()
        if self._lock is None:
            lock = WorkerLock(self._path)
            store.reclaim()
            try:
                with store.transaction():
                    store.give_back(self._pace())  # what a worker had that did not come to its end
                    store.bound_delays(self._pace())
                    store.join_hops()
            except BaseException:
                lock.release()
                raise
            self._lock = lock
        self._consuming = True

    def stop_consuming(self) -> None:
        """Take no more. What was taken can still be acked."""
        self._consuming = False

    def depths(self) -> dict[str, Depth]:
        """What waits in every queue."""
        consumed = self._lock is not None or worker_at(self._path)
        ready = self._opened().depths(consumed=consumed)
        return {
            queue: Depth(ready=ready.get(queue, 0), consumers=int(consumed and queue in self._lanes))
            for queue in QUEUES
        }

    def browse(self, queue: str, limit: int) -> list[Message]:
        """The first ready messages of a queue."""
        return self._opened().browse(queue, limit, consumed=self._lock is not None or worker_at(self._path))

    def keep_notices(self, batch: Sequence[FeedNotice], retention: Retention) -> None:
        """Write notices of the feed, in a transaction of their own: a failure must not concern deliveries."""
        if self._problem is not None:
            raise QueueUnavailable(self._problem)
        store = self._opened()
        with store.transaction():
            store.keep_notices(batch, retention, self._pace())

    def use(self, work: Callable[[Connection], T], *, writing: bool) -> T:
        """Have this done on the open file."""
        return self._opened().use(work, writing=writing)

    def visit(self, work: Callable[[Store], T], *, writing: bool) -> T:
        """Have this done on the store. The lanes look again after a change: it may have fed them."""
        store = self._opened()
        for lane in self._lanes.values():
            lane.hungry |= writing
        return store.use(lambda _: work(store), writing=writing)

    def finish(self) -> None:
        """The last turn: what was taken and not acked is given back."""
        self._consuming = False
        self._closing = True
        if self._store is not None and self._lock is not None:
            with self._store.transaction():
                self._store.delete(self._acks)
                self._store.give_back(self._pace())
