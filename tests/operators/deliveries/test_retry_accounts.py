"""The results of a retry at one worker: what it counts, and until when more are expected."""

import pytest

from notifier.operators.deliveries.retry_request import RetryAccounts, make_retry_request
from notifier.telemetry.observers import Observers
from tests.delivery.worker_harness import ISS, WorkerHarness, answers, client, running


@pytest.mark.parametrize("proven", [True, False])
async def test_delivery_that_is_due_soon_is_awaited_while_its_client_is_well(*, proven: bool) -> None:
    """A delivery may be deferred for two seconds at the moment at which its client recovers."""
    async with running(WorkerHarness(client("shop"))) as harness:
        if proven:
            await harness.prove("shop")
        harness.receivers.behaviours["shop"] = answers(503)
        await harness.acked(harness.event("shop"))
        accounts = RetryAccounts(harness.worker, lambda: harness.now, Observers())
        query = make_retry_request((ISS, "shop"), "sre", begin=False)
        assert harness.worker.scheduler.deferrals.is_blocked((ISS, "shop")) is not proven
        assert (await accounts.act(query))["busy"] is proven
        harness.now += 10.0
        assert (await accounts.act(query))["busy"] is False
