"""Celery: a task an event, on the gevent pool, whose greenlets suit a task that waits for answers; urllib3 POSTs.

Run as it is, it publishes the events.
"""

from typing import Any

import urllib3
from celery import Celery
from gevent import joinall, spawn
from logout import AMQP, EVENTS_AT_ONCE, QUEUE, SETTINGS, TYPE, Minter, events

app = Celery("celery_worker", broker=AMQP)
app.conf.update(
    task_default_queue=QUEUE,
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,  # of the pool's size
    worker_disable_rate_limits=True,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)
minter = Minter()
pool = urllib3.PoolManager(maxsize=EVENTS_AT_ONCE * SETTINGS["fan_out"], headers=TYPE, retries=False)


def post(event: dict[str, Any], client: str) -> None:
    """To one client."""
    response = pool.request("POST", SETTINGS["clients"][client], body=minter.body(event, client))
    if response.status != 200:
        raise RuntimeError(f"{client} answered {response.status}")


@app.task(name="session_ended")
def session_ended(event: dict[str, Any]) -> None:
    """To all of its clients at once."""
    if len(event["clients"]) == 1:
        post(event, event["clients"][0])
    else:
        joinall([spawn(post, event, client) for client in event["clients"]], raise_error=True)


if __name__ == "__main__":
    with app.producer_pool.acquire(block=True) as producer:
        for each in events():
            session_ended.apply_async((each,), producer=producer)
