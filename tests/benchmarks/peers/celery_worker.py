"""Celery: a task an event, on its pool of threads, which have the event loop beside them POST and wait for it.

Chosen over urllib3, in each thread or on the gevent pool, which looked dearer in a short trial (README.md).

Run as it is, it publishes the events.
"""

import asyncio
import threading
from typing import Any

import uvloop
from celery import Celery
from celery.signals import worker_init
from logout import AMQP, EVENTS_AT_ONCE, QUEUE, Teller, events

app = Celery("celery_worker", broker=AMQP)
app.conf.update(
    task_default_queue=QUEUE,
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=EVENTS_AT_ONCE // 8,  # of its 8 threads
    worker_disable_rate_limits=True,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)


class Sending:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._teller = asyncio.run_coroutine_threadsafe(self._make(), self._loop).result()

    async def _make(self) -> Teller:
        return Teller()

    def tell(self, event: dict[str, Any]) -> None:
        """Returns when all of the event's clients have answered."""
        asyncio.run_coroutine_threadsafe(self._teller.tell(event), self._loop).result()


sending: list[Sending] = []


@worker_init.connect
def begin(**_: object) -> None:
    """Before there is any thread of the pool: each would make one of its own."""
    sending.append(Sending())


@app.task(name="session_ended")
def session_ended(event: dict[str, Any]) -> None:
    """To all of its clients at once."""
    sending[0].tell(event)


if __name__ == "__main__":
    with app.producer_pool.acquire(block=True) as producer:
        for each in events():
            session_ended.apply_async((each,), producer=producer)
