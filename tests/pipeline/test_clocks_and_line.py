"""The wall clock jumps an hour: circuits, pauses, rates and the line of those who wait go by the steady clock."""

import json

import pytest

from notifier.domain.message import Lane, Outgoing
from notifier.pipeline.admission import FARTHEST, Admission, Later
from notifier.pipeline.facts import Deferred
from notifier.pipeline.window import Window
from tests.pipeline.stage import Stage, answers, client, hop_of, running
from tests.pipeline.test_clocks import HOUR, JUMPS


@JUMPS
async def test_a_pause_that_a_client_asked_for_keeps_its_length(jump: float) -> None:
    """`Retry-After: 60` is a minute of the steady clock; who comes meanwhile is put off for the rest of it."""

    async with running(Stage(client("shop"))) as stage:
        stage.receivers.behaviours["shop"] = answers(429, "60")
        await stage.acked(stage.event("shop"))
        stage.receivers.behaviours.clear()
        stage.now += 10
        stage.jumped = jump
        await stage.acked(stage.event("shop", id="e2"))
        assert stage.told() == ["shop"]
        assert hop_of(stage.queue.published[-1][0]) in (32, 64)
        [later] = [fact for fact in stage.facts if isinstance(fact, Deferred)]
        assert later.due == pytest.approx(stage.now + jump + 50, abs=1.0)
        stage.now += 50
        await stage.acked(stage.retake(stage.queue.published[-1][0]))
        assert stage.told() == ["shop", "shop"]


@JUMPS
async def test_an_open_circuit_stays_open_for_its_time(jump: float) -> None:
    """Neither does a jump let everybody in, nor keep them out for an hour."""
    async with running(Stage(client("shop"))) as stage:
        stage.receivers.behaviours["shop"] = answers(503)
        for number in range(3):
            await stage.acked(stage.event("shop", id=str(number)))
        assert [two for _, _, two in stage.worker.circuits] == [2]
        stage.now += 10
        stage.jumped = jump
        told = len(stage.told())
        await stage.acked(stage.event("shop", id="e2"))
        assert len(stage.told()) == told
        assert hop_of(stage.queue.published[-1][0]) <= 32
        stage.receivers.behaviours.clear()
        stage.now += 21
        await stage.acked(stage.retake(stage.queue.published[-1][0]))
        assert len(stage.told()) == told + 1
        assert list(stage.worker.circuits) == []


@JUMPS
async def test_a_token_bucket_fills_at_its_pace(jump: float) -> None:
    """A jump forwards brings no token, one backwards takes none."""
    async with running(Stage(client("shop", per_second=1.0))) as stage:
        for number in range(6):
            stage.event("shop", id=f"before-{number}")
        await stage.until(lambda: len(stage.queue.acked) == 6)
        told = len(stage.told())
        assert told < 6
        stage.jumped = jump
        await stage.acked(stage.event("shop", id="at-once"))
        assert len(stage.told()) == told
        assert all(hop_of(queue) <= 8 for queue, _ in stage.queue.published)
        stage.now += 10
        await stage.acked(stage.event("shop", id="later"))
        assert len(stage.told()) == told + 1


def put_off(stage: Stage) -> list[Outgoing]:
    """What was deferred."""
    return [message for queue, message in stage.queue.published if queue.startswith("delay.")]


async def test_a_line_that_waits_comes_back_one_by_one_after_a_jump_forwards() -> None:
    """Every reservation has passed at one stroke: those who come back are given new ones, each after the last."""
    async with running(Stage(client("shop", per_second=1.0))) as stage:
        for number in range(40):
            stage.event("shop", id=str(number))
        await stage.until(lambda: len(stage.queue.acked) == 40)
        waiting, told = put_off(stage), len(stage.told())
        stage.jumped, stage.now = HOUR, stage.now + 1.0
        stage.queue.published.clear()
        for message in waiting:
            stage.take(message.body, lane=Lane.RETRIES, kind=message.kind, message_id=message.message_id)
        await stage.until(lambda: len(stage.queue.acked) == 40 + len(waiting))
        assert len(stage.told()) - told <= 2
        dues = sorted(due_of(message) for message in put_off(stage))
        assert dues[-1] - dues[0] >= len(dues) - 5


def due_of(message: Outgoing) -> float:
    """When a delivery that waits is due."""
    return float(json.loads(message.body)["schedule"]["due"])


@pytest.mark.parametrize("back", [HOUR, 24 * HOUR])
def test_a_reservation_is_never_farther_than_fifteen_minutes(back: float) -> None:
    """Told by a clock that has stepped back since, it lies hours ahead; who has it would come back as late."""
    admission: Admission[object] = Admission(Window(8), slot_wait=1.0)
    shop, now = client("shop", per_second=0.1), 5000.0
    assert not isinstance(admission.ask(shop, Lane.EVENTS, object(), now), Later)
    for reserved, due in ((now + back, now + FARTHEST), (now + 60.0, now + 60.0)):
        later = admission.ask(shop, Lane.RETRIES, object(), now, reserved)
        assert isinstance(later, Later)
        assert later.due == pytest.approx(due, abs=20.0)


async def test_who_has_a_place_in_line_keeps_it_for_fifteen_minutes_after_a_jump_backwards() -> None:
    """No delivery waits for the hour that its reservation lies ahead by then."""
    async with running(Stage(client("shop", per_second=0.1))) as stage:
        for number in range(10):
            stage.event("shop", id=str(number))
        await stage.until(lambda: len(stage.queue.acked) == 10)
        last = put_off(stage)[-1]
        stage.jumped = -HOUR
        await stage.acked(stage.take(last.body, lane=Lane.RETRIES, kind=last.kind, message_id=last.message_id))
        queue, again = stage.queue.published[-1]
        if again is not last:
            assert hop_of(queue) <= FARTHEST
            assert due_of(again) <= stage.now - HOUR + FARTHEST + 20
