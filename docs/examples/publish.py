import asyncio, json, os, uuid
import aio_pika


async def publish(event: dict[str, object]) -> None:
    async with await aio_pika.connect(os.environ["AMQP_URL"]) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange("notifier.events", ensure=False)
        message = aio_pika.Message(
            json.dumps(event).encode(), content_type="application/json", delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        await exchange.publish(message, routing_key="session.ended", mandatory=True)


asyncio.run(
    publish(
        {
            "id": str(uuid.uuid4()),
            "iss": "https://id.example.com",
            "sub": "248289761001",
            "sid": "08a5019c",
            "clients": ["shop"],
        }
    )
)
