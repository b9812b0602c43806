"""Dramatiq: an async actor an event, on the event loop of its AsyncIO middleware. It acks late by nature.

Run as it is, it publishes the events.
"""

import functools
from typing import Any

import dramatiq
import uvloop
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.middleware import AsyncIO
from logout import AMQP, QUEUE, Teller, events

uvloop.install()  # the middleware makes its loop by the policy
broker = RabbitmqBroker(url=AMQP)
broker.add_middleware(AsyncIO())
dramatiq.set_broker(broker)


@functools.cache
def teller() -> Teller:
    """Made by the first event, since no loop runs before."""
    return Teller()


@dramatiq.actor(queue_name=QUEUE)
async def session_ended(event: dict[str, Any]) -> None:
    """To all of its clients at once."""
    await teller().tell(event)


if __name__ == "__main__":
    for each in events():
        session_ended.send(each)
    broker.close()
