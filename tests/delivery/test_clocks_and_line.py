"""The wall clock jumps an hour: open circuits, pauses, rates and parked deliveries follow the monotonic clock."""

import pytest

from notifier.delivery.facts import Deferred
from notifier.messages import worker
from notifier.model.message import Lane
from tests.delivery.test_clocks import JUMPS
from tests.delivery.worker_harness import PARKED, WorkerHarness, answers, client, running


@JUMPS
async def test_requested_pause_keeps_its_length(jump: float) -> None:
    """`Retry-After: 60` is a minute of the monotonic clock; deliveries that arrive meanwhile
    are parked for the remainder.
    """
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.receivers.behaviours["shop"] = answers(429, "60")
        await harness.acked(harness.event("shop"))
        harness.receivers.behaviours.clear()
        harness.now += 10
        harness.jumped = jump
        await harness.acked(harness.event("shop", id="e2"))
        assert (harness.notified(), harness.queue.published[-1][0]) == (["shop"], PARKED)
        [later] = [fact for fact in harness.facts if isinstance(fact, Deferred)]
        assert later.due == pytest.approx(harness.now + jump + 50, abs=1.0)
        harness.now += 50
        await harness.acked(harness.retake("delay.64s"))
        await harness.until(lambda: harness.notified() == ["shop"] * 3)


@pytest.mark.parametrize("jump", [0.0, 3600.0, -120.0, -3600.0])
@pytest.mark.parametrize(("parked", "longest"), [(False, 2.0), (True, 8.0)])
async def test_a_recorded_pause_is_at_most_as_long_as_recorded(jump: float, longest: float, *, parked: bool) -> None:
    """Less what the delivery has waited, whatever the clock of the worker that receives it.

    If that is behind, delay queues took seven eighths of their time at least; a bucket may have taken none.
    """
    async with running(WorkerHarness(client("shop"))) as first, running(WorkerHarness(client("shop"))) as second:
        first.receivers.behaviours["shop"] = answers(429, "16")
        await first.acked(first.event("shop", id="e1"))
        first.now += 8
        await first.acked(first.event("shop", id="e2"))
        (_, delayed), (_, in_bucket) = first.queue.published
        assert [name for name, _ in first.queue.published] == ["delay.16s", PARKED]
        second.now, second.jumped = first.now + 8, jump
        message = in_bucket if parked else delayed
        await second.acked(second.take(message.body, lane=Lane.RETRIES, kind=message.kind, message_id="d"))
        rests = [fact.due - second.now - jump for fact in second.facts if isinstance(fact, Deferred)]
        assert rests == pytest.approx([longest] if jump < 0 else [])
        assert second.notified() == ([] if jump < 0 else ["shop"])


@JUMPS
async def test_open_circuit_keeps_its_length(jump: float) -> None:
    """A jump neither permits an attempt early nor prevents attempts for an hour."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.receivers.behaviours["shop"] = answers(503)
        await harness.acked(harness.event("shop", id="e1"))
        for _ in range(6):
            [(_, _, next_try)] = harness.worker.scheduler.clients.next_tries()
            harness.now = next_try
            await harness.acked(harness.retake(harness.queue.published[-1][0]))
        [(_, _, next_try)] = harness.worker.scheduler.clients.next_tries()
        rest = next_try - harness.now
        assert rest == 4
        harness.jumped = jump
        reported = len(harness.notified())
        await harness.acked(harness.event("shop", id="e2"))
        assert (len(harness.notified()), harness.queue.published.pop()[0]) == (reported, PARKED)
        harness.receivers.behaviours.clear()
        assert await harness.through_delays(most=rest) == [rest]
        await harness.until(lambda: len(harness.notified()) == reported + 2)
        assert list(harness.worker.scheduler.clients.circuits()) == []


@JUMPS
async def test_a_rate_is_kept(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A jump forwards adds no token, one backwards removes none; deferred deliveries follow the client's rate."""
    monkeypatch.setattr(worker, "TICK_SECONDS", 0.0)  # here seconds take no time
    async with running(WorkerHarness(client("shop", per_second=1.0))) as harness:
        for _ in range(30):  # its pace is sure
            await harness.prove("shop")
            harness.now += 1
        for number in range(12):
            harness.event("shop", id=f"e{number}")
        await harness.settled()
        assert harness.notified() == ["shop"]
        harness.jumped = jump
        for seconds in range(1, 31):  # a delivery that was due by the old time may be deferred once more
            await harness.pass_time(1)
            assert len(harness.notified()) <= 1 + seconds
        assert len(harness.notified()) == 12
