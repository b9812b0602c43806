"""The register on RabbitMQ: the only message of a quorum queue with `x-max-length: 1` and `x-overflow: drop-head`.

Whoever gets the message holds it: nobody else can read or change it until that channel ends. A reader closes its
channel at once, and the message returns. A writer publishes the new message, and acks the old one after the confirm. If
it dies in between, the old message returns to the head of a queue that has a newer one, and is dropped.

So an empty queue means that another process holds the message, for a millisecond. After HELD_SECONDS, when the broker
has closed the connection of a frozen process (30 s, measured), it means that the message is lost: by a purge or a
policy. Then the process writes its copy. It does so too if it finds an older document than its copy.

Reads have a connection, which stays open: one of a hundred new connections to 4.0.5 took 5 s. A change has another one,
since an alarm blocks a connection that has published, also for reads. It is tried before the message is held: a
change that an alarm blocks is lost when its connection ends (3.10.8), and nobody reads the pauses meanwhile.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import aiormq
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp import commands

from notifier.model.errors import ChangeUncertain, QueueError, QueueUnavailable, TopologyMismatch
from notifier.model.moment import Clock
from notifier.model.pauses import NO_PAUSES, PauseDocument, merge_documents, read_pauses, write_pauses
from notifier.model.shared_resources import shared_lock
from notifier.queues.rabbitmq.connection import (
    CONNECTION_ERRORS,
    HEARTBEAT_SECONDS,
    Connection,
    broker_request,
    broker_timeout,
    channel_of,
    close_bounded,
    connect,
    connected,
    is_blocked,
    reason_of,
    underlay_of,
)
from notifier.queues.rabbitmq.options import RabbitOptions

REGISTER = "pauses"
REGISTER_ARGUMENTS: Mapping[str, str | int] = {"x-max-length": 1, "x-overflow": "drop-head"}
HELD_SECONDS = 4.0 * HEARTBEAT_SECONDS
POLL_SECONDS = 0.05
READ_SECONDS = 10.0  # for which a read waits for the message
TRIAL_SECONDS = 3.0
CONFIRM_SECONDS = 10.0
_UNCERTAIN = "the broker has not confirmed the change; it takes effect afterwards, or is lost: see the pauses"


@dataclass(frozen=True, slots=True)
class _Held:
    """The document that a channel holds; None if the queue has been empty for long enough. `tag`: of its message."""

    channel: aiormq.Channel
    document: PauseDocument | None
    tag: int = 0


class RabbitRegister:
    """The register of one process. `on_missing` is called if the queue does not exist.

    `copy`: the newest document that this process has seen.
    """

    def __init__(
        self, options: RabbitOptions, on_missing: Callable[[], None], monotonic: Clock = time.monotonic
    ) -> None:
        self._options = options
        self._queue = f"{options.prefix}.{REGISTER}"
        self._on_missing, self._monotonic = on_missing, monotonic
        self._is_new = False
        self._connection: Connection | None = None  # for reads
        self._reading = shared_lock()
        self._empty_since: float | None = None
        self.copy: PauseDocument | None = None

    def on_declared(self) -> None:
        """Note that this process has just declared the queue, so that an empty one need not be waited for."""
        self._is_new = True

    async def read(self) -> PauseDocument:
        """Return the document, restored from the copy if it is lost or older. Raises QueueError."""
        async with self._reading:
            found = await self._read()
        if found is None or (self.copy is not None and found.version < self.copy.version):
            return await self.change(lambda document: document)
        self.copy = found
        return found

    async def _read(self) -> PauseDocument | None:
        """Return the document; None if it is lost. Raises QueueError."""
        # aio-pika's `is_closed` is False after a loss.
        if self._connection is None or underlay_of(self._connection).is_closed:
            await self.close()
            self._connection = await connect(self._options, REGISTER)
        try:
            async with self._hold(self._connection, READ_SECONDS) as held:
                return held.document
        except QueueUnavailable:
            if self._empty_since is None:
                await self.close()  # the next read opens another connection
            raise

    async def close(self) -> None:
        """Close the connection for reads."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await close_bounded(connection.close())

    async def change(self, edit: Callable[[PauseDocument], PauseDocument]) -> PauseDocument:
        """Replace the document, and return the new one once it is confirmed. Raises QueueError, ChangeUncertain."""
        async with connected(self._options, f"{REGISTER}-change") as connection:
            await _require_publishing(connection)
            async with self._hold(connection, HELD_SECONDS + READ_SECONDS, confirms=True) as held:
                present = merge_documents(held.document or NO_PAUSES, self.copy or NO_PAUSES)
                changed = edit(present)
                if changed is not held.document:
                    await self._replace(held, changed)
                self.copy, self._is_new = changed, False
                return changed

    async def _replace(self, held: _Held, document: PauseDocument) -> None:
        properties = commands.Basic.Properties(delivery_mode=2, content_type="application/json")
        try:
            async with broker_timeout(CONFIRM_SECONDS):
                await held.channel.basic_publish(
                    write_pauses(document), routing_key=self._queue, mandatory=True, properties=properties
                )
        except (*CONNECTION_ERRORS, QueueUnavailable) as error:
            raise ChangeUncertain(f"{_UNCERTAIN} ({reason_of(error)})") from error
        if held.tag:
            with suppress(*CONNECTION_ERRORS, QueueError):  # without an ack the old message returns, and is dropped
                async with broker_timeout(CONFIRM_SECONDS):
                    await held.channel.basic_ack(held.tag)

    @asynccontextmanager
    async def _hold(self, connection: Connection, within: float, *, confirms: bool = False) -> AsyncIterator[_Held]:
        """Hold the message for the block, once nobody else does so. Raises QueueError."""
        give_up_at = self._monotonic() + within
        async with channel_of(connection, confirms=confirms) as channel:
            while True:
                try:
                    async with broker_timeout():
                        found = await channel.basic_get(self._queue)
                except ChannelNotFoundEntity:
                    self._on_missing()
                    text = f"there is no queue {self._queue}: declare it with `notifier topology declare`"
                    raise TopologyMismatch(text) from None
                except CONNECTION_ERRORS as error:
                    raise QueueUnavailable(f"cannot read {self._queue}: {reason_of(error)}") from error
                if found.delivery_tag:
                    self._empty_since, self._is_new = None, False
                    yield _Held(channel, read_pauses(bytes(found.body)), found.delivery_tag)
                    return
                now = self._monotonic()
                self._empty_since = now if self._empty_since is None else self._empty_since
                if now - self._empty_since >= HELD_SECONDS or self._is_new:
                    yield _Held(channel, None)
                    return
                if now >= give_up_at:
                    raise QueueUnavailable(f"{self._queue} is empty: another process holds its message, or it is lost")
                await asyncio.sleep(random.uniform(0.2, 1) * POLL_SECONDS)  # noqa: S311  spreads the processes


async def _require_publishing(connection: Connection) -> None:
    """Raise QueueUnavailable under an alarm, before the message is held: the broker then reads this connection no more.

    It reports an alarm only once a connection publishes: here a message to no queue.
    """
    try:
        async with channel_of(connection, confirms=True) as channel, broker_timeout(TRIAL_SECONDS):
            await channel.basic_publish(b"", routing_key=f"{REGISTER}-trial-without-a-queue")
    except (*CONNECTION_ERRORS, QueueUnavailable) as error:
        why = "an alarm of its memory or disk" if is_blocked(connection) else reason_of(error)
        raise QueueUnavailable(f"the broker takes no messages ({why}); nothing was changed, try again later") from error


async def fill_register(connection: Connection, queue: str) -> None:
    """Publish the first document to the queue, which has just been declared. Raises QueueUnavailable."""
    async with channel_of(connection, confirms=True) as channel, broker_request(f"cannot publish to {queue}"):
        properties = commands.Basic.Properties(delivery_mode=2, content_type="application/json")
        await channel.basic_publish(write_pauses(NO_PAUSES), routing_key=queue, mandatory=True, properties=properties)
