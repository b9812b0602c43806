"""FastStream: an async subscriber of the events; acks when it is done. No model validates them.

`publish` as an argument: it publishes the events.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvloop
from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue
from logout import AMQP, EVENTS_AT_ONCE, QUEUE, Teller, events

broker = RabbitBroker(AMQP, default_channel=Channel(prefetch_count=EVENTS_AT_ONCE), log_level=logging.DEBUG)
queue = RabbitQueue(QUEUE, durable=True)
tellers: list[Teller] = []


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """The session is made within the loop."""
    tellers.append(Teller())
    yield


@broker.subscriber(queue, ack_policy=AckPolicy.NACK_ON_ERROR)
async def session_ended(event: dict[str, Any]) -> None:
    """To all of its clients at once."""
    await tellers[0].tell(event)


async def publish() -> None:
    """Five hundred at a time."""
    async with broker:
        await broker.declare_queue(queue)
        batch = []
        for event in events():
            batch.append(broker.publish(event, queue, persist=True))
            if len(batch) == 500:
                await asyncio.gather(*batch)
                batch.clear()
        await asyncio.gather(*batch)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    uvloop.run(publish() if "publish" in sys.argv else FastStream(broker, lifespan=lifespan).run(logging.WARNING))
