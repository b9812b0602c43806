"""Late messages: they stay unacked, and make room for others."""

import asyncio

import pytest

from notifier.messages import ledger, worker
from notifier.model.message import Lane
from tests.delivery.worker_harness import WorkerHarness, answers, client, running


@pytest.fixture(autouse=True)
def _ticks_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the worker tick in each round of the loop. Tests move the clock."""
    monkeypatch.setattr(worker, "TICK_SECONDS", 0.0)


async def pass_seconds(harness: WorkerHarness, seconds: float) -> None:
    """Let time pass in steps of a tenth of a second."""
    for _ in range(round(seconds * 10)):
        harness.now += 0.1
        for _ in range(5):
            await asyncio.sleep(0)


def set_aside(harness: WorkerHarness) -> list[str]:
    """Return the tags of the messages that were set aside, in order."""
    return [line.removeprefix("set aside ") for line in harness.queue.log if line.startswith("set aside")]


async def test_a_late_message_is_set_aside_once_and_acked_later() -> None:
    """After half a second to a second. A message that is acked at once is never set aside."""
    harness = WorkerHarness(client("slow"), client("shop"))
    release = harness.hold("slow")
    async with running(harness):
        await pass_seconds(harness, 1)
        late = harness.event("slow")
        await harness.acked(harness.event("shop"))
        await pass_seconds(harness, 0.4)
        assert set_aside(harness) == []
        await pass_seconds(harness, 3)
        assert (set_aside(harness), sum(harness.worker.ledger.set_aside_counts.values())) == ([str(late.tag)], 1)
        unsettled = harness.worker.ledger.unsettled_by_queue()["events"]
        assert (unsettled.messages, unsettled.set_aside, unsettled.oldest) == (1, 1, None)
        release.set()
        await harness.acked(late)
        assert sum(harness.worker.ledger.set_aside_counts.values()) == 0


async def test_a_missing_confirm_makes_late_too() -> None:
    """The cause does not matter, nor the lane: here the retry of a bulk delivery is not durable."""
    harness = WorkerHarness(client("shop"))
    async with running(harness):
        await harness.prove("shop")
        harness.queue.open.clear()
        harness.receivers.behaviours["shop"] = answers(503)
        message = harness.event("shop", lane=Lane.BULK)
        await pass_seconds(harness, 3)
        assert set_aside(harness) == [str(message.tag)]
        harness.queue.open.set()
        await harness.acked(message)


async def test_a_stuck_message_is_the_oldest_again() -> None:
    """After 15 minutes no attempt can be the reason, so `queue_oldest_seconds` and its alert count it."""
    harness = WorkerHarness(client("shop"))
    async with running(harness):
        await harness.prove("shop")
        harness.queue.open.clear()
        harness.receivers.behaviours["shop"] = answers(503)
        arrived, message = harness.now, harness.event("shop")
        await pass_seconds(harness, 3)
        assert harness.worker.ledger.unsettled_by_queue()["events"].oldest is None
        harness.now = arrived + ledger.STUCK_SECONDS + 1
        unsettled = harness.worker.ledger.unsettled_by_queue()["events"]
        assert (unsettled.messages, unsettled.set_aside, unsettled.oldest) == (1, 1, arrived)
        harness.queue.open.set()
        await harness.acked(message)
        assert harness.worker.ledger.unsettled_by_queue()["events"].oldest is None


@pytest.mark.parametrize("bound", ["bytes", "messages"])
async def test_what_is_set_aside_is_bounded(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 32 MiB, and five times `max_in_flight` messages, a late message uses the prefetch."""
    assert (ledger.MAX_SET_ASIDE_BYTES, worker.MAX_SET_ASIDE_WINDOWS) == (32 * 1024 * 1024, 5)
    names = [f"c{number}" for number in range(15)]
    if bound == "bytes":
        monkeypatch.setattr(ledger, "MAX_SET_ASIDE_BYTES", 1)
    else:
        monkeypatch.setattr(worker, "MAX_SET_ASIDE_WINDOWS", 1)
    harness = WorkerHarness(*map(client, names), max_in_flight=10)
    release = harness.hold(*names)
    async with running(harness):
        lanes = [Lane.EVENTS, Lane.BULK]  # the bounds are those of all lanes together
        messages = [harness.event(name, lane=lanes[number % 2]) for number, name in enumerate(names)]
        await pass_seconds(harness, 4)
        assert len(set_aside(harness)) == (1 if bound == "bytes" else 10)
        release.set()
        for message in messages:
            await harness.acked(message)
        assert sum(harness.worker.ledger.set_aside_counts.values()) == 0


async def test_messages_of_a_lost_queue_are_no_longer_set_aside() -> None:
    """The redelivered copy is set aside when it is late in turn. Both are acked when the delivery is settled."""
    harness = WorkerHarness(client("slow"))
    release = harness.hold("slow")
    async with running(harness):
        first = harness.event("slow", id="e")
        await pass_seconds(harness, 3)
        harness.worker.on_lost(Lane.EVENTS)
        assert sum(harness.worker.ledger.set_aside_counts.values()) == 0
        again = harness.event("slow", id="e", delivery_count=1)
        await pass_seconds(harness, 3)
        assert set_aside(harness) == [str(first.tag), str(again.tag)]
        release.set()
        await harness.acked(again)
        assert sum(harness.worker.ledger.set_aside_counts.values()) == 0


async def test_late_events_do_not_stop_fetches() -> None:
    """A worker whose prefetch is full of hanging events counts itself as crowded, until these are set aside."""
    names = [f"c{number}" for number in range(400)]
    harness = WorkerHarness(*map(client, names))
    release = harness.hold(*names)
    async with running(harness):
        for name in names:  # two clients each, since events for one yield and are set aside at once
            harness.event(name, name)
        await harness.until(lambda: len(harness.notified()) == 400)
        assert harness.worker.scheduler.slots.used_share() > 0.5
        await pass_seconds(harness, 3)
        assert harness.worker.scheduler.slots.used_share() < 0.1
        release.set()
