"""The wall clock jumps an hour: open circuits, pauses, rates and parked deliveries follow the steady clock."""

import pytest

from notifier.delivery import worker
from notifier.delivery.facts import Deferred
from tests.delivery.stage import PARKED, Stage, answers, client, running
from tests.delivery.test_clocks import JUMPS


@JUMPS
async def test_a_pause_that_a_client_asked_for_keeps_its_length(jump: float) -> None:
    """`Retry-After: 60` is a minute of the steady clock; deliveries that arrive meanwhile
    are parked for the remainder.
    """
    async with running(Stage(client("shop"))) as stage:
        stage.receivers.behaviours["shop"] = answers(429, "60")
        await stage.acked(stage.event("shop"))
        stage.receivers.behaviours.clear()
        stage.now += 10
        stage.jumped = jump
        await stage.acked(stage.event("shop", id="e2"))
        assert (stage.told(), stage.queue.published[-1][0]) == (["shop"], PARKED)
        [later] = [fact for fact in stage.facts if isinstance(fact, Deferred)]
        assert later.due == pytest.approx(stage.now + jump + 50, abs=1.0)
        stage.now += 50
        await stage.acked(stage.retake("delay.64s"))
        await stage.until(lambda: stage.told() == ["shop"] * 3)


@JUMPS
async def test_a_rest_keeps_its_length(jump: float) -> None:
    """A jump neither permits an attempt early nor prevents attempts for an hour."""
    async with running(Stage(client("shop"))) as stage:
        stage.receivers.behaviours["shop"] = answers(503)
        await stage.acked(stage.event("shop", id="e1"))
        for _ in range(6):
            [(_, _, next_try)] = stage.worker.gate.clients.next_tries()
            stage.now = next_try
            await stage.acked(stage.retake(stage.queue.published[-1][0]))
        [(_, _, next_try)] = stage.worker.gate.clients.next_tries()
        rest = next_try - stage.now
        assert rest == 4
        stage.jumped = jump
        told = len(stage.told())
        await stage.acked(stage.event("shop", id="e2"))
        assert (len(stage.told()), stage.queue.published.pop()[0]) == (told, PARKED)
        stage.receivers.behaviours.clear()
        assert await stage.through_delays(most=rest) == [rest]
        await stage.until(lambda: len(stage.told()) == told + 2)
        assert list(stage.worker.gate.clients.circuits()) == []


@JUMPS
async def test_a_rate_is_kept(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A jump forwards adds no token, one backwards removes none; deferred deliveries follow the client's rate."""
    monkeypatch.setattr(worker, "TICK_SECONDS", 0.0)  # here seconds take no time
    async with running(Stage(client("shop", per_second=1.0))) as stage:
        for _ in range(30):  # its pace is sure
            await stage.prove("shop")
            stage.now += 1
        for number in range(12):
            stage.event("shop", id=f"e{number}")
        await stage.settled()
        assert stage.told() == ["shop"]
        stage.jumped = jump
        for seconds in range(1, 31):  # a delivery that was due by the old time may be deferred once more
            await stage.pass_time(1)
            assert len(stage.told()) <= 1 + seconds
        assert len(stage.told()) == 12
