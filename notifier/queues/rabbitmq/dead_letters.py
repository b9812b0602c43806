"""Opens passes over the dead letters on RabbitMQ (see `queue_pass`), each on a dedicated connection, one at a time.

Two simultaneous passes, over the dead letters or over the pending deliveries, would read only a part each. So a pass
holds a `PassLock`. The passes of one process follow each other, without a connection while they wait. A process holds
an exclusive queue, which ends with its connection, and shows workers that messages are held. The broker closes the
connection of a frozen process after three heartbeats, 30 s, so others wait for longer. For a user who may not declare
such a queue, passes run without it.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource

from notifier.model.errors import QueueBusy, QueueError
from notifier.model.message import DEAD
from notifier.model.shared_resources import shared_lock
from notifier.queues.passes import OnWait, Reader, ignore_holder
from notifier.queues.queue_port import ANOTHER_HOLDER, NameHolder, name_another
from notifier.queues.rabbitmq.connection import (
    Connection,
    broker_request,
    channel_of,
    close_bounded,
    connect,
    open_channel,
)
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.queue_pass import PublishMessage, RabbitPass
from notifier.queues.rabbitmq.request_pipeline import pipelined
from notifier.queues.rabbitmq.topology import find_queues

WAITING = "waiting"
_NOUNS = {DEAD: "the dead letters", WAITING: "the waiting deliveries"}  # in errors
BUSY_TIMEOUT_SECONDS = 40.0  # wait for the pass of another process: a frozen one is replaced
SECONDS_PER_MESSAGE = 0.001  # … and this much longer for each message: a pass over 100,000 takes 8 to 27 s
BUSY_RETRY_SECONDS = 0.2
YIELD_SHARE, MAX_YIELD_SECONDS = 0.1, 0.5  # pause of a process after a pass, of its duration: others get their turn
NAMING_DELAY_SECONDS, NAMING_INTERVAL_SECONDS = 2.0, 10.0  # of a pass that waits: it asks who holds the messages


def lock_queue(options: RabbitOptions, messages: str) -> str:
    """Return the name of the queue that a pass over `messages` (DEAD or WAITING) holds."""
    return f"{options.prefix}.{messages}.visitor"


class PassLock:
    """The lock of the passes over `messages` (DEAD or WAITING), which errors call `noun`."""

    def __init__(self, options: RabbitOptions, messages: str) -> None:
        self._options = options
        self._messages = messages
        self.noun = _NOUNS[messages]
        self._own = shared_lock()
        self._next_pass_at = 0.0

    @asynccontextmanager
    async def hold(
        self,
        queues: Sequence[str],
        busy_for: float,
        name_holder: NameHolder = name_another,
        on_wait: OnWait = ignore_holder,
    ) -> AsyncIterator[Connection]:
        """Yield a new connection that holds the messages of `queues` (full names) in the block.

        Wait for passes of this process without a limit, since they end; for another process `busy_for` seconds, and
        longer for many messages; with 0 wait for neither. `on_wait` receives the holder's name. Raises QueueBusy, or
        another QueueError.
        """
        if not busy_for and self._own.locked():
            raise self._busy(ANOTHER_HOLDER)
        monotonic = asyncio.get_running_loop().time
        names = [ANOTHER_HOLDER]
        naming = asyncio.create_task(_keep_naming(name_holder, on_wait, names))
        try:
            async with self._own:
                await asyncio.sleep(self._next_pass_at - monotonic())
                connection = await connect(self._options, self.noun)
                began_at = monotonic()
                try:
                    await self._declare(connection, queues, busy_for, names)
                    naming.cancel()
                    began_at = monotonic()
                    yield connection
                finally:
                    await close_bounded(connection.close())
                    now = monotonic()
                    self._next_pass_at = now + min(MAX_YIELD_SECONDS, YIELD_SHARE * (now - began_at))
        finally:
            naming.cancel()

    async def _declare(
        self, connection: Connection, queues: Sequence[str], busy_for: float, names: Sequence[str]
    ) -> None:
        """Declare the exclusive queue, once no other process has it. Raises QueueBusy with the last of the `names`."""
        monotonic, name = asyncio.get_running_loop().time, lock_queue(self._options, self._messages)
        busy_until: float | None = None
        while True:
            channel = await open_channel(connection)
            async with broker_request(f"cannot look at {self.noun}"):
                try:
                    await channel.queue_declare(name, exclusive=True, auto_delete=True)
                except ChannelLockedResource:
                    if busy_until is None:
                        seconds = SECONDS_PER_MESSAGE * await _count(connection, queues) if busy_for else 0.0
                        busy_until = monotonic() + busy_for + seconds
                except ChannelAccessRefused:
                    break
                else:
                    break
            if monotonic() >= busy_until:
                raise self._busy(names[-1])
            await asyncio.sleep(BUSY_RETRY_SECONDS)

    def _busy(self, holder: str) -> QueueBusy:
        return QueueBusy(f"{self.noun} are held by {holder}; wait for its end, or stop it")


async def _keep_naming(name_holder: NameHolder, on_wait: OnWait, names: list[str]) -> None:
    """Put the holder's current name into `names`, and report it, until cancelled."""
    await asyncio.sleep(NAMING_DELAY_SECONDS)
    while True:
        names[:] = [await name_holder()]
        on_wait(names[-1])
        await asyncio.sleep(NAMING_INTERVAL_SECONDS)


async def _count(connection: Connection, queues: Sequence[str]) -> int:
    """Return the number of ready messages in these queues. Raises QueueUnavailable."""
    async with pipelined(connection) as pipeline:
        return sum(queue.message_count or 0 for queue in await find_queues(pipeline, queues) if queue is not None)


S = TypeVar("S")


class RabbitDeadLetters:
    """The dead letters of one prefix. `publish` makes a message durable in a queue, as in the queue port.

    `lock`: of all passes over them in this process. `busy_for`: seconds to wait for a pass of another process.
    """

    def __init__(
        self,
        options: RabbitOptions,
        publish: PublishMessage,
        lock: PassLock,
        name_holder: NameHolder = name_another,
        *,
        busy_for: float = BUSY_TIMEOUT_SECONDS,
    ) -> None:
        self._queue = f"{options.prefix}.{DEAD}"
        self._publish = publish
        self._lock, self._name_holder = lock, name_holder
        self._busy_for = busy_for

    @asynccontextmanager
    async def open_pass(self, read: Reader[S], *, on_wait: OnWait = ignore_holder) -> AsyncIterator[RabbitPass[S]]:
        """Open one pass over the dead letters. Raises QueueError if the queue is missing or another pass runs."""
        async with (
            self._lock.hold((self._queue,), self._busy_for, self._name_holder, on_wait) as connection,
            channel_of(connection) as channel,
        ):
            queue_pass = RabbitPass(channel, self._queue, self._publish, read, origin=DEAD, what=self._lock.noun)
            try:
                await queue_pass.begin()
                yield queue_pass
            except BaseException:
                await queue_pass.take_returned()
                with suppress(QueueError):  # the first error is reported
                    await queue_pass.wait_until_deleted()
                raise
            await queue_pass.take_returned()
            await queue_pass.wait_until_deleted()
