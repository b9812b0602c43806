"""Reads the pending messages of a lane without removing them."""

from collections.abc import Sequence

from notifier.model.message import Lane, Message
from notifier.queues.rabbitmq.connection import channel_of, connected
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.wire.decoding import to_message
from notifier.queues.sqlite import SqliteOptions, SqliteQueue


async def in_file(options: SqliteOptions, lane: Lane) -> Sequence[Message]:
    """Return the first hundred messages of a queue file, oldest first."""
    queue = SqliteQueue(options)
    await queue.open()
    try:
        found = await queue.use(lambda store: store.read(lane, 0, 100), writing=False)
    finally:
        await queue.close()
    return [message for _, message in found]


async def at_broker(options: RabbitOptions, lane: Lane) -> Sequence[Message]:
    """Return all messages of a broker's queue, oldest first. Closing the channel returns them to the queue."""
    seen: list[Message] = []
    async with connected(options, "look") as connection, channel_of(connection) as channel:
        while (delivered := await channel.basic_get(f"{options.prefix}.{lane}")).delivery_tag is not None:
            seen.append(to_message(lane, delivered, tag=None))
    return seen
