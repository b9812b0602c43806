"""Many requests of one token do not delay those of another. On RabbitMQ a pass holds the messages that it reads."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest

from notifier.model.registry import Registry
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.listener import Listener
from notifier.network.listeners.operation import routes_of
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.dead_letter_routes import DeadLetterRoutes
from notifier.operators.deliveries.jobs import Jobs
from notifier.operators.deliveries.message_index import MessageIndexes
from notifier.operators.deliveries.message_requests import RouteDependencies
from notifier.publishing.event_requests import EventRequests, build_api_app
from notifier.queues.queue_port import Queue
from tests.contract.dead_letter_samples import ISS, RULES, dead_letter, store_dead_letters
from tests.contract.queues import Place
from tests.publishing.serving import accept, serving, sources_of, token
from tests.system.waiting import until

TOKENS = (token("tenant", "read", issuers=frozenset({ISS})), token("sre", "read"))


@dataclass
class Searches:
    """The API of a queue, and its searches in the order of their ends."""

    listener: Listener
    started: list[object]
    ended: list[str] = field(default_factory=list)

    async def search(self, http: aiohttp.ClientSession, who: str) -> None:
        """Search the dead letters with this token."""
        headers = {"Authorization": f"Bearer {who}-secret"}
        url = f"{self.listener.url}/v1/dead-letters/find"
        async with http.post(url, json={"event_id": "e-1"}, headers=headers) as answer:
            assert answer.status == 200
            self.ended.append(who)

    async def wait_until_started(self, wanted: int) -> None:
        """Return once so many searches have started."""

        async def count() -> int:
            return len(self.started)

        await until(count, lambda count: count == wanted)


@pytest.fixture
async def queue(rabbit_place: Place) -> Queue:
    """A queue that nobody consumes."""
    return await rabbit_place.open()


@pytest.fixture
async def searches(queue: Queue) -> AsyncIterator[Searches]:
    """Serve the API of this queue."""
    started: list[object] = []

    def write_audit(action: str, **details: object) -> None:
        started.append(details["who"])

    dependencies = RouteDependencies(
        queue=queue, rules=lambda _: RULES, registry=Registry, jobs=Jobs(queue, time.time, time.monotonic),
        write_audit=write_audit, clock=time.time,
        monotonic=time.monotonic, indexes=MessageIndexes(time.monotonic),
    )  # fmt: skip
    routes = routes_of(DeadLetterRoutes(dependencies), Authorization(lambda: TOKENS))
    async with serving(build_api_app(EventRequests(accept, sources_of(lambda: TOKENS)), routes)) as listener:
        yield Searches(listener, started)


async def test_many_requests_of_one_token_delay_no_other(queue: Queue, searches: Searches) -> None:
    """Another token waits for one of them at most."""
    await store_dead_letters(queue, dead_letter("d-1"))
    callers = ["tenant"] * 12 + ["sre"]
    async with asyncio.timeout(60), aiohttp.ClientSession() as http:
        async with DeadLetterFilter().open_pass(queue.dead_letters(), whole=False) as queue_pass:
            await queue_pass.next_page()
            running = []
            for number, who in enumerate(callers, 1):
                running.append(asyncio.create_task(searches.search(http, who)))
                await searches.wait_until_started(number)
        await asyncio.gather(*running)
    assert searches.ended.index("sre") <= 3
