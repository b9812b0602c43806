"""What an operator does on a connection of its own: look at the topology, declare, verify, delete; ask the workers."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiormq.exceptions import AMQPError

from notifier.adapters.queues.rabbitmq import topology
from notifier.adapters.queues.rabbitmq.connection import Connection, connect, finish, named_losses, reason_of
from notifier.adapters.queues.rabbitmq.options import RabbitOptions
from notifier.adapters.queues.rabbitmq.queue import depths_at
from notifier.adapters.queues.rabbitmq.talk import ask_workers
from notifier.adapters.queues.rabbitmq.topology import Standing
from notifier.domain.errors import QueueUnavailable
from notifier.domain.message import DEAD, HOPS, Depth, Lane, delay

__all__ = ["Standing", "declare_topology", "delete_topology", "look_around", "survey_topology", "verify_topology"]


async def declare_topology(options: RabbitOptions) -> None:
    """Declare what is missing. Raises TopologyMismatch, QueueError."""
    async with _connected(options) as connection:
        await topology.declare(connection, topology.topology_of(options.prefix))


async def verify_topology(options: RabbitOptions) -> None:
    """Check that everything stands. Raises TopologyMismatch with all that is wrong, QueueError."""
    async with _connected(options) as connection:
        await topology.verify(connection, topology.topology_of(options.prefix))


async def survey_topology(options: RabbitOptions) -> tuple[Standing, ...]:
    """How everything stands. Raises QueueError."""
    async with _connected(options) as connection:
        return await topology.survey(connection, topology.topology_of(options.prefix))


async def delete_topology(options: RabbitOptions) -> Mapping[str, int]:
    """Delete everything under the prefix; the ready messages that went with it, by queue. Raises QueueError."""
    async with _connected(options) as connection:
        return await topology.delete(connection, topology.topology_of(options.prefix))


async def look_around(options: RabbitOptions, *, within: float) -> tuple[Mapping[str, Depth], list[bytes]]:
    """What waits in each queue (names without prefix), and how each worker says it stands. Raises QueueError.

    Declares nothing. Workers that do not answer within so many seconds are not heard.
    """
    names = {name: f"{options.prefix}.{name}" for name in (*Lane, DEAD, *map(delay, HOPS))}
    async with _connected(options, "status") as connection:
        depths = await depths_at(connection, names)
        if not (enough := depths[Lane.EVENTS].consumers if Lane.EVENTS in depths else 0):
            return depths, []
        return depths, await ask_workers(connection, f"{options.prefix}.workers", within=within, enough=enough)


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
