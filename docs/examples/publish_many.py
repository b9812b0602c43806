"""Publishes many events over one connection that it keeps, as a server does: `await publisher.publish(event)`.

Each call returns once its event is durable, and raises if that is not known within 5 s: keep the event, and send it again with its id.
"""

import asyncio, json, os, uuid
import aio_pika

LIMIT = 5  # seconds for one event
AT_ONCE = 100  # events without a confirm yet


class Publisher:
    """One connection for the whole process. It is made again after a loss."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._room = asyncio.Semaphore(AT_ONCE)

    async def __aenter__(self) -> "Publisher":
        self._connection = await aio_pika.connect_robust(self._url, timeout=LIMIT)
        channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        self._exchange = await channel.get_exchange("notifier.events", ensure=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    async def publish(self, event: dict[str, object]) -> None:
        message = aio_pika.Message(
            json.dumps(event).encode(),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            user_id=self._connection.url.user,
        )
        async with self._room, asyncio.timeout(LIMIT):
            await self._exchange.publish(message, routing_key="session.ended", mandatory=True)


async def main() -> None:
    events = [
        {
            "id": str(uuid.uuid4()),
            "iss": "https://id.example.com",
            "sub": "248289761001",
            "sid": f"session-{number}",
            "clients": ["shop"],
        }
        for number in range(1000)
    ]
    async with Publisher(os.environ["AMQP_URL"]) as publisher:
        await asyncio.gather(*map(publisher.publish, events))
    print(f"{len(events)} events are durable")


asyncio.run(main())
