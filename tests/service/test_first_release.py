"""Of workers that start together one makes the pass of the first release, and the others learn what it left."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import load
from notifier.features import FEATURES
from notifier.model.documents.documents import dump_delivery
from notifier.model.message import Kind, MessageDraft
from notifier.model.outcome import Cause
from notifier.operators.deliveries.repair_pass import find_messages
from notifier.operators.deliveries.waiting_filter import WaitingFilter
from notifier.operators.status.worker_requests import RequestHandler, WorkerRequest
from notifier.queues.passes import Reader, make_pass_reader
from notifier.queues.rabbitmq.queue import RabbitQueue
from notifier.queues.rabbitmq.waiting import RabbitWaiting
from notifier.service.deferral_release import SHOW_FIRST_RELEASE, DeferralRelease
from tests.support.deliveries import make_delivery
from tests.support.rabbit_options import rabbit_options
from tests.system.site import ISSUER, Site, client
from tests.system.waiting import until


class CountingQueue(RabbitQueue):
    """Counts the passes over its pending deliveries."""

    passes = 0

    def waiting(self) -> RabbitWaiting:
        """Return them for another pass."""
        self.passes += 1
        return super().waiting()


READ: Reader[object] = make_pass_reader(lambda message: message.kind, lambda _message, _kind: True, whole=False)


class Starter:
    """A worker that has just started, as far as the first release concerns it."""

    def __init__(self, queue: CountingQueue, live: LiveConfiguration, name: str) -> None:
        self.queue = queue
        self.release = DeferralRelease(live, queue)
        handler = RequestHandler(name, {SHOW_FIRST_RELEASE: self.release.show_first_release})
        queue.side_channel.listen(lambda: b"{}", lambda _id, _body: None)
        queue.side_channel.handle_requests(handler.carry_out)

    async def waiting(self) -> set[str]:
        """Return the clients of the deliveries that are still deferred."""
        found = find_messages(RabbitQueue.waiting(self.queue), WaitingFilter())
        return {summary.client_id async for summary, _ in found}


@pytest.fixture
async def start(amqp_url: str, prefix: str, tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Starter]]]:
    """Start a worker whose configuration pauses these clients; of three that are deferred for `paused: true`."""
    async with AsyncExitStack() as stack:

        async def start_one(*paused: str) -> Starter:
            folder = tmp_path / str(time.monotonic_ns())
            folder.mkdir()
            site = Site(folder, amqp_url, prefix)
            site.write_clients([client(name, "http://127.0.0.1:1/", paused=name in paused) for name in "abc"])
            queue = CountingQueue(rabbit_options(amqp_url, prefix))
            starter = Starter(queue, LiveConfiguration(site.file, {}, load(site.file, {}, FEATURES)), folder.name)
            await stack.enter_async_context(opened(queue))
            return starter

        yield start_one


@asynccontextmanager
async def opened(queue: CountingQueue) -> AsyncIterator[None]:
    """The queue, once its side channel answers."""
    await queue.open()
    try:
        await queue.wait_until_ready()
        await until(lambda: queue.request(b"", 1.0), lambda received: bool(received.answers))
        yield
    finally:
        await queue.close()


async def defer(queue: RabbitQueue, *names: str) -> None:
    """Defer a delivery of each of these clients for `paused: true`."""
    due = time.time() + 512
    for name in names:
        delivery = make_delivery(
            id=name, event_id=f"e-{name}", id_given=True, iss=ISSUER, client_id=name, sub="alice", sid="s",
            deferred_for=Cause.PAUSED, deferrals=1,
        )  # fmt: skip
        draft = MessageDraft(kind=Kind.DELIVERY, body=dump_delivery(delivery, due=due), message_id=name)
        await queue.publish_later(draft, due=due)


Start = Callable[..., Awaitable[Starter]]


async def test_one_of_three_workers_makes_the_pass(start: Start) -> None:
    """The others neither repeat it, nor what it left. A worker that starts later makes another."""
    first, second, third = [await start("c") for _ in range(3)]
    await defer(first.queue, "a", "b", "c")
    assert await first.release.release_first()
    assert await first.waiting() == {"c"}
    assert (await second.release.release_first(), await third.release.release_first()) == (True, True)
    assert [each.queue.passes for each in (first, second, third)] == [1, 0, 0]
    later = await start("c")
    await defer(first.queue, "a")
    assert await later.release.release_first()
    assert await first.waiting() == {"c"}


async def test_each_worker_releases_what_its_configuration_ends(start: Start) -> None:
    """Their configurations differ: each start has changed it further."""
    first, second, third = await start("b", "c"), await start("c"), await start("c")
    await defer(first.queue, "a", "b", "c")
    waiting = []
    for each in (first, second, third):
        assert await each.release.release_first()
        waiting.append(await each.waiting())
    assert waiting == [{"b", "c"}, {"c"}, {"c"}]
    assert [each.queue.passes for each in (first, second, third)] == [1, 1, 0]


async def test_a_release_follows_although_the_worker_that_makes_it_dies(start: Start) -> None:
    """The others wait while it answers that its pass runs; then the next one makes it."""
    first, second = await start(), await start()
    request = WorkerRequest(name=SHOW_FIRST_RELEASE, who="", members={})
    await defer(first.queue, "a")
    async with RabbitQueue.waiting(first.queue).open_pass(READ) as held:  # so the first has to wait
        dying = asyncio.create_task(first.release.release_first())
        await until(lambda: first.release.show_first_release(request), bool)
        assert not await second.release.release_first()
        dying.cancel()
        with suppress(asyncio.CancelledError):
            await dying
        await first.queue.close()
        assert held.left
    assert await second.release.release_first()
    assert (await second.waiting(), second.queue.passes) == (set(), 1)
