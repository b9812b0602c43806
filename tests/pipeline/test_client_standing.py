"""How one client stands: its cap, its silence, its rate, and what outcomes say of it."""

import pytest

from notifier.domain.message import Lane
from notifier.domain.outcome import Delivered, Failed, Outcome, Reason, Refused
from notifier.pipeline.client_standing import Group, Mark, Standing, mark_of
from tests.pipeline.simulation import client


def _standing(limit: int = 32, per_second: float | None = None, **more: object) -> Standing[str]:
    step = 0.0 if per_second is None else 1 / per_second
    return Standing(client=client("c0", **more), limit=limit, step=step, heard=0.0)


def test_quick_answers_double_the_cap_up_to_the_limit() -> None:
    """From 2 on."""
    one = _standing(limit=20)
    caps = [one.cap]
    for _ in range(5):
        one.learn(Mark.ALIVE, 0.01, 0.0)
        caps.append(one.cap)
    assert caps == [2, 4, 8, 16, 20, 20]


@pytest.mark.parametrize(("mark", "seconds"), [(Mark.DOWN, 0.01), (Mark.BRAKED, 0.01), (Mark.ALIVE, 1.01)])
def test_a_failure_a_brake_or_a_slow_answer_makes_it_suspect(mark: Mark, seconds: float) -> None:
    """With one slot, until the next quick answer."""
    one = _standing()
    one.learn(Mark.ALIVE, 0.01, 0.0)
    one.learn(mark, seconds, 0.0)
    assert (one.cap, one.group) == (1, Group.SUSPECT)
    one.learn(Mark.ALIVE, 0.01, 0.0)
    assert (one.cap, one.group) == (2, Group.WELL)


def test_a_fault_of_ours_changes_nothing() -> None:
    """Neither cap nor circuit nor standing."""
    one = _standing()
    for _ in range(50):
        one.learn(Mark.NOTHING, 5.0, 0.0)
    assert (one.cap, one.group, one.circuit.open_until) == (2, Group.UNPROVEN, None)


def test_silence_is_out_of_the_ordinary_by_the_client_s_own_measure() -> None:
    """Four times what its answers take, and a tenth of a second at least; a second at most."""
    one = _standing()
    one.learn(Mark.ALIVE, 0.005, 10.0)
    one.running[1] = (10.0, Lane.EVENTS)
    assert not one.tardy(10.1)
    assert one.tardy(10.11)
    assert not one.hangs(11.0)
    assert one.hangs(11.01)
    one.mean = 0.2
    assert not one.tardy(10.79)
    assert one.tardy(10.81)


def test_one_that_answers_others_is_not_silent() -> None:
    """One request that hangs among many that are answered condemns nobody."""
    one = _standing()
    one.running[1] = (10.0, Lane.EVENTS)
    for tenth in range(30):
        one.learn(Mark.ALIVE, 0.01, 10 + tenth / 10)
    assert not one.hangs(13.0)
    assert one.hangs(14.0)


def test_a_suspect_is_asked_again_when_its_attempt_may_have_ended() -> None:
    """After its deadline where it hangs, soon where it fails quickly, and ever later while it keeps failing."""
    one = _standing(timeout=5.0)
    one.learn(Mark.ALIVE, 0.01, 0.0)
    assert one.watch == 0.0
    one.doubt()
    assert one.watch == 5.0
    for watch in (10.0, 20.0, 40.0, 60.0, 60.0):
        one.learn(Mark.DOWN, 5.0, 0.0)
        assert one.watch == watch
    quick = _standing()
    quick.learn(Mark.DOWN, 0.001, 0.0)
    assert quick.watch == 1.0


def test_a_rate_is_kept_exactly_over_time() -> None:
    """Ten a second: ten at once, and then one each tenth; never more than ten beyond the time that passed."""
    one = _standing(per_second=10)
    took = [now / 1000 for now in range(10_000) if one.take_token(now / 1000)]
    assert took[:10] == [0.0, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 0.009]
    assert len(took) in (109, 110)
    assert all(sum(1 for then in took if since <= then < since + 1) <= 20 for since in range(9))


def test_a_slow_rate_gives_one_at_a_time() -> None:
    """Once in two seconds."""
    one = _standing(per_second=0.5)
    assert [now for now in range(10) if one.take_token(float(now))] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("outcome", "mark"),
    [
        (Delivered(status=200), Mark.ALIVE),
        (Refused(reason=Reason.REJECTED_TOKEN, status=400), Mark.ALIVE),
        (Refused(reason=Reason.REDIRECT, status=302), Mark.ALIVE),
        (Refused(reason=Reason.EGRESS_DENIED), Mark.NOTHING),
        (Failed(reason=Reason.PROXY), Mark.NOTHING),
        (Failed(reason=Reason.PROXY, status=502), Mark.NOTHING),
        (Failed(reason=Reason.THROTTLED, status=429), Mark.BRAKED),
        (Failed(reason=Reason.SERVER_ERROR, status=408), Mark.BRAKED),
        (Failed(reason=Reason.SERVER_ERROR, status=503), Mark.DOWN),
        (Failed(reason=Reason.TIMEOUT), Mark.DOWN),
        (Failed(reason=Reason.TLS), Mark.DOWN),
    ],
)
def test_only_transport_failures_and_5xx_say_that_it_is_down(outcome: Outcome, mark: Mark) -> None:
    """A brake or a refusal is an answer; a refusing proxy and our own egress rules are nothing of the client's."""
    assert mark_of(outcome) is mark


def test_the_oldest_of_the_highest_lane_begins_and_the_newest_of_the_lowest_gives_way() -> None:
    """Fresh events never wait behind retries."""
    one = _standing()
    for lane, ticket in ((Lane.BULK, "b1"), (Lane.RETRIES, "r1"), (Lane.EVENTS, "e1"), (Lane.BULK, "b2")):
        one.push(lane, ticket)
    assert one.next_lane is Lane.EVENTS
    assert [one.pop(), one.pop(newest=True), one.pop(), one.pop()] == ["e1", "b2", "r1", "b1"]
    assert one.waiting == 0
