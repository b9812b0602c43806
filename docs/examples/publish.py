import asyncio, json, os, uuid
import aio_pika


async def publish(event: dict[str, object]) -> None:
    async with await aio_pika.connect(os.environ["AMQP_URL"]) as connection:  # amqps: chain and name are verified
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange("notifier.events", ensure=False)
        message = aio_pika.Message(
            json.dumps(event).encode(),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            user_id=connection.url.user,
        )
        await exchange.publish(message, routing_key="session.ended", mandatory=True)


event = {
    "id": str(uuid.uuid4()),
    "iss": "https://id.example.com",
    "sub": "248289761001",
    "sid": "08a5019c",
    "clients": ["shop"],
}
asyncio.run(asyncio.wait_for(publish(event), timeout=5))
