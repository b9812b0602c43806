"""A client that an operator has paused: admission, deliveries in memory, and a suspended worker."""

import math

from notifier.delivery.admission import PAUSED_SECONDS
from notifier.delivery.facts import Deferred
from notifier.model.outcome import Cause
from notifier.model.pauses import Pause
from notifier.queues.rabbitmq.delays import split_into_hops
from tests.delivery.worker_harness import ISS, WorkerHarness, answers, client, running

SHOP = (ISS, "shop")


def pause(client_id: str = "shop") -> Pause:
    """A pause of an hour."""
    return Pause(
        id="a", iss=ISS, client_id=client_id, who="alice", reason="deploy", since=1_790_000_000.0, until=1_790_003_600.0
    )


def deferrals(harness: WorkerHarness) -> list[tuple[str | None, Cause]]:
    """The clients whose deliveries were deferred, and why."""
    return [(fact.client_id, fact.cause) for fact in harness.facts if isinstance(fact, Deferred)]


async def test_paused_client_is_not_called() -> None:
    """Its delivery waits 512 s; others continue, and the text names the operator, the end and the reason."""
    async with running(WorkerHarness(client("shop"), client("crm"))) as harness:
        harness.pauses.in_force = {SHOP: pause()}
        await harness.acked(harness.event("shop", "crm"))
        assert (harness.notified(), deferrals(harness)) == (["crm"], [("shop", Cause.PAUSED)])
        assert harness.queue.log == ["published delay.512s", "acked 1"]
        [text] = [fact.text for fact in harness.facts if isinstance(fact, Deferred)]
        assert text.startswith("paused by alice until 2026-09-21 ")
        assert text.endswith("Z: deploy")


def test_slow_publish_of_a_paused_delivery_takes_one_delay_queue() -> None:
    """Of 20,000 deliveries on a busy machine 11,521 were published over 10 ms late, and passed three queues."""
    assert [split_into_hops(PAUSED_SECONDS - late) for late in (0.0, 0.05, 0.4)] == [(512,)] * 3


async def test_resumed_client_is_called() -> None:
    """Once its delivery is back."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.pauses.in_force = {SHOP: pause()}
        await harness.acked(harness.event("shop"))
        harness.pauses.in_force = {}
        await harness.acked(harness.retake("delay.512s"))
        assert harness.notified() == ["shop"]


async def test_what_waits_in_memory_is_not_attempted() -> None:
    """The attempt in flight ends; the delivery behind it is deferred when its turn comes."""
    async with running(WorkerHarness(client("shop", max_concurrent=1))) as harness:
        release = harness.hold("shop")
        first = harness.event("shop", id="first")
        await harness.until(lambda: harness.notified() == ["shop"])
        second = harness.event("shop", id="second")
        await harness.until(lambda: harness.worker.scheduler.waiting == 1)
        harness.pauses.in_force = {SHOP: pause()}
        release.set()
        await harness.acked(first)
        await harness.acked(second)
        assert (harness.notified(), deferrals(harness)) == (["shop"], [("shop", Cause.PAUSED)])


async def test_suspended_worker_reads_the_pauses_before_its_next_attempt() -> None:
    """The client was paused meanwhile."""

    async def refresh() -> None:
        harness.pauses.outdated_at = math.inf
        harness.pauses.in_force = {SHOP: pause()}

    async with running(WorkerHarness(client("shop"))) as harness:
        harness.pauses.outdated_at = harness.now
        harness.pauses.refresh = refresh  # type: ignore[method-assign]
        await harness.acked(harness.event("shop"))
        assert (harness.notified(), deferrals(harness)) == ([], [("shop", Cause.PAUSED)])


async def test_probe_of_a_paused_client_is_deferred() -> None:
    """An unreachable client is not called either, and recovers once it is resumed."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.receivers.behaviours["shop"] = answers(503)
        await harness.acked(harness.event("shop"))
        harness.pauses.in_force = {SHOP: pause()}
        await harness.pass_time(120.0)
        count = len(harness.notified())
        harness.receivers.behaviours.clear()
        await harness.pass_time(600.0)
        assert len(harness.notified()) == count
        harness.pauses.in_force = {}
        await harness.pass_time(600.0)
        assert len(harness.notified()) == count + 1


async def test_pause_outlives_the_registration() -> None:
    """An unknown client has its grace as ever; when it returns, it is paused."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.pauses.in_force = {SHOP: pause()}
        registered = harness.registry.clients[ISS].pop("shop")  # type: ignore[attr-defined]
        await harness.acked(harness.event("shop"))
        harness.registry.clients[ISS]["shop"] = registered  # type: ignore[index]
        name = harness.queue.published[-1][0]
        await harness.acked(harness.retake(name))
        assert (harness.notified(), [cause for _, cause in deferrals(harness)]) == ([], [Cause.UNKNOWN, Cause.PAUSED])
