"""Workers that start one after the other share a client's registered rate from their first message on."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.system.clients import Clients
from tests.system.command import notifier_at
from tests.system.publisher import Publisher
from tests.system.site import Site, client
from tests.system.waiting import until
from tests.system.worker_process import worker

PER_SECOND, WINDOW_SECONDS = 10, 5.0


@pytest.mark.full
async def test_starting_workers_keep_the_rate_of_a_client(amqp_url: str, prefix: str, tmp_path: Path) -> None:
    """In any five seconds at most a third more. `notifier status` shows the new workers at once."""
    async with Clients() as clients, AsyncExitStack() as stack:
        site = Site(tmp_path, amqp_url, prefix)
        site.write_clients([client("shop", clients.url("shop"), per_second=PER_SECOND)])
        await stack.enter_async_context(worker(site))
        publisher = Publisher(amqp_url, prefix, ["shop"])
        stack.push_async_callback(publisher.close)
        await publisher.publish(range(400), rate=1000)
        await clients.until(lambda: len(clients.hits) >= 3 * PER_SECOND)
        for _ in range(3):
            await stack.enter_async_context(worker(site))
        count = len(clients.hits)
        await until(lambda: notifier_at(site, "status"), lambda done: "4 of 4 workers answered" in done.stdout)
        await clients.until(lambda: len(clients.hits) >= count + PER_SECOND * WINDOW_SECONDS)
        moments = [hit.at for hit in clients.hits]
    allowed = round(4 / 3 * PER_SECOND * WINDOW_SECONDS)
    assert all(late - early > WINDOW_SECONDS for early, late in zip(moments, moments[allowed:], strict=False))
