"""The register on RabbitMQ: the only message of a quorum queue with `x-max-length: 1` and `x-overflow: drop-head`.

Whoever gets the message holds it: nobody else can read or change it until that channel ends. A reader closes its
channel at once, and the message returns. A writer publishes the new message, and acks the old one after the confirm. If
it dies in between, the old message returns to the head of a queue that has a newer one, and is dropped.

So an empty queue means that another process holds the message, for a millisecond. If this process has seen it empty for
HELD_SECONDS, when the broker has closed the connection of a frozen process (30 s, measured), the message is lost: by a
purge or a policy. Then the process writes its copy, and logs that. It does so too if it finds an older document than
its copy.

Reads have a connection, which stays open: one of a hundred new connections to 4.0.5 took 5 s. A change has another one,
since an alarm blocks a connection that has published, also for reads. It is tried before the message is held: a
change that an alarm blocks is lost when its connection ends (3.10.8), and nobody reads the pauses meanwhile.
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

import aiormq
import structlog
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp import commands

from notifier.model.errors import ChangeUncertain, QueueError, QueueUnavailable, TopologyMismatch
from notifier.model.pauses import NO_PAUSES, PauseDocument, read_pauses, write_pauses
from notifier.model.shared_resources import shared_lock
from notifier.queues.rabbitmq.connection import (
    CONNECTION_ERRORS,
    HEARTBEAT_SECONDS,
    Connection,
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
_LOST = "its queue had lost the document: a policy, a purge or a deletion; other pauses may be missing"
_UNCERTAIN = "the broker has not confirmed the change; it takes effect afterwards, or is lost: see the pauses"

_Held: TypeAlias = tuple[aiormq.Channel, PauseDocument | None, int]
"""A channel, the document that it holds, None if the queue has been empty for long enough, and its message's tag."""


class RabbitRegister:
    """The register of one process. `on_missing` is called if the queue does not exist.

    `is_new`: this process has just declared it. `copy`: the newest document that this process has seen.
    """

    def __init__(
        self, options: RabbitOptions, on_missing: Callable[[], None] = lambda: None, *, is_new: bool = False
    ) -> None:
        self._options = options
        self._queue = f"{options.prefix}.{REGISTER}"
        self._on_missing, self._is_new = on_missing, is_new
        self._connection: Connection | None = None  # for reads
        self._has_read = self._is_ahead = False
        self._reading = shared_lock()
        self._empty_since, self._empty_at = 0.0, -math.inf  # since when and when last the queue was seen empty
        self.copy = NO_PAUSES

    def on_declared(self) -> None:
        """Note that this process has just declared the queue, so that an empty one need not be waited for."""
        self._is_new = True

    async def connect_ahead(self) -> None:
        """Open the connection for reads before the first read, which would wait for it for five round trips.

        The first read then leaves the first document of a new queue, fourteen more, to the second one, which follows.
        """
        self._is_ahead = True
        with suppress(QueueError):  # the next read raises it
            async with self._reading:
                await self._connect()

    async def _connect(self) -> Connection:
        """Return the connection for reads, opened again after a loss. Raises QueueError."""
        # aio-pika's `is_closed` is False after a loss.
        if self._connection is None or underlay_of(self._connection).is_closed:
            await self.close()
            self._connection = await connect(self._options, REGISTER)
        return self._connection

    async def read(self) -> PauseDocument:
        """Return the document, restored from the copy if it is lost or older. Raises QueueError."""
        async with self._reading:
            connection = await self._connect()
            try:
                async with self._hold(connection, READ_SECONDS) as (_, document, _):
                    found = document
            except QueueUnavailable:
                await self.close()  # the next read opens another connection
                raise
        is_first, self._has_read = not self._has_read, True
        if found is None and self._is_new and is_first and self._is_ahead:
            return self.copy
        if found is None or found.version < self.copy.version:
            return await self.change(lambda document: document)
        self.copy = found
        return found

    async def close(self) -> None:
        """Close the connection for reads."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await close_bounded(connection.close())

    async def change(self, edit: Callable[[PauseDocument], PauseDocument]) -> PauseDocument:
        """Replace the document, and return the new one once it is confirmed. Raises QueueError, ChangeUncertain."""
        async with connected(self._options, f"{REGISTER}-change") as connection:
            await _require_publishing(connection)
            async with self._hold(connection, HELD_SECONDS + READ_SECONDS, confirms=True) as (channel, held, tag):
                present = (held or NO_PAUSES).merge(self.copy)
                changed = edit(present)
                if changed is not held:
                    await self._replace(channel, tag, write_pauses(changed))
                    if self.copy.version and present is not held:
                        log = structlog.get_logger()
                        log.warning("pauses_restored", reason=_LOST, help="notifier explain NotifierPausesUnread")
                self.copy, self._is_new = changed, False
                return changed

    async def _replace(self, channel: aiormq.Channel, tag: int, document: bytes) -> None:
        properties = commands.Basic.Properties(delivery_mode=2, content_type="application/json")
        try:
            async with broker_timeout(CONFIRM_SECONDS):
                await channel.basic_publish(document, routing_key=self._queue, mandatory=True, properties=properties)
        except (*CONNECTION_ERRORS, QueueUnavailable) as error:
            raise ChangeUncertain(f"{_UNCERTAIN} ({reason_of(error)})") from error
        if tag:
            with suppress(*CONNECTION_ERRORS, QueueError):  # without an ack the old message returns, and is dropped
                async with broker_timeout(CONFIRM_SECONDS):
                    await channel.basic_ack(tag)

    @asynccontextmanager
    async def _hold(self, connection: Connection, within: float, *, confirms: bool = False) -> AsyncIterator[_Held]:
        """Hold the message for the block, once nobody else does so. Raises QueueError."""
        give_up_at = time.monotonic() + within
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
                    self._empty_at, self._is_new = -math.inf, False
                    yield channel, read_pauses(bytes(found.body)), found.delivery_tag
                    return
                now = time.monotonic()
                if now - self._empty_at > READ_SECONDS:  # not seen meanwhile, such as after a suspension
                    self._empty_since = now
                self._empty_at = now
                if now - self._empty_since >= HELD_SECONDS or self._is_new:
                    yield channel, None, 0
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
