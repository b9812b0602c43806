"""The pace that an overloaded client bears is found; one that is broken has its full pace back."""

from collections.abc import Callable

import pytest

from notifier.delivery.overload import Overload, Pacing

WANTED = 0.005  # seconds between two attempts at a client whose pace is not limited: 200 a second


def attempts(judge: Callable[[int, float], bool], *, seconds: float, braked: bool = False) -> tuple[Overload, int, int]:
    """Attempts at a client, as fast as the pace allows. `judge` says if one fails. How many were made, and failed?

    Only the second half of the time counts.
    """
    overload, now, made, failed, number = Overload(), 0.0, 0, 0, 0
    while now < seconds:
        now += max(WANTED, overload.spacing)
        number += 1
        fails = judge(number, now)
        overload.note(now, failed=fails, braked=fails and braked, at_a_time=32)
        if now > seconds / 2:
            made += 1
            failed += fails
    return overload, made, failed


def twenty_a_second() -> Callable[[int, float], bool]:
    """A client that takes 20 a second and refuses the rest."""
    taken = [0.0]

    def fails(_number: int, now: float) -> bool:
        if now - taken[0] < 0.05:
            return True
        taken[0] = max(taken[0] + 0.05, now - 0.25)
        return False

    return fails


@pytest.mark.parametrize("braked", [True, False], ids=["429", "503"])
def test_the_pace_of_an_overloaded_client_is_found(*, braked: bool) -> None:
    """Half an attempt too many for each success at most, and at least 0.8 of its pace is used."""
    overload, made, failed = attempts(twenty_a_second(), seconds=120, braked=braked)
    assert overload.spacing > 0
    assert made <= 1.5 * (made - failed)
    assert made - failed >= 0.8 * 20 * 60


def test_a_broken_client_has_its_full_pace() -> None:
    """A third of its answers fails at any pace, so that trials of two seconds in thirty are all that it costs."""
    _, made, _ = attempts(lambda number, _now: number % 3 == 0, seconds=240)
    assert made >= 0.85 * 120 / WANTED


def test_an_overloaded_client_that_has_grown_gets_more() -> None:
    """It is tried faster and faster while it takes all, and in the end there is no limit any more."""
    small = twenty_a_second()
    overload, made, _ = attempts(lambda number, now: now < 30 and small(number, now), seconds=120)
    assert overload.spacing == 0
    assert made >= 0.9 * 60 / WANTED


def test_a_few_failures_limit_nobody() -> None:
    """A tenth of failures is no overload."""
    overload, made, _ = attempts(lambda number, _now: number % 10 == 0, seconds=30)
    assert (overload.spacing, made >= 15 / WANTED - 2) == (0, True)


def test_a_client_that_was_down_for_a_moment_has_its_full_pace() -> None:
    """A trial, if one begins at all, ends with the full pace."""
    overload, made, _ = attempts(lambda _number, now: 10 <= now % 30 < 11, seconds=120)
    assert (overload.spacing, made >= 0.95 * 60 / WANTED) == (0, True)


def test_a_client_that_was_down_begins_anew() -> None:
    """What it bore before tells nothing of it now."""
    overload, _, _ = attempts(twenty_a_second(), seconds=20)
    assert overload.spacing > 0
    overload.forget(100.0, pace=True)
    assert overload.spacing == 0


def test_a_rest_says_nothing_of_a_pace() -> None:
    """Nothing was tried meanwhile: what comes after it judges the pace."""
    overload = Overload()
    overload.adopt(0.1, 0.0)
    overload.forget(3.0, pace=False)
    overload.note(3.0, failed=False, braked=False, at_a_time=1)
    assert overload.spacing == 0.1


