"""Opens passes over the dead letters on RabbitMQ (see `queue_pass`), each on a dedicated connection, one at a time.

Two simultaneous passes would read only a part each. So a pass holds an exclusive queue, which ends with its connection,
and shows workers that dead letters are held. For a user who may not declare such a queue, the pass runs without it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource

from notifier.model.errors import QueueError, QueueUnavailable
from notifier.model.message import DEAD
from notifier.queues.passes import Reader
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

BUSY_TIMEOUT_SECONDS = 15.0  # wait for another pass's end; an export of the API waits up to 10 s for its reader
BUSY_RETRY_SECONDS = 0.2


def lock_queue(options: RabbitOptions, messages: str) -> str:
    """Return the name of the queue that a pass over `messages` (`dead` or `waiting`) holds."""
    return f"{options.prefix}.{messages}.visitor"


async def hold_exclusively(connection: Connection, name: str, busy_for: float, what: str = "the dead letters") -> None:
    """Hold the queue of this name until the connection ends.

    Raises QueueUnavailable if another pass holds it for `busy_for` seconds.
    """
    deadline = asyncio.get_running_loop().time() + busy_for
    while True:
        channel = await open_channel(connection)
        async with broker_request(f"cannot look at {what}"):
            try:
                await channel.queue_declare(name, exclusive=True, auto_delete=True)
            except ChannelAccessRefused:
                return  # may not declare: simultaneous passes would read a part each, and lose nothing
            except ChannelLockedResource:
                if asyncio.get_running_loop().time() > deadline:
                    text = f"{what} are held by another command or request; wait for its end, or stop it"
                    raise QueueUnavailable(text) from None
            else:
                return
        await asyncio.sleep(BUSY_RETRY_SECONDS)


S = TypeVar("S")


class RabbitDeadLetters:
    """The dead letters of one prefix. `publish` makes a message durable in a queue, as in the queue port.

    `busy_for`: seconds to wait for another pass's end.
    """

    def __init__(
        self, options: RabbitOptions, publish: PublishMessage, *, busy_for: float = BUSY_TIMEOUT_SECONDS
    ) -> None:
        self._options = options
        self._publish = publish
        self._busy_for = busy_for

    @asynccontextmanager
    async def open_pass(self, read: Reader[S]) -> AsyncIterator[RabbitPass[S]]:
        """Open one pass over the dead letters. Raises QueueError if the queue is missing or another pass runs."""
        connection = await connect(self._options, "dead letters")
        try:
            await hold_exclusively(connection, lock_queue(self._options, DEAD), self._busy_for)
            async with channel_of(connection) as channel:
                queue = f"{self._options.prefix}.{DEAD}"
                queue_pass = RabbitPass(channel, queue, self._publish, read, origin=DEAD, what="the dead letters")
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
        finally:
            await close_bounded(connection.close())
