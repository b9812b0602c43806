"""The pace that an overloaded client bears is found; one that is broken has its full pace back."""

from collections.abc import Callable

import pytest

from notifier.delivery.overload import AGAIN, LENT, OLD, Overload, Pacing

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
    overload.adopt(0.1, 0.0, 0.0)
    before = overload.spacing
    overload.forget(30.0, pace=False)
    overload.note(30.0, failed=False, braked=False, at_a_time=1)
    assert overload.spacing == before > 0


def keeps(overload: Overload, *, since: float, seconds: float, every: int = 0) -> float:
    """Attempts at the pace that it keeps, of which each so-manieth fails. Returns when they end."""
    now, number = since, 0
    while now < since + seconds:
        now += max(WANTED, overload.spacing)
        number += 1
        overload.note(now, failed=bool(every) and number % every == 0, braked=False, at_a_time=32)
    return now


def kept(former_share: float) -> Overload:
    """It keeps twenty attempts a second from the first second on, since fewer failed than before."""
    overload = Overload()
    for number in range(50):
        overload.note(number / 50, failed=number % 2 == 0, braked=False, at_a_time=32)
    overload.adopt(0.05, former_share, 1.0)
    assert overload.spacing == pytest.approx(0.05)
    return overload


@pytest.mark.parametrize("every", [1, 2, 3, 20])
def test_another_workers_trial_is_judged_there(every: int) -> None:
    """Whatever fails here: the pace stays until that worker says that it helped, or says nothing for ten seconds."""
    for helps in (True, False):
        overload = Overload()
        overload.adopt(0.1, 0.0, 0.0)
        now = keeps(overload, since=0.0, seconds=LENT - 2, every=every)
        overload.adopt(0.1, 0.0, now)  # its next trial
        now = keeps(overload, since=now, seconds=LENT - 2, every=every)
        assert overload.state is Pacing.LENT
        if helps:
            overload.adopt(0.1, 0.9, now)
            assert (overload.state, overload.former_share) == (Pacing.PACED, 0.9)
        else:
            keeps(overload, since=now, seconds=3, every=every)
            assert (overload.state, overload.former_share) == (Pacing.FREE, 0)


def test_what_was_under_way_says_nothing_of_a_trial() -> None:
    """It began at full pace, here or at another worker that has not heard of the trial yet."""
    overload, now, judge, states = Overload(), 0.0, twenty_a_second(), list[Pacing]()
    while Pacing.TRIAL not in states:
        now += WANTED
        overload.note(now, failed=judge(0, now), braked=False, at_a_time=32)
        states.append(overload.state)
    for number in range(50):
        overload.note(now + number / 201, failed=True, braked=False, at_a_time=32)
    for number in range(60):
        overload.note(now + 0.25 + number / 20, failed=False, braked=False, at_a_time=32)
        states.append(overload.state)
    assert Pacing.PROVING in states


def test_nobody_tries_soon_what_has_not_helped_another_worker() -> None:
    """A client that is broken would be at its slower pace most of the time, by one worker's trial after the other's."""
    overload = Overload()
    overload.adopt(0.1, 0.0, 0.0)
    now = keeps(overload, since=0.0, seconds=LENT + 2, every=2)
    began = 0.0
    for number in range(100_000):
        overload.note(now := now + WANTED, failed=number % 2 == 0, braked=False, at_a_time=32)
        if overload.state is Pacing.TRIAL:
            began = now
            break
    assert LENT + AGAIN <= began <= LENT + AGAIN + 3


@pytest.mark.parametrize(
    ("of_twenty", "pace"),
    [(0, 1.0), (4, 12.8), (15, 48)],  # without any it is that of the other worker
)
def test_a_lent_pace_is_that_of_ones_own_successes(of_twenty: int, pace: float) -> None:
    """All workers together try less than the client bears, however its answers are shared out among them."""
    overload = Overload()
    for number in range(80):
        overload.note(number / 80, failed=number % 20 >= of_twenty, braked=False, at_a_time=1)
    overload.adopt(1.0, 0.0, 1.0)
    assert 1 / overload.spacing == pytest.approx(pace, rel=0.06)


def test_a_pace_that_helped_is_kept_at_once() -> None:
    """By a worker that keeps none. It comes nearer to the other one's with each word of that."""
    overload = Overload()
    overload.adopt(0.1, 0.9, 0.0)
    assert overload.state is Pacing.PACED
    before = overload.spacing
    overload.adopt(0.1, 0.0, 0.0)  # a trial, says one who does not know
    assert overload.spacing == before
    for _ in range(40):
        overload.adopt(0.1, 0.9, 0.0)
    assert overload.spacing == pytest.approx(0.1, rel=0.05)


def test_a_kept_pace_comes_to_rest_where_some_attempts_find_no_thread() -> None:
    """A client whose threads are all busy now and then refuses some at any pace that uses it.

    If a third fails, the pace stays. If none does it becomes quicker, by an eighth at a time; if half do, slower.
    """
    for every, least, most in ((3, 0.75, 1.1), (0, 1.5, 2.0), (2, 0, 0.5)):
        overload = kept(0.9)
        keeps(overload, since=1.0, seconds=5.0, every=every)
        assert least <= 0.05 / overload.spacing <= most, every


@pytest.mark.parametrize(("former_share", "stays"), [(0.9, True), (0.5, False)])
def test_a_client_that_fails_as_often_at_any_pace_has_its_full_pace_back(former_share: float, *, stays: bool) -> None:
    """Half of them fail at a kept pace, too: it does not help, if half failed before."""
    overload = kept(former_share)
    keeps(overload, since=1.0, seconds=3.5, every=2)
    assert (overload.spacing > 0) is stays


def test_what_was_found_is_old_where_a_pace_falls_to_a_quarter() -> None:
    """Two fifths fail at any pace now: one that follows the successes would fall for ever, and hardly any be told."""
    overload, now = kept(0.9), 1.0
    for number in range(300):
        now += max(WANTED, overload.spacing)
        overload.note(now, failed=number % 5 < 2, braked=False, at_a_time=32)
        assert overload.spacing < 2 * OLD * 0.05
        if overload.state is Pacing.FREE:
            return
    raise AssertionError(overload)


@pytest.mark.parametrize("former_share", [0.0, 0.9])
def test_where_all_goes_well_nobody_listens(former_share: float) -> None:
    """Another worker may have a fault of its own: it slows down nobody but itself."""
    overload = Overload()
    for number in range(30):
        overload.note(number / 100, failed=False, braked=False, at_a_time=32)
    overload.adopt(10.0, former_share, 0.3)
    assert overload.spacing == 0


@pytest.mark.parametrize("former_share", [0.0, 0.9])
def test_a_pace_that_is_none_is_not_heard(former_share: float) -> None:
    """Whoever says it."""
    overload = kept(0.9)
    before = overload.spacing
    overload.adopt(5e-324, former_share, 0.3)
    overload.adopt(1.0, former_share, 0.3)
    assert before <= overload.spacing < 1.0


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
