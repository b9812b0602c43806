"""The results of a retry at one worker: what it counts, and until when more are expected."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from notifier.model.client import Client, RetryPolicy
from notifier.model.record import copy_record
from notifier.model.registry import Registry
from notifier.operators.deliveries.repair import remove
from notifier.operators.deliveries.retry_now import preview_retry, retry_now
from notifier.operators.deliveries.retry_request import RETRY_CLIENT, RetryAccounts, RetryRequest
from notifier.operators.deliveries.waiting_filter import WaitingFilter
from notifier.operators.status.worker_requests import Members, RequestHandler, WorkerRequest
from notifier.queues.queue_state import WorkerAnswers
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from notifier.telemetry.observers import Observers
from tests.contract.dead_letter_samples import course
from tests.contract.test_waiting import delayed, delivery
from tests.delivery.test_operator_pauses import pause
from tests.delivery.worker_harness import ISS, WorkerHarness, answers, client, running
from tests.support.outcome_facts import delivered


@pytest.mark.parametrize("proven", [True, False])
async def test_delivery_that_is_due_soon_is_awaited_while_its_client_is_well(*, proven: bool) -> None:
    """A delivery may be deferred for two seconds at the moment at which its client recovers."""
    async with running(WorkerHarness(client("shop"))) as harness:
        if proven:
            await harness.prove("shop")
        harness.receivers.behaviours["shop"] = answers(503)
        await harness.acked(harness.event("shop"))
        accounts = RetryAccounts(harness.worker, lambda: harness.now, Observers())
        query = RetryRequest(key=(ISS, "shop"), who="sre").to_worker()
        assert harness.worker.scheduler.deferrals.is_blocked((ISS, "shop")) is not proven
        assert (await accounts.act(query))["busy"] is proven
        harness.now += 10.0
        assert (await accounts.act(query))["busy"] is False


async def test_two_retries_of_one_client_have_separate_accounts() -> None:
    """Such as a command beside the console: the second one does not reset the first."""
    async with running(WorkerHarness(client("shop"))) as harness:
        observers = Observers()
        accounts = RetryAccounts(harness.worker, lambda: harness.now, observers)
        first, second = (RetryRequest(key=SHOP, who=who) for who in ("sre", "console"))
        await accounts.act(first.to_worker(follow=True))
        observers.observe(delivered(delivery("d0", SHOP)))
        await accounts.act(second.to_worker(follow=True))
        observers.observe(delivered(delivery("d1", SHOP)))
        assert [(await accounts.act(each.to_worker(begin=True)))["delivered"] for each in (first, second)] == [2, 1]


SHOP = (ISS, "shop")
DELIVERED, CANCELLED = True, False
Events = Mapping[str, tuple[str, bool]]  # the ID of a delivery that ends at a moment of a pass, and how


class OneWorker(SqliteQueue):
    """A queue with one worker, and with `events` before and after the passes of a retry."""

    handler: RequestHandler
    observers: Observers
    events: Events

    async def request(self, document: bytes, within: float) -> WorkerAnswers:
        """Implement the port."""
        return WorkerAnswers(seen=1, answers=[await self.handler.carry_out(document)])

    def waiting(self, *_: Any) -> Any:
        """Return the pending deliveries."""
        queue, real, numbers = self, super().waiting(), count(1)

        async def play(moment: str) -> None:
            id_, is_delivered = queue.events.get(moment, ("", CANCELLED))
            await remove(real, WaitingFilter(ids=frozenset({id_})), course())
            if is_delivered:
                queue.observers.observe(delivered(delivery(id_, SHOP)))

        class Waiting:
            @asynccontextmanager
            async def open_pass(self, read: Any, **options: Any) -> AsyncIterator[Any]:
                number = next(numbers)
                await play(f"before pass {number}")
                async with real.open_pass(read, **options) as queue_pass:
                    yield queue_pass
                await play(f"after pass {number}")

        return Waiting()


@pytest.mark.parametrize(
    ("events", "unknown"),
    [
        ({"before pass 1": ("d0", DELIVERED), "after pass 1": ("d1", DELIVERED), "after pass 2": ("d2", DELIVERED)}, 0),
        ({"after pass 1": ("d0", DELIVERED), "after pass 2": ("d1", DELIVERED), "before pass 3": ("d2", DELIVERED)}, 0),
        ({"after pass 1": ("d0", DELIVERED), "after pass 2": ("d1", CANCELLED), "before pass 3": ("d2", DELIVERED)}, 1),
    ],
)
async def test_each_counted_delivery_is_in_the_account(tmp_path: Path, events: Events, unknown: int) -> None:
    """Whenever its result arrives: before the count, before the worker begins, or after its last account."""
    queue, seconds = OneWorker(SqliteOptions(path=tmp_path / "queue.db")), count(0.0, 0.5)
    queue.events, queue.observers = events, Observers()
    await queue.open()
    await delayed(queue, *(delivery(id_, SHOP) for id_ in ("d0", "d1", "d2")))
    async with running(WorkerHarness(client("shop"))) as harness:
        accounts = RetryAccounts(harness.worker, lambda: harness.now, queue.observers)

        async def act(request: WorkerRequest) -> Members:
            return {**await accounts.act(request), "busy": False}  # the deliveries are in another queue

        queue.handler = RequestHandler("w", {RETRY_CLIENT: act}, queue.side_channel.on_malformed)
        options = course(monotonic=lambda: next(seconds))
        result = await retry_now(queue, queue.waiting(), RetryRequest(key=SHOP, who="sre"), options)
    await queue.close()
    members = result.document()
    assert [members[name] for name in ("waited", "delivered", "waiting", "unknown")] == [3, 3 - unknown, 0, unknown]


async def test_retry_of_a_paused_client_attempts_nothing(tmp_path: Path) -> None:
    """Also before the workers have read the pause. Its result names the pause."""
    queue = OneWorker(SqliteOptions(path=tmp_path / "queue.db"))
    queue.events, queue.observers = {}, Observers()
    requests = list[Members]()
    await queue.open()
    await delayed(queue, delivery("d0", SHOP))
    options = course()
    paused = copy_record(pause(), until=options.clock() + 60.0)
    await queue.register.change(lambda document: document.pause_clients([paused], options.clock()))

    async def act(request: WorkerRequest) -> Members:
        requests.append(request.members)
        return {}

    queue.handler = RequestHandler("w", {RETRY_CLIENT: act}, queue.side_channel.on_malformed)
    for run in (retry_now, preview_retry):
        result = await run(queue, queue.waiting(), RetryRequest(key=SHOP, who="sre"), options)
        assert (result.waited, (result.unfinished or "")[:32]) == (1, "the client is paused by alice un")
    await queue.close()
    assert not any("begin" in members for members in requests)


async def test_retry_of_a_client_whose_pause_is_over_is_not_refused(tmp_path: Path) -> None:
    """It lasts for the client's `max_paused`, although its `until` was forged."""
    queue = OneWorker(SqliteOptions(path=tmp_path / "queue.db"))
    queue.events, queue.observers = {}, Observers()
    queue.handler = RequestHandler("w", {}, queue.side_channel.on_malformed)
    await queue.open()
    await delayed(queue, delivery("d0", SHOP))
    options, policy = course(), RetryPolicy(max_paused=60.0)
    forged = copy_record(pause(), since=options.clock() - 61.0, until=1e10)
    await queue.register.change(lambda document: document.pause_clients([forged], options.clock()))
    shop = Client(iss=SHOP[0], client_id=SHOP[1], backchannel_logout_uri="https://shop.example/out", retry=policy)
    registry = Registry(clients={SHOP[0]: {SHOP[1]: shop}})
    request = RetryRequest(key=SHOP, who="sre", registry=lambda: registry)
    result = await preview_retry(queue, queue.waiting(), request, options)
    await queue.close()
    assert (result.waited, result.unfinished) == (1, None)
