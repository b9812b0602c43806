"""The wall clock jumps an hour: rests, pauses, rates and what is parked go by the steady clock."""

import pytest

from notifier.pipeline.facts import Deferred
from tests.pipeline.stage import PARKED, Stage, answers, client, running
from tests.pipeline.test_clocks import JUMPS


@JUMPS
async def test_a_pause_that_a_client_asked_for_keeps_its_length(jump: float) -> None:
    """`Retry-After: 60` is a minute of the steady clock; what comes meanwhile is parked for the rest of it."""
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
    """Neither does a jump let anybody in, nor keep them out for an hour."""
    async with running(Stage(client("shop"))) as stage:
        stage.receivers.behaviours["shop"] = answers(503)
        await stage.acked(stage.event("shop", id="e1"))
        for _ in range(4):
            [(_, _, next_try)] = stage.worker.next_tries
            stage.now = next_try
            await stage.acked(stage.retake(stage.queue.published[-1][0]))
        [(_, _, next_try)] = stage.worker.next_tries
        rest = next_try - stage.now
        assert rest > 2
        stage.jumped = jump
        told = len(stage.told())
        await stage.acked(stage.event("shop", id="e2"))
        assert (len(stage.told()), stage.queue.published.pop()[0]) == (told, PARKED)
        stage.receivers.behaviours.clear()
        assert await stage.through_delays(most=rest) == [2.0]
        await stage.until(lambda: len(stage.told()) == told + 2)
        assert list(stage.worker.circuits) == []


@JUMPS
async def test_a_rate_is_kept(jump: float) -> None:
    """A jump forwards brings no token, one backwards takes none; what is parked comes back at the client's rate."""
    async with running(Stage(client("shop", per_second=1.0))) as stage:
        await stage.acked(stage.event("shop", id="first"))
        for number in range(11):
            await stage.acked(stage.event("shop", id=f"before-{number}"))
        assert stage.queue.published[-1][0] == PARKED
        told = len(stage.told())
        stage.jumped = jump
        await stage.acked(stage.event("shop", id="at-once"))
        assert len(stage.told()) == told
        for seconds in range(1, 13):
            stage.now += 1
            await stage.until(lambda seconds=seconds: len(stage.told()) == told + seconds)  # type: ignore[misc]
        await stage.until(lambda: len(stage.queue.acked) == 13 + len(stage.queue.published))
