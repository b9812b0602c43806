"""Each row of the table in `rate`, and the rate that clients of several kinds get by it."""

from collections.abc import Callable

import pytest

from notifier.delivery.rate import PEER_TRIAL_SECONDS, RETRIAL_SECONDS, AttemptRate, RateState

WANTED = 0.005  # seconds between two attempts at a client without a limit: 200 a second
Fails = Callable[[int, float], bool]


def each(every: int) -> Fails:
    """A client that fails each so-manieth attempt at any rate; never with 0."""
    return lambda number, _now: bool(every) and number % every == 0


def two_of_five(number: int, _now: float) -> bool:
    """A client that fails two of five attempts at any rate."""
    return number % 5 < 2


def takes_20_a_second() -> Fails:
    """A client that accepts 20 attempts a second and refuses the rest."""
    last = [0.0]

    def fails(_number: int, now: float) -> bool:
        if now - last[0] < 0.05:
            return True
        last[0] = max(last[0] + 0.05, now - 0.25)
        return False

    return fails


def attempt(
    rate: AttemptRate, fails: Fails, *, since: float, until: float, leave: RateState | None = None
) -> tuple[float, int, int]:
    """Attempt as fast as the limit allows, until a moment or until the rate leaves the state `leave`.

    Return the moment of the last attempt, and how many were made and failed in the second half.
    """
    now, number, made, failed = since, 0, 0, 0
    while now < until and (leave is None or rate.state is leave):
        now += max(WANTED, rate.spacing)
        number += 1
        failing = fails(number, now)
        rate.on_result(now, failed=failing)
        if now > (since + until) / 2:
            made, failed = made + 1, failed + failing
    return now, made, failed


def unlimited() -> tuple[AttemptRate, float]:
    """No attempt has been made."""
    return AttemptRate(), 0.0


def trial() -> tuple[AttemptRate, float]:
    """The client accepts 20 of 200 a second."""
    rate = AttemptRate()
    now, _, _ = attempt(rate, takes_20_a_second(), since=0.0, until=60.0, leave=RateState.UNLIMITED)
    return rate, now


def unlimited_trial() -> tuple[AttemptRate, float]:
    """The trial helped."""
    rate, now = trial()
    now, _, _ = attempt(rate, each(0), since=now, until=now + 60, leave=RateState.TRIAL)
    return rate, now


def peer_trial() -> tuple[AttemptRate, float]:
    """A peer reported its trial."""
    rate = AttemptRate()
    rate.on_peer_report(0.05, 0.0, 0.0)
    return rate, 0.0


def limited(former_share: float = 0.9) -> tuple[AttemptRate, float]:
    """Return a rate that a peer's report limits to 20 attempts a second, and the moment of the report."""
    rate = AttemptRate()
    for number in range(50):
        rate.on_result(number / 50, failed=number % 2 == 0)
    rate.on_peer_report(0.05, former_share, 1.0)
    assert rate.spacing == pytest.approx(0.05)
    return rate, 1.0


@pytest.mark.parametrize(
    ("before", "fails", "after"),
    [
        (unlimited, takes_20_a_second(), RateState.TRIAL),
        (trial, each(0), RateState.UNLIMITED_TRIAL),
        (trial, each(2), RateState.UNLIMITED),
        (unlimited_trial, takes_20_a_second(), RateState.LIMITED),
        (unlimited_trial, each(0), RateState.UNLIMITED),
        (peer_trial, each(1), RateState.UNLIMITED),
        (lambda: limited(0.5), each(2), RateState.UNLIMITED),  # as many as before
        (limited, two_of_five, RateState.UNLIMITED),  # the limit has fallen to a quarter
        (limited, each(0), RateState.UNLIMITED),  # nothing fails for long
    ],
)
def test_attempts_lead_from_one_state_to_the_next(
    before: Callable[[], tuple[AttemptRate, float]], fails: Fails, after: RateState
) -> None:
    """The rows of the table without a peer."""
    rate, now = before()
    attempt(rate, fails, since=now, until=now + 60, leave=rate.state)
    assert rate.state is after
    assert (rate.spacing > 0) is (after in (RateState.TRIAL, RateState.LIMITED))


