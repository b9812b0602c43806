"""Taskiq: an async task an event, by its aio-pika broker, with a quorum queue as that has it; acks when it is done.

Run as it is, it publishes the events.
"""

import asyncio
from typing import Any

import uvloop
from logout import AMQP, EVENTS_AT_ONCE, QUEUE, Teller, events
from taskiq import TaskiqEvents, TaskiqState
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

broker = AioPikaBroker(
    AMQP,
    qos=EVENTS_AT_ONCE,
    exchange=Exchange(name=QUEUE),
    task_queues=[Queue(name=QUEUE)],
    dead_letter_queue=Queue(name=f"{QUEUE}.dead"),
)
tellers: list[Teller] = []


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def started(state: TaskiqState) -> None:
    """The session is made within the loop."""
    tellers.append(Teller())


@broker.task(task_name="session_ended")
async def session_ended(event: dict[str, Any]) -> None:
    """To all of its clients at once."""
    await tellers[0].tell(event)


async def publish() -> None:
    """Five hundred at a time."""
    await broker.startup()
    batch = []
    for event in events():
        batch.append(session_ended.kiq(event))
        if len(batch) == 500:
            await asyncio.gather(*batch)
            batch.clear()
    await asyncio.gather(*batch)
    await broker.shutdown()


if __name__ == "__main__":
    uvloop.run(publish())