def test_a_pace_that_another_worker_found_quickens_only_while_it_helps() -> None:
    """Also soon after a trial of one's own that did not help: when far too many fail again, it is slower at once.

    If that does not help, the client is broken: it has its full pace back.
    """
    overload, _, _ = attempts(lambda number, _now: number % 3 == 0, seconds=8)
    assert overload.spacing == 0
    overload.adopt(0.1, 8.0)
    for number in range(24):
        overload.note(8.0 + 0.1 * (number + 1), failed=False, braked=False, at_a_time=32)
    adopted = overload.spacing
    assert 0 < adopted < 0.1
    now = 10.4
    for number in range(14):
        now += adopted
        overload.note(now, failed=number % 2 == 0, braked=False, at_a_time=32)
    assert overload.spacing > adopted
    for number in range(72):  # as many fail at that, and at the pace before, and at a trial's
        now += overload.spacing
        overload.note(now, failed=number % 2 == 0, braked=False, at_a_time=32)
    assert overload.spacing == 0


@pytest.mark.parametrize(("failures", "stays"), [(2, True), (3, False)])
def test_a_pace_that_another_worker_tries_is_kept_if_it_surely_helps_here(failures: int, stays: bool) -> None:
    """At least 24 attempts say so, and a tenth fails at most: by luck fewer fail for a moment of any client."""
    overload = Overload()
    overload.adopt(0.1, 0.0)
    for number in range(23):
        overload.note(0.1 * (number + 1), failed=number < failures, braked=False, at_a_time=2)
        assert overload.spacing == 0.1
    overload.note(2.4, failed=False, braked=False, at_a_time=2)
    assert (0 < overload.spacing < 0.1) is stays


def test_a_pace_that_helps_stands_while_some_attempts_find_no_thread() -> None:
    """A client whose threads are all busy now and then refuses some at any pace that uses it: a third is not too many.

    A slower one would leave threads idle. But half of them are too many.
    """
    overload, now, before = Overload(), 0.0, 0.0
    overload.adopt(0.1, now)
    for _ in range(24):
        overload.note(now := now + 0.1, failed=False, braked=False, at_a_time=2)
    for number in range(60):
        before = overload.spacing
        overload.note(now := now + before, failed=number % 3 == 0, braked=False, at_a_time=2)
        assert 0 < overload.spacing <= before
    slowest = before
    for number in range(30):
        overload.note(now := now + overload.spacing, failed=number % 2 == 0, braked=False, at_a_time=2)
        slowest = max(slowest, overload.spacing)
    assert slowest > before


def test_a_pause_between_two_rushes_is_no_slow_pace() -> None:
    """Nobody came in that hour: it says nothing of what the client bears. What comes next does not wait for it."""
    overload, now = Overload(), 0.0
    for number in range(190):
        now += 0.02
        overload.note(now, failed=number > 160 and number % 2 == 0, braked=False, at_a_time=32)
    assert overload.spacing == 0
    overload.note(now + 3600, failed=True, braked=False, at_a_time=32)
    assert overload.spacing <= 0.1


def test_failures_in_one_instant_are_judged_with_the_next_one() -> None:
    """A full pace that is proved may fail at once for all that were begun together."""
    overload, now = Overload(), 0.0
    judge = twenty_a_second()
    while overload.state is not Pacing.PROVING:
        now += max(WANTED, overload.spacing)
        overload.note(now, failed=judge(0, now), braked=False, at_a_time=32)
    states: list[Pacing] = []
    for moment in (*[now] * 24, now + WANTED):
        overload.note(moment, failed=True, braked=False, at_a_time=32)
        states.append(overload.state)
    assert states[-2:] == [Pacing.PROVING, Pacing.PACED]


@pytest.mark.parametrize(("failures", "stays"), [(5, True), (8, False)])
def test_a_pace_that_another_worker_tries_is_kept_if_far_fewer_fail_than_before(failures: int, stays: bool) -> None:
    """Of a client with few threads some fail at any pace: a worker gave it up, and could try none itself for 30 s."""
    overload, _, _ = attempts(lambda number, _now: number % 5 > 0, seconds=8)  # its own trial has not helped
    assert overload.spacing == 0
    overload.adopt(0.1, 8.0)
    for number in range(24):
        overload.note(8.0 + 0.1 * (number + 1), failed=number < failures, braked=False, at_a_time=32)
    assert (overload.spacing > 0) is stays
