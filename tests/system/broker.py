"""The broker as a publisher and an administrator see it: plain aio-pika, nothing of ours."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, HeadersType

from tests.support.rabbit_options import BUCKET_NAMES
from tests.system.waiting import PATIENCE, until

# In the order in which messages move by themselves, so that reading one after the other misses none.
QUEUES = (
    *BUCKET_NAMES,
    *(f"delay.{2**power}s" for power in range(17)),
    *("events", "bulk", "retries", "dead"),
)


class Broker:
    """One connection. Made by `broker`."""

    def __init__(self, connection: aio_pika.abc.AbstractConnection, channel: AbstractChannel, prefix: str) -> None:
        self.prefix = prefix
        self._connection = connection
        self._channel = channel

    async def publish(
        self,
        body: bytes | Mapping[str, object],
        *,
        exchange: str = "events",
        headers: HeadersType | None = None,
        content_type: str = "application/json",
        **properties: Any,
    ) -> None:
        """Publish one event, persistent and confirmed."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        message = aio_pika.Message(
            data,
            headers=headers,
            content_type=content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            **properties,
        )
        where = await self._channel.get_exchange(f"{self.prefix}.{exchange}", ensure=False)
        await where.publish(message, "session.ended")

    async def publish_all(self, bodies: Iterable[Mapping[str, object]], *, exchange: str = "events") -> None:
        """Publish many, 500 at a time."""
        batch: list[Mapping[str, object]] = []
        for body in bodies:
            batch.append(body)
            if len(batch) == 500:
                await asyncio.gather(*(self.publish(each, exchange=exchange) for each in batch))
                batch.clear()
        await asyncio.gather(*(self.publish(each, exchange=exchange) for each in batch))

    async def depths(self, queues: Sequence[str] = QUEUES) -> dict[str, int]:
        """The ready messages of each queue that has some."""
        found = {}
        for name in queues:
            queue = await self._channel.declare_queue(f"{self.prefix}.{name}", passive=True)
            if queue.declaration_result.message_count:
                found[name] = queue.declaration_result.message_count
        return found

    async def until_depths(self, wanted: Mapping[str, int], patience: float = PATIENCE) -> None:
        """Wait until exactly these queues have exactly so many ready messages."""
        await until(self.depths, lambda found: found == wanted, patience)

    async def dead_letters(self) -> list[AbstractIncomingMessage]:
        """Every dead letter that is ready, looked at and given back."""
        channel = await self._connection.channel()
        queue = await channel.get_queue(f"{self.prefix}.dead", ensure=False)
        found = []
        while (message := await queue.get(fail=False)) is not None:
            found.append(message)
        await channel.close()
        return found

    async def until_dead(self, count: int) -> list[AbstractIncomingMessage]:
        """The dead letters, once there are so many."""
        await until(lambda: self.depths(["dead"]), lambda found: found.get("dead", 0) >= count)
        return await self.dead_letters()

    async def delete_queue(self, name: str) -> None:
        """As an administrator would."""
        await self._channel.queue_delete(f"{self.prefix}.{name}")

    async def declare_queue(self, name: str) -> None:
        """Declare a lane again, with its binding, as `notifier topology declare` would."""
        arguments: dict[str, Any] = {
            "x-queue-type": "quorum",
            "x-overflow": "reject-publish",
            "x-dead-letter-strategy": "at-least-once",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": f"{self.prefix}.dead",
            "x-delivery-limit": 100,
        }
        queue = await self._channel.declare_queue(f"{self.prefix}.{name}", durable=True, arguments=arguments)
        await queue.bind(f"{self.prefix}.{name}", "#")


@contextlib.asynccontextmanager
async def broker(url: str, prefix: str) -> AsyncIterator[Broker]:
    """A connection to the broker, for one test."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        yield Broker(connection, channel, prefix)
