"""What an operator does with the topology: look, declare, verify, delete, on a connection of its own."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiormq.exceptions import AMQPError

from notifier.adapters.rabbitmq import topology
from notifier.adapters.rabbitmq.connection import Connection, connect, finish, named_losses, reason_of
from notifier.adapters.rabbitmq.options import RabbitOptions
from notifier.adapters.rabbitmq.topology import Standing
from notifier.domain.errors import QueueUnavailable

__all__ = ["Standing", "declare_topology", "delete_topology", "survey_topology", "verify_topology"]


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


@asynccontextmanager
async def _connected(options: RabbitOptions) -> AsyncIterator[Connection]:
    connection = await connect(options, "topology")
    try:
        with named_losses():
            yield connection
    except (AMQPError, OSError) as error:
        raise QueueUnavailable(reason_of(error)) from error
    finally:
        await finish(connection.close())
