"""One visit to the dead letters at a time, whichever processes they are of.

Two at once would each see only a part. So a visit holds an exclusive queue, which goes with its connection; who may
not declare one goes without.
"""

import asyncio

from aiormq.exceptions import AMQPError, ChannelAccessRefused, ChannelLockedResource

from notifier.adapters.queues.rabbitmq.connection import Connection, named_losses, open_channel, reason_of
from notifier.domain.errors import QueueUnavailable

BUSY_FOR = 15.0  # seconds to wait for another visit's end; an export of the API waits for its reader for ten at most
BUSY_EVERY = 0.2
RPC_TIMEOUT = 10.0


async def hold_alone(connection: Connection, name: str, busy_for: float) -> None:
    """Hold the queue of this name until the connection ends. Raises QueueUnavailable where somebody else has it."""
    deadline = asyncio.get_running_loop().time() + busy_for
    while True:
        channel = await open_channel(connection)
        try:
            with named_losses():
                async with asyncio.timeout(RPC_TIMEOUT):
                    await channel.queue_declare(name, exclusive=True, auto_delete=True)
        except ChannelLockedResource:
            if asyncio.get_running_loop().time() > deadline:
                text = "the dead letters are held by another command or request; wait for its end, or stop it"
                raise QueueUnavailable(text) from None
            await asyncio.sleep(BUSY_EVERY)
        except ChannelAccessRefused:
            return  # may not declare: another visit at the same time would see a part only, and lose nothing
        except (AMQPError, OSError, RuntimeError) as error:
            raise QueueUnavailable(f"cannot look at the dead letters: {reason_of(error)}") from error
        else:
            return
