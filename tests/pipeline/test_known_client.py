"""One client, as a worker knows it: when it rests and for how long, what its attempts say, and how many it may have."""

import pytest

from notifier.domain.message import Lane
from notifier.domain.outcome import Delivered, Failed, Outcome, Reason, Refused
from notifier.pipeline.known_client import EARN, FULL, LONG, LONGEST, Change, KnownClient, Mark, Side, mark_of

NOW = 1000.0


def untried(limit: int = 8) -> KnownClient[str]:
    """A client that nobody has tried yet."""
    return KnownClient(key=("iss", "shop"), limit=limit, step=0.0, heard=NOW)


def proven(successes: int = 1, limit: int = 8) -> KnownClient[str]:
    """One that has succeeded so often."""
    one = untried(limit)
    for _ in range(successes):
        one.learn(Mark.ALIVE, 0.01, NOW)
    return one


@pytest.mark.parametrize(
    ("outcome", "mark"),
    [
        (Delivered(status=204), Mark.ALIVE),
        (Refused(reason=Reason.REJECTED_TOKEN, status=400), Mark.ALIVE),
        (Failed(reason=Reason.THROTTLED, status=429), Mark.BRAKED),
        (Failed(reason=Reason.SERVER_ERROR, status=408), Mark.BRAKED),
        (Failed(reason=Reason.SERVER_ERROR, status=503), Mark.DOWN),
        (Failed(reason=Reason.TIMEOUT), Mark.DOWN),
        (Failed(reason=Reason.PROXY), Mark.NOTHING),
        (Refused(reason=Reason.EGRESS_DENIED), Mark.NOTHING),
    ],
)
def test_what_an_attempt_says_of_its_client(outcome: Outcome, mark: Mark) -> None:
    """Any answer but 5xx shows that it works; what is our own fault says nothing of it."""
    assert mark_of(outcome) is mark


def test_an_untried_client_rests_at_its_first_failure() -> None:
    """Told once; and its first success ends the outage."""
    one = untried()
    assert one.learn(Mark.DOWN, 0.2, NOW) is Change.DOWN
    assert one.learn(Mark.DOWN, 0.2, NOW + 5) is None
    assert one.learn(Mark.ALIVE, 0.2, NOW + 9) is Change.RECOVERED
    assert one.outage == (NOW - 0.2, NOW + 9)


@pytest.mark.parametrize(("successes", "failures"), [(1, FULL // 2), (3, FULL // 2 + 2 * EARN), (100, FULL)])
def test_a_success_pays_for_four_failures(successes: int, failures: int) -> None:
    """The first for 16, and all of them together for 32."""
    one = proven(successes)
    changes = [one.learn(Mark.DOWN, 0.01, NOW + number / 100) for number in range(1, failures + 1)]
    assert changes == [None] * (failures - 1) + [Change.DOWN]


def test_less_than_four_failures_in_five_never_make_it_rest() -> None:
    """A client behind a load balancer of whose instances most are down is served at its pace."""
    one = proven()
    marks = [Mark.ALIVE, *[Mark.DOWN] * (EARN - 1)] * 200
    assert all(one.learn(mark, 0.01, NOW + number / 10) is None for number, mark in enumerate(marks))


def test_without_a_success_for_long_it_rests() -> None:
    """Whatever its credit: one that is tried once in a second would be tried for half a minute otherwise."""
    one = proven(100)
    assert one.learn(Mark.DOWN, 0.0, NOW) is None
    assert one.learn(Mark.DOWN, 0.0, NOW + LONG - 0.1) is None
    assert one.learn(Mark.DOWN, 0.0, NOW + LONG) is Change.DOWN


@pytest.mark.parametrize(("down_for", "rest"), [(0.1, 1.0), (30.0, 15.0), (3600.0, LONGEST)])
def test_a_rest_lasts_half_of_the_outage(down_for: float, rest: float) -> None:
    """From a second to a minute. An attempt that ends meanwhile makes it no longer."""
    one = untried()
    one.learn(Mark.DOWN, 0.0, NOW)
    one.learn(Mark.DOWN, 0.0, NOW + 2)
    one.next_try = NOW
    one.learn(Mark.DOWN, 0.0, NOW + down_for)
    assert one.next_try == pytest.approx(NOW + down_for + rest)
    one.learn(Mark.DOWN, 0.0, NOW + down_for + rest / 2)
    assert one.next_try == pytest.approx(NOW + down_for + rest)


def test_a_fault_of_ours_is_not_the_clients() -> None:
    """It neither takes credit nor ends an outage, and whoever is not up is left alone for a second."""
    well, down = proven(), untried()
    down.learn(Mark.DOWN, 0.0, NOW)
    for number in range(50):
        assert well.learn(Mark.NOTHING, 0.1, NOW + number) is None
        assert down.learn(Mark.NOTHING, 0.1, NOW + number) is None
        assert down.next_try == NOW + number + 1
    assert well.up
    assert down.rests


def test_it_may_have_more_at_a_time_with_each_success() -> None:
    """One at first, its limit in the end, half of it after a rest."""
    one = untried(limit=6)
    assert one.cap == 1
    for expected in (2, 3, 4, 5, 6, 6):
        one.learn(Mark.ALIVE, 0.01, NOW)
        assert one.cap == expected
    for _ in range(FULL):
        one.learn(Mark.DOWN, 0.01, NOW + 1)
    assert (one.up, one.cap) == (False, 3)


def test_it_is_slow_by_the_mean_of_its_attempts_or_by_its_silence() -> None:
    """A tenth of a second of silence for one that is quick; four times the usual for one that is not."""
    one = proven()
    one.running[1] = (NOW, Lane.EVENTS)
    assert [one.side_at(NOW + silence) for silence in (0.09, 0.11)] == [Side.QUICK, Side.SLOW]
    one.hold = 0.2
    assert [one.side_at(NOW + silence) for silence in (0.7, 0.9)] == [Side.QUICK, Side.SLOW]
    one.running.clear()
    one.hold = 1.1
    assert one.side_at(NOW) is Side.SLOW


def test_a_rate_gives_its_tokens_one_by_one() -> None:
    """One at once, then one each `step` seconds; what was not used for long is not saved up."""
    one = proven(limit=100)
    one.step = 0.5
    taken = 0
    for tick in range(200):
        now = NOW + 60 + tick / 20
        while one.tokens(now) >= 1:
            one.take_token(now)
            taken += 1
    assert 19 <= taken <= 23
