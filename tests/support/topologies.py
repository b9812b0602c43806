"""Declares a queue's topology for one test without waiting, and deletes it."""


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