@pytest.mark.parametrize(("successes", "state"), [(5, RateState.TRIAL), (6, RateState.UNLIMITED)])
def test_no_trial_begins_after_successes_in_a_row(successes: int, state: RateState) -> None:
    """The client was down for a moment, and the attempts after it show that this is over."""
    rate = AttemptRate()
    for number in range(60):
        rate.on_result(number / 59, failed=20 <= number < 60 - successes)
    assert rate.state is state


def test_few_successes_end_a_trial_if_most_failed_before() -> None:
    """The client was down for a moment: its pending deliveries are not delayed any longer."""
    rate, began = trial()
    now, _, _ = attempt(rate, each(0), since=began + 0.25, until=began + 60, leave=RateState.TRIAL)
    assert rate.state is RateState.UNLIMITED_TRIAL
    assert now - began < 1.0  # eight attempts; sixteen take longer


def test_failures_with_429_limit_the_rate_without_a_trial() -> None:
    """The client reports the overload itself."""
    rate, fails = AttemptRate(), takes_20_a_second()
    for number in range(400):
        failing = fails(number, number * WANTED)
        rate.on_result(number * WANTED, failed=failing, throttled=failing)
    assert rate.state is RateState.LIMITED


@pytest.mark.parametrize(
    ("before", "former_share", "after"),
    [
        (unlimited, 0.0, RateState.PEER_TRIAL),
        (unlimited, 0.9, RateState.LIMITED),
        (trial, 0.0, RateState.TRIAL),
        (trial, 0.9, RateState.TRIAL),
        (peer_trial, 0.0, RateState.PEER_TRIAL),
        (peer_trial, 0.9, RateState.LIMITED),
        (limited, 0.0, RateState.LIMITED),
        (limited, 0.9, RateState.LIMITED),
    ],
)
def test_a_peer_report_leads_from_one_state_to_the_next(
    before: Callable[[], tuple[AttemptRate, float]], former_share: float, after: RateState
) -> None:
    """`former_share` is 0 during the peer's trial. The limit is reported, too."""
    rate, now = before()
    rate.on_peer_report(0.1, former_share, now)
    assert rate.state is after
    assert (rate.former_share > 0) is (after is RateState.LIMITED)


@pytest.mark.parametrize("former_share", [0.0, 0.9])
def test_a_worker_whose_attempts_succeed_ignores_a_peer_report(former_share: float) -> None:
    """The fault may be at the peer alone."""
    rate = AttemptRate()
    for number in range(30):
        rate.on_result(number / 100, failed=False)
    rate.on_peer_report(10.0, former_share, 0.3)
    assert rate.spacing == 0


def test_a_reported_spacing_that_is_no_limit_is_ignored() -> None:
    """By a worker with a limit, too."""
    rate, now = limited()
    rate.on_peer_report(5e-324, 0.9, now)
    assert rate.spacing == pytest.approx(0.05)


@pytest.mark.parametrize("every", [1, 2, 3, 20])
def test_the_peer_decides_on_its_trial(every: int) -> None:
    """Failures here do not end it. A report of the next trial prolongs it. A trial may begin 30 s later."""
    rate, _ = peer_trial()
    now, _, _ = attempt(rate, each(every), since=0.0, until=PEER_TRIAL_SECONDS - 2)
    rate.on_peer_report(0.05, 0.0, now)
    attempt(rate, each(every), since=now, until=now + PEER_TRIAL_SECONDS - 2)
    assert rate.state is RateState.PEER_TRIAL
    lifted_at, _, _ = attempt(rate, each(every), since=now, until=now + 30, leave=RateState.PEER_TRIAL)
    began_at, _, _ = attempt(rate, each(2), since=lifted_at, until=lifted_at + 60, leave=RateState.UNLIMITED)
    assert RETRIAL_SECONDS <= began_at - lifted_at <= RETRIAL_SECONDS + 3


