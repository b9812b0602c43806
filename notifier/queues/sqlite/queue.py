"""The embedded queue, for the event loop. Only the writer's thread uses SQLite.

The queue stores the tag of a taken message until it is acked. An ack of any other message has no effect.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import NoReturn, TypeVar

import structlog

from notifier.model.backoff import MIN_WAIT_SECONDS, Rounding
from notifier.model.errors import QueueError, QueueUnavailable
from notifier.model.message import DEAD, Depth, Lane, Message, MessageDraft, QueueStatus
from notifier.model.own_thread import read_in_thread
from notifier.model.shared_resources import start_thread
from notifier.queues.queue_port import EncodeNotice, Inbox, NameHolder, name_another
from notifier.queues.queue_state import FileState, QueueOverview, WorkerAnswers
from notifier.queues.sqlite.feed_target import SqliteFeedTarget
from notifier.queues.sqlite.file import examine_file
from notifier.queues.sqlite.lock import find_moved_file
from notifier.queues.sqlite.options import SqliteOptions
from notifier.queues.sqlite.register import SqliteRegister
from notifier.queues.sqlite.row_passes import SqlitePasses
from notifier.queues.sqlite.rows import (
    LONGEST_DELAY,
    Ack,
    Call,
    Insert,
    NewRow,
    RowTag,
    SetAside,
    WriterReport,
    event_row,
    new_row,
    queue_of_wait,
)
from notifier.queues.sqlite.side_channel import SqliteSideChannel
from notifier.queues.sqlite.store import Rows, Store
from notifier.queues.sqlite.writer import Writer

_NOT_OPEN = "not open"
EXAMINE_SECONDS = 300.0  # of the whole file
_RETRY_PAUSE_SECONDS = 0.5  # between attempts to publish while the file is not writable
_Result = TypeVar("_Result")


class SqliteQueue:
    """A queue in one SQLite file. A closed queue can be opened again."""

    def __init__(self, options: SqliteOptions) -> None:
        self._options = options
        self._writer: Writer | None = None
        self._inbox: Inbox | None = None  # `on_lost` is never called: a file has no connection to lose
        self._held: dict[int, RowTag] = {}
        self._connected = False
        self._problem: str | None = _NOT_OPEN
        self._consuming = False
        self._ended = asyncio.Event()
        self._damage: str | None = None
        self.side_channel, self.register = SqliteSideChannel(self, options.clock), SqliteRegister(self)
        self._tasks: list[asyncio.Task[object]] = []
        self._log = structlog.get_logger()

    async def open(self) -> None:
        """Start the thread, and open or create the file. Never raises; `wait_until_ready` and each use raise."""
        if self._writer is not None:
            return
        self._ended.clear()
        loop = asyncio.get_running_loop()
        self._writer = Writer(self._options, lambda report: loop.call_soon_threadsafe(self._on_report, report))
        start_thread("sqlite-queue", self._writer.run)
        self._tasks = [asyncio.create_task(work()) for work in self.side_channel.tasks()]
        with suppress(QueueError):
            await self.wait_until_ready()

    async def wait_until_ready(self) -> None:
        """Return if the file can be used. Raises QueueUnavailable, or TopologyMismatch if the file is not ours."""
        await self._call(self._require_writer().check)

    async def wait_until_broken(self) -> NoReturn:
        """Raise QueueError once the queue's thread has ended because of a damaged file or a bug."""
        await self._ended.wait()
        fault = f"the thread that serves the queue {self._options.path} has ended; restart the service"
        raise QueueError(self._damage or fault)

    async def consume(self, inbox: Inbox) -> None:
        """Pass messages to `inbox` from now on. Raises QueueUnavailable if another worker has the file."""
        self._inbox = inbox
        await self._call(self._require_writer().start_consuming)
        self._consuming = True

    async def stop_consuming(self) -> None:
        """Take no further messages. Messages already taken can still be acked."""
        self._consuming = False
        if self._writer is not None:
            await self._call(self._writer.stop_consuming)

    async def close(self) -> None:
        """Make every ack durable, return unacked messages, close the file. Never raises."""
        for task in self._tasks:
            task.cancel()
        if self._writer is None:
            return
        with suppress(QueueError):  # if the last commit fails, its messages are delivered again
            await self.stop_consuming()
            await self._call(self._writer.finish)
        await self._ended.wait()  # the last report of the thread, which has closed the file

    def ack(self, message: Message) -> None:
        """Delete the message with the next commit. No effect if the message is no longer held."""
        tag = message.tag
        if self._writer is not None and isinstance(tag, RowTag) and self._held.get(tag.id) is tag:
            del self._held[tag.id]
            self._writer.put(Ack(tag.id, message.lane, tag.bucket))

    def set_aside(self, message: Message) -> None:
        """Let the lane take another message before the ack of this one. No effect if it is no longer held."""
        tag = message.tag
        if isinstance(tag, RowTag) and tag.bucket is None and self._held.get(tag.id) is tag:
            self._require_writer().put(SetAside(tag.id, message.lane))

    async def publish(self, queue: str, message: MessageDraft) -> None:
        """Return once the message is on disk. Raises QueueUnavailable if closed, locked, full, or no such queue."""
        if queue not in {*Lane, DEAD}:
            raise QueueUnavailable(f"there is no queue {queue!r}")
        await self._write(new_row(queue, message, self._options.clock()))

    async def publish_later(self, message: MessageDraft, *, due: float, rounding: Rounding = "down") -> None:  # noqa: ARG002
        """Return once the message is on disk. The due time is not rounded. Raises QueueUnavailable."""
        now = self._options.clock()
        wait = max(MIN_WAIT_SECONDS, due - now)
        await self._write(new_row(queue_of_wait(wait), message, now, due=self._options.delay_clock() + wait))

    async def send_event(
        self, lane: Lane, body: bytes, *, message_id: str | None, content_type: str = "application/json"
    ) -> None:
        """Insert an event to events or bulk, as any publisher does. Raises QueueUnavailable."""
        headers = self.side_channel.event_headers
        await self._write(event_row(lane, body, message_id, content_type, headers, self._options.clock()))

    def bucket(self, client: tuple[str, str], *, large: bool = False) -> str:  # noqa: ARG002  none is shared
        """Return the name of the client's bucket, which no other client shares."""
        return json.dumps(client)

    def inherited_buckets(self, *, at_start: bool) -> Sequence[str]:  # noqa: ARG002
        """Return no buckets: parked messages become retries when a worker starts."""
        return ()

    async def park(self, bucket: str, message: MessageDraft, *, until: float) -> None:
        """Return once it is on disk. It is a retry from `until` or a worker's start on. Raises QueueUnavailable."""
        now = self._options.clock()
        await self._write(
            new_row(LONGEST_DELAY, message, now, due=self._options.delay_clock() + (until - now), parked=bucket)
        )

    async def fetch(self, bucket: str, most: int) -> Sequence[Message]:
        """Take messages out of the bucket, oldest first, to be acked. Raises QueueUnavailable before `consume`."""
        writer, fetched = self._require_writer(), list[Message]()
        try:
            await self._call(partial(writer.fetch, bucket, most, fetched))
        except asyncio.CancelledError:  # release the fetched rows; nobody awaits that
            unused_future = asyncio.get_running_loop().create_future()
            unused_future.cancel()
            writer.put(Call(partial(writer.put_back, bucket, fetched), unused_future))
            raise
        if self._writer is not writer:
            raise QueueUnavailable(f"the queue {self._options.path} was closed")
        self._hold_tags(fetched)
        return fetched

    async def count_parked(self, buckets: Collection[str] | None = None) -> Mapping[str, int]:
        """Return the number of messages per bucket. Raises QueueUnavailable."""
        return await self._call(partial(self._require_writer().count_parked, buckets))

    async def wait_until_available(self) -> None:
        """Wait half a second if the file was not writable, and then let the caller try again. Never raises."""
        await asyncio.sleep(0 if self._problem is None else _RETRY_PAUSE_SECONDS)

    def receive_replies(self, on_reply: Callable[[bytes], None]) -> None:
        """Request replies to the events sent here, and pass each to `on_reply`. Call before `open`."""
        self.side_channel.receive_replies(on_reply)

    def status(self) -> QueueStatus:
        """Return the state of the file. `blocked`: it is open and cannot be written."""
        blocked = self._connected and self._problem is not None
        return QueueStatus(connected=self._connected, consuming=self._consuming, blocked=blocked, problem=self._problem)

    async def depths(self) -> Mapping[str, Depth]:
        """Return the depth of every queue."""
        return await self._call(self._require_writer().depths)

    async def read_overview(self, within: float) -> QueueOverview:
        """Return the depths, and the worker's state if it answers in time. Raises QueueError."""
        async with self.temporarily_open():
            depths, oldest = await self.depths(), await self.use(Store.read_oldest, writing=False)
            blocked = await self._call(self._require_writer().describe_full_disk)
            states: Sequence[bytes] = []
            try:
                if depths[Lane.EVENTS].consumers:
                    states = await self.side_channel.request_state(within)
            except QueueUnavailable as error:  # a request to the worker is a write to the file
                blocked = blocked or str(error)
            return QueueOverview(
                depths=depths, oldest=oldest, worker_states=states, workers=depths[Lane.EVENTS].consumers,
                blocked=blocked or "",
            )  # fmt: skip

    async def request(self, document: bytes, within: float) -> WorkerAnswers:
        """Send a request to the worker; return its answer if it arrives in time. Raises QueueError."""
        async with self.temporarily_open():
            workers = (await self.depths())[Lane.EVENTS].consumers
            answers = await self.side_channel.request(document, within) if workers else []
            return WorkerAnswers(seen=workers, answers=answers)

    @asynccontextmanager
    async def temporarily_open(self) -> AsyncIterator[None]:
        """Open an existing file for the block, unless it is open already. Raises QueueError."""
        was_closed, path = self._writer is None, self._options.path
        if was_closed and not path.exists():
            text = f"there is no queue file {path} yet; a worker or a publisher makes it"
            raise QueueUnavailable(find_moved_file(path) or text)
        await self.open()
        try:
            await self.wait_until_ready()
            yield
        finally:
            if was_closed:
                await self.close()

    async def examine(self) -> FileState:
        """Return the state of the file, for the doctor. It need not be open."""
        examine = partial(examine_file, self._options.path)
        return await read_in_thread(str(self._options.path), examine, within=EXAMINE_SECONDS)

    def worker_count(self) -> int:
        """Return 1: the file has a single worker."""
        return 1

    def dead_letters(self, _name_holder: NameHolder = name_another) -> SqlitePasses:
        """Return the dead letters of this queue, while it is open."""
        return SqlitePasses(self, self._options.clock, self._options.delay_clock, Rows.DEAD)

    def waiting(self, _name_holder: NameHolder = name_another) -> SqlitePasses:
        """Return the pending deliveries of this queue, while it is open."""
        return SqlitePasses(self, self._options.clock, self._options.delay_clock)

    def feed_target(self, _encode: EncodeNotice) -> SqliteFeedTarget:
        """Return the target of the feed: a table in the same file, with a column for each member of a notice."""
        return SqliteFeedTarget(self, self._options.delay_clock, blocked=lambda: self.status().blocked)

    async def use(self, work: Callable[[Store], _Result], *, writing: bool = True) -> _Result:
        """Run `work` on the queue's thread, in one transaction if it writes. Raises QueueError."""
        return await self._call(partial(self._require_writer().use, work, writing=writing))

    def _require_writer(self) -> Writer:
        if self._writer is None:
            raise QueueUnavailable(f"the queue {self._options.path} is not open")
        return self._writer

    async def _write(self, row: NewRow) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._require_writer().put(Insert(row, done))
        await done

    async def _call(self, run: Callable[[], _Result]) -> _Result:
        done: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._require_writer().put(Call(run, done))
        return await done

    def _on_report(self, report: WriterReport) -> None:
        """Complete the operations of a writer's report, and pass the taken messages to the inbox. Runs on the loop."""
        former_problem = self._problem
        self._connected, self._problem, self._damage = report.connected, report.problem, report.damage
        report.complete()
        if report.taken and self._inbox is not None:
            self._hold_tags(report.taken)
            for message in report.taken:
                self._inbox.take(message)
        if report.ended:
            self._on_thread_end()
        elif report.problem is not None and report.problem != former_problem:  # last: logs may be on the same full disk
            self._log.warning("queue_file_unusable", reason=report.problem)
        elif report.problem is None and former_problem not in (None, _NOT_OPEN):
            self._log.info("queue_file_usable", file=str(self._options.path))

    def _hold_tags(self, taken: Sequence[Message]) -> None:
        self._held.update({message.tag.id: message.tag for message in taken if isinstance(message.tag, RowTag)})

    def _on_thread_end(self) -> None:
        """Fail all calls that wait for the ended thread. Acks of its messages have no effect."""
        writer, self._writer = self._require_writer(), None
        self._consuming = False
        self._held.clear()
        self._ended.set()
        for done in writer.take_abandoned():
            done.set_exception(QueueUnavailable(f"the queue {self._options.path} was closed"))
