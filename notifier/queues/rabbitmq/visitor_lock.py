"""Lets one visit to the dead letters run at a time, across all processes.

Of two visits at once each would see only a part. So a visit holds an exclusive queue, which goes with its connection. A
user who may not declare such a queue visits without it.
"""

import asyncio

from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource

from notifier.model.errors import QueueUnavailable
from notifier.queues.rabbitmq.connection import Connection, asking, open_channel

BUSY_FOR = 15.0  # seconds to wait for another visit's end; an export of the API waits for its reader for ten at most
BUSY_EVERY = 0.2


async def hold_alone(connection: Connection, name: str, busy_for: float, what: str = "the dead letters") -> None:
    """Hold the queue of this name until the connection ends. Raises QueueUnavailable if another visit holds it."""
    deadline = asyncio.get_running_loop().time() + busy_for
    while True:
        channel = await open_channel(connection)
        async with asking(f"cannot look at {what}"):
            try:
                await channel.queue_declare(name, exclusive=True, auto_delete=True)
            except ChannelAccessRefused:
                return  # may not declare: another visit at the same time would see a part only, and lose nothing
            except ChannelLockedResource:
                if asyncio.get_running_loop().time() > deadline:
                    text = f"{what} are held by another command or request; wait for its end, or stop it"
                    raise QueueUnavailable(text) from None
            else:
                return
        await asyncio.sleep(BUSY_EVERY)
