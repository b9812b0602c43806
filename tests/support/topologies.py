"""Declares a queue's topology for one test without waiting, verifies it, and deletes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from notifier.queues.rabbitmq.options import RabbitOptions


async def declare_at_once(url: str, prefix: str) -> None:
    """Declare the topology without waiting: the broker is not killed in the next second."""
    from notifier.queues.rabbitmq.administration import declare_topology  # noqa: PLC0415  as below
    from notifier.queues.rabbitmq.settling import Settling  # noqa: PLC0415
    from tests.support.rabbit_options import rabbit_options  # noqa: PLC0415

    await declare_topology(rabbit_options(url, prefix), Settling(seconds=0))


async def clear_topology(url: str, prefix: str) -> None:
    """Delete the topology. Imports the broker's library here, because most tests do not need it."""
    from notifier.queues.rabbitmq.administration import delete_topology  # noqa: PLC0415
    from tests.support.rabbit_options import rabbit_options  # noqa: PLC0415

    await delete_topology(rabbit_options(url, prefix))


async def verify_topology(options: RabbitOptions) -> None:
    """Check that nothing is missing or different. Raises TopologyMismatch with all differences."""
    from notifier.queues.rabbitmq import topology  # noqa: PLC0415
    from notifier.queues.rabbitmq.connection import connected  # noqa: PLC0415

    async with connected(options, "test") as connection:
        await topology.verify(connection, topology.topology_of(options))