@pytest.mark.parametrize(
    ("of_twenty", "a_second"),
    [(0, 1.0), (4, 12.8), (15, 48)],  # without a success, that of the peer
)
def test_a_peer_trial_follows_the_own_successes(of_twenty: int, a_second: float) -> None:
    """All workers together make fewer attempts than the client accepts, however they share its successes."""
    rate = AttemptRate()
    for number in range(80):
        rate.on_result(number / 80, failed=number % 20 >= of_twenty)
    rate.spacing, rate.state = 0.0, RateState.UNLIMITED
    rate.on_peer_report(1.0, 0.0, 1.0)
    assert 1 / rate.spacing == pytest.approx(a_second, rel=0.06)


def test_limits_of_workers_move_towards_each_other() -> None:
    """With each report."""
    rate, now = limited()
    for _ in range(40):
        rate.on_peer_report(0.1, 0.9, now)
    assert rate.spacing == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(("every", "least", "most"), [(3, 0.75, 1.1), (0, 1.5, 2.0), (2, 0.0, 0.5)])
def test_a_limit_settles_where_30_percent_fail(every: int, least: float, most: float) -> None:
    """With fewer failures it rises by an eighth at a time, with more it falls."""
    rate, now = limited()
    attempt(rate, each(every), since=now, until=6.0)
    assert least <= 0.05 / rate.spacing <= most


def test_attempts_in_flight_do_not_count_for_a_trial() -> None:
    """They began at the full rate, here or at a peer without a report so far."""
    rate, now = trial()
    for number in range(50):
        rate.on_result(now + number / 201, failed=True)
    attempt(rate, each(0), since=now + 0.25, until=now + 60, leave=RateState.TRIAL)
    assert rate.state is RateState.UNLIMITED_TRIAL


def test_the_sample_begins_anew_after_a_short_outage() -> None:
    """No attempt was made during the outage. The limit stays."""
    rate, now = limited()
    attempt(rate, each(1), since=now, until=now + 0.4)
    rate.on_outage(8.0, 7.6, first_attempts_only=False)
    rate.on_result(8.0, failed=False)
    assert rate.spacing == pytest.approx(0.05)


@pytest.mark.parametrize("before", [limited, peer_trial])
def test_a_long_outage_ends_the_limit(before: Callable[[], tuple[AttemptRate, float]]) -> None:
    """The rate that the client accepted before is out of date."""
    rate, _ = before()
    rate.on_outage(30.0, 29.0, first_attempts_only=False)
    assert (rate.state, rate.spacing) == (RateState.UNLIMITED, 0.0)


def test_a_time_without_deliveries_does_not_lower_the_rate() -> None:
    """Nothing was wanted in that hour."""
    rate = AttemptRate()
    for number in range(190):
        rate.on_result(number / 50, failed=number > 160 and number % 2 == 0)
    assert rate.spacing == 0
    rate.on_result(3604.0, failed=True)
    assert rate.spacing <= 0.1


def test_attempts_that_fail_together_are_evaluated_with_the_next_one() -> None:
    """A burst of an unlimited trial ends in one instant."""
    rate, now = unlimited_trial()
    for _ in range(24):
        rate.on_result(now, failed=True)
    states = [rate.state]
    rate.on_result(now + WANTED, failed=True)
    assert [*states, rate.state] == [RateState.UNLIMITED_TRIAL, RateState.LIMITED]


def test_larger_share_of_the_registered_rate_brings_no_burst() -> None:
    """The tokens of a second, which a former worker may just have used, become one token."""
    rate = AttemptRate()
    rate.on_registration(0.1, 0.0)
    rate.on_started(0.0)
    assert rate.tokens(10.0, 99) == 99
    rate.on_registration(0.05, 10.0)
    assert (rate.tokens(10.0, 99), rate.tokens(10.5, 99)) == (1, 11)
