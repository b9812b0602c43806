"""What operators do over a connection of its own: declare, verify, survey and delete the topology, look around."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from aiormq.exceptions import AMQPError, ChannelNotFoundEntity

from notifier.adapters.queues.rabbitmq import topology
from notifier.adapters.queues.rabbitmq.connection import (
    Connection,
    close_channel,
    connect,
    finish,
    named_losses,
    open_channel,
    reason_of,
)
from notifier.adapters.queues.rabbitmq.delays import DELAY_QUEUES
from notifier.adapters.queues.rabbitmq.options import RabbitOptions
from notifier.adapters.queues.rabbitmq.side_channel import ask_workers
from notifier.adapters.queues.rabbitmq.topology import Standing
from notifier.adapters.queues.rabbitmq.wire.decoding import to_message
from notifier.domain.errors import QueueUnavailable
from notifier.domain.message import DEAD, Depth, Lane, Message
from notifier.domain.queue_state import QueueOverview

__all__ = ["Standing", "declare_topology", "delete_topology", "look_around", "survey_topology", "verify_topology"]

RPC_TIMEOUT = 10.0


async def declare_topology(options: RabbitOptions) -> None:
    """Declare what is missing. Raises TopologyMismatch, QueueError."""
    async with _connected(options) as connection:
        await topology.declare(connection, topology.topology_of(options.prefix))


async def verify_topology(options: RabbitOptions) -> None:
    """Check that nothing is missing or different. Raises TopologyMismatch with all that is wrong, QueueError."""
    async with _connected(options) as connection:
        await topology.verify(connection, topology.topology_of(options.prefix))


async def survey_topology(options: RabbitOptions) -> tuple[Standing, ...]:
    """What is there, what is missing, and what is different. Raises QueueError."""
    async with _connected(options) as connection:
        return await topology.survey(connection, topology.topology_of(options.prefix))


async def delete_topology(options: RabbitOptions) -> Mapping[str, int]:
    """Delete everything under the prefix. Returns how many ready messages went with each queue. Raises QueueError."""
    async with _connected(options) as connection:
        return await topology.delete(connection, topology.topology_of(options.prefix))


async def look_around(options: RabbitOptions, *, within: float) -> QueueOverview:
    """What waits, and the states of the workers that answer within so many seconds. Declares nothing.

    Raises QueueError.
    """
    async with _connected(options, "status") as connection:
        depths = await depths_at(connection, queue_names(options))
        states: list[bytes] = []
        if enough := depths[Lane.EVENTS].consumers if Lane.EVENTS in depths else 0:
            states = await ask_workers(connection, f"{options.prefix}.workers", within=within, enough=enough)
        return QueueOverview(depths=depths, oldest={}, worker_states=states)


def queue_names(options: RabbitOptions) -> dict[str, str]:
    """The full name of each queue, by its name without prefix."""
    return {name: f"{options.prefix}.{name}" for name in (*Lane, DEAD, *DELAY_QUEUES)}


async def depths_at(connection: Connection, names: Mapping[str, str]) -> dict[str, Depth]:
    """What waits in these queues (full names), by the keys of `names`; a missing queue is left out.

    Raises QueueUnavailable.
    """
    found: dict[str, Depth] = {}
    channel = await open_channel(connection)
    try:
        for key, name in names.items():
            if channel.is_closed:
                channel = await open_channel(connection)
            try:
                with named_losses():
                    async with asyncio.timeout(RPC_TIMEOUT):
                        queue = await channel.queue_declare(name, passive=True)
            except ChannelNotFoundEntity:
                continue
            found[key] = Depth(ready=queue.message_count or 0, consumers=queue.consumer_count or 0)
    except (AMQPError, OSError, RuntimeError) as error:
        raise QueueUnavailable(f"cannot ask the broker: {reason_of(error)}") from error
    finally:
        await close_channel(channel)
    return found


async def browse(connection: Connection, name: str, place: Lane | str, limit: int) -> Sequence[Message]:
    """Up to `limit` messages of this queue (full name), oldest first, given back in order. Raises QueueUnavailable."""
    seen: list[Message] = []
    channel = await open_channel(connection)
    try:
        while len(seen) < limit:
            with named_losses():
                async with asyncio.timeout(RPC_TIMEOUT):
                    delivered = await channel.basic_get(name)
            if delivered.delivery_tag is None:
                break
            seen.append(to_message(place, delivered, tag=None))
    except (AMQPError, OSError, RuntimeError) as error:
        raise QueueUnavailable(f"cannot look into {name}: {reason_of(error)}") from error
    finally:
        await close_channel(channel)  # gives them back
    return seen


@asynccontextmanager
async def _connected(options: RabbitOptions, purpose: str = "topology") -> AsyncIterator[Connection]:
    connection = await connect(options, purpose)
    try:
        with named_losses():
            yield connection
    except (AMQPError, OSError) as error:
        raise QueueUnavailable(reason_of(error)) from error
    finally:
        await finish(connection.close())
