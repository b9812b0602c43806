"""One client, as a worker knows it: when it rests and for how long, what its attempts say, and how many it may have."""

from collections.abc import Callable

import pytest

from notifier.delivery.circuit import EARN, FULL, LONG, LONGEST, MOST_GRACE, SHORTEST, Change, State
from notifier.delivery.known_client import KnownClient, News, Side
from notifier.delivery.ticket import Ticket
from notifier.model.message import Lane
from notifier.model.outcome import Delivered, Failed, Outcome, Reason, Refused, Signal

NOW = 1000.0


def untried(limit: int = 8) -> KnownClient[Ticket]:
    """A client that nobody has tried yet."""
    return KnownClient(key=("iss", "shop"), limit=limit, step=0.0, heard=NOW)


def learn(one: KnownClient[Ticket], signal: Signal, now: float = NOW, *, repeat: bool = False) -> Change | None:
    """An attempt at it ended at once."""
    return one.on_result(signal, 0.0, now, repeat=repeat, least=0.0)


def proven(successes: int = 1, limit: int = 8) -> KnownClient[Ticket]:
    """One that has succeeded so often."""
    one = untried(limit)
    for _ in range(successes):
        learn(one, Signal.RESPONSIVE)
    return one


def down(one: KnownClient[Ticket] | None = None, at: float = NOW) -> KnownClient[Ticket]:
    """One whose attempts fail until it is down, all at the same moment."""
    one = one or untried()
    while learn(one, Signal.UNAVAILABLE, at) is None:
        pass
    return one


def paused() -> KnownClient[Ticket]:
    """One that asked for a pause of a second."""
    one = proven()
    one.on_pause(NOW + 1)
    return one


@pytest.mark.parametrize(
    ("outcome", "signal"),
    [
        (Delivered(status=204), Signal.RESPONSIVE),
        (Refused(reason=Reason.REJECTED_TOKEN, status=400), Signal.RESPONSIVE),
        (Failed(reason=Reason.THROTTLED, status=429), Signal.RATE_LIMITED),
        (Failed(reason=Reason.SERVER_ERROR, status=408), Signal.RATE_LIMITED),
        (Failed(reason=Reason.SERVER_ERROR, status=503), Signal.UNAVAILABLE),
        (Failed(reason=Reason.TIMEOUT), Signal.UNAVAILABLE),
        (Failed(reason=Reason.PROXY), Signal.NONE),
        (Refused(reason=Reason.EGRESS_DENIED), Signal.NONE),
    ],
)
def test_what_an_attempt_says_of_its_client(outcome: Outcome, signal: Signal) -> None:
    """Any answer but 5xx shows that it works; what is our own fault says nothing of it."""
    assert outcome.signal is signal


# ── the table, row by row ───────────────────────────────────────────────────────────────────────────────────────


def test_new_comes_up_with_a_success() -> None:
    """Nothing was wrong with it, so nothing is told."""
    one = untried()
    assert learn(one, Signal.RESPONSIVE) is None
    assert (one.circuit.state, one.circuit.budget) == (State.CLOSED, FULL // 2)


def test_new_goes_down_with_its_first_failure() -> None:
    """It rests for a second."""
    one = untried()
    assert learn(one, Signal.UNAVAILABLE) is Change.OPENED
    assert (one.circuit.state, one.circuit.next_try) == (State.OPEN, NOW + SHORTEST)


@pytest.mark.parametrize(("successes", "failures"), [(1, FULL // 2), (3, FULL // 2 + 2 * EARN), (100, FULL)])
def test_up_stays_so_while_it_has_credit(successes: int, failures: int) -> None:
    """The first success pays for 16 failures, each further one for four, and all of them for 32."""
    one = proven(successes)
    changes = [learn(one, Signal.UNAVAILABLE, NOW + number / 100) for number in range(1, failures + 1)]
    assert changes == [None] * (failures - 1) + [Change.OPENED]


def test_less_than_four_failures_in_five_never_take_it_down() -> None:
    """A client behind a load balancer of whose instances most are down is served at its pace."""
    one = proven()
    marks = [Signal.RESPONSIVE, *[Signal.UNAVAILABLE] * (EARN - 1)] * 200
    assert all(learn(one, mark, NOW + number / 10) is None for number, mark in enumerate(marks))


def test_up_goes_down_without_a_success_for_long() -> None:
    """Whatever its credit: one that is tried once in a second would be tried for half a minute otherwise."""
    one = proven(100)
    assert learn(one, Signal.UNAVAILABLE, NOW) is None
    assert learn(one, Signal.UNAVAILABLE, NOW + LONG - 0.1) is None
    assert learn(one, Signal.UNAVAILABLE, NOW + LONG) is Change.OPENED


def test_silence_takes_no_credit() -> None:
    """Nobody was told for long: the first failure since says no more than any other, and no client seems to be down."""
    one = proven(100)
    late = NOW + 100 * LONG
    assert [learn(one, Signal.UNAVAILABLE, late + number) for number in range(5)] == [None] * 5
    assert learn(one, Signal.UNAVAILABLE, late + LONG) is Change.OPENED


@pytest.mark.parametrize(("failing", "change"), [(2.0, Change.OPENED), (4.0, None)])
def test_up_goes_down_if_another_worker_says_so(failing: float, change: Change | None) -> None:
    """But not if something has succeeded here since the failures there began."""
    one = proven()
    down = News(key=one.key, up=False, failing=failing, rest=8.0)
    assert one.on_peer_report(down, NOW + 3) is change
    assert one.circuit.state is (State.CLOSED if change is None else State.OPEN)
    if change is not None:
        assert one.circuit.next_try == NOW + 3 + 8


def test_down_comes_up_if_its_try_succeeds() -> None:
    """How long it was down is known then."""
    one = down(proven())
    assert learn(one, Signal.RESPONSIVE, NOW + 9, repeat=True) is Change.RECOVERED
    assert (one.circuit.state, one.circuit.budget) == (State.CLOSED, FULL // 2)
    assert (one.circuit.outage_from, one.circuit.outage_until) == (NOW, NOW + 9)


@pytest.mark.parametrize(("after", "change"), [(2.1, Change.RECOVERED), (1.9, None)])
def test_down_comes_up_if_another_worker_says_so(after: float, change: Change | None) -> None:
    """But not within two seconds: it may bear no more than the others do. It bears what it bears there."""
    one = down(proven())
    up = News(key=one.key, up=True, cap=6)
    assert one.on_peer_report(up, NOW + after) is change
    assert (one.circuit.budget, one.cap) == ((FULL // 2, 6) if change else (0, 1))


def test_after_a_short_outage_it_has_little_credit() -> None:
    """It may be overloaded."""
    one = down(proven())
    learn(one, Signal.RESPONSIVE, one.circuit.next_try, repeat=True)
    assert one.circuit.budget == EARN


@pytest.mark.parametrize(("seconds", "limited"), [(LONG, True), (LONG + 1, False)])
def test_a_rate_limit_survives_a_short_outage(seconds: float, *, limited: bool) -> None:
    """Where several workers probe in turn, overload looks like one. After a longer one the client may bear more."""
    one = down(proven())
    one.rate.on_peer_report(0.1, 0.9, NOW)
    assert learn(one, Signal.RESPONSIVE, NOW + seconds, repeat=True) is Change.RECOVERED
    assert (one.rate.spacing > 0) is limited


@pytest.mark.parametrize("late", [0.0, 2.0])
def test_it_has_more_and_more_credit_where_all_first_attempts_fail(late: float) -> None:
    """And they alone: they say nothing of the others. A first attempt that succeeds ends that."""
    one, found = untried(), []
    for _ in range(8):
        down(one, at=one.circuit.succeeded_at + 1 if one.up else NOW)
        learn(one, Signal.RESPONSIVE, one.circuit.next_try + late, repeat=True)
        found.append(one.circuit.budget)
    assert found == [32, 64, 128, 256, 512, MOST_GRACE, MOST_GRACE, MOST_GRACE]
    learn(one, Signal.RESPONSIVE, one.circuit.succeeded_at)
    down(one, at=one.circuit.succeeded_at + 1)
    learn(one, Signal.RESPONSIVE, one.circuit.next_try, repeat=True)
    assert one.circuit.budget == EARN


def test_down_rests_for_longer_after_each_try_that_fails() -> None:
    """Half of the time for which it has been down, from one second to 64: each is one pass through one delay queue."""
    one, rests = down(), [SHORTEST]
    for _ in range(16):
        assert learn(one, Signal.UNAVAILABLE, one.circuit.next_try, repeat=True) is Change.STILL_OPEN
        rests.append(one.circuit.next_try - one.ended)
    assert rests == [1, 1, 1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32, 64, 64, 64]
    assert learn(one, Signal.UNAVAILABLE, one.ended, repeat=True) is None  # it ended meanwhile: no try


def test_down_rests_for_longer_if_another_workers_try_fails() -> None:
    """As long as it rests there."""
    one = down()
    assert one.on_peer_report(News(key=one.key, up=False, failing=60.0, rest=32.0), NOW + 1) is Change.STILL_OPEN
    assert (one.circuit.next_try, one.circuit.failing_since) == (NOW + 33, NOW - 59)


def test_an_operator_ends_the_rest() -> None:
    """Whoever is on the way to try it."""
    one = down()
    one.on_probe_sent(NOW + 60)
    one.on_operator_probe(NOW + 0.5, force=False)
    assert (one.circuit.state, one.circuit.next_try, one.covered(NOW + 0.5)) == (State.OPEN, NOW + 0.5, False)


@pytest.mark.parametrize("before", State)
def test_each_is_paused_when_it_asks_for_that(before: State) -> None:
    """Until the pause is over, or an operator forces it. Then it is as before."""
    made: dict[State, Callable[[], KnownClient[Ticket]]]
    made = {State.UNTRIED: untried, State.CLOSED: proven, State.OPEN: down, State.PAUSED: paused}
    one = made[before]()
    was = one.circuit.state
    one.on_pause(NOW + 60)
    one.on_pause(NOW + 30)  # a shorter one changes nothing
    assert [one.state_at(NOW + seconds) for seconds in (0, 59, 60)] == [State.PAUSED, State.PAUSED, was]
    one.on_operator_probe(NOW + 5, force=False)
    assert one.state_at(NOW + 5) is State.PAUSED
    one.on_operator_probe(NOW + 5, force=True)
    assert one.state_at(NOW + 5) is was


# ── what else is heard and learnt ───────────────────────────────────────────────────────────────────────────────


def test_what_is_heard_of_a_client_that_nobody_tried_here_changes_nothing() -> None:
    """It is tried once, and then this worker knows better."""
    one = untried()
    assert one.on_peer_report(News(key=one.key, up=False, failing=9.0, rest=8.0), NOW) is None
    assert one.on_peer_report(News(key=one.key, up=True), NOW) is None
    assert one.circuit.state is State.UNTRIED


def test_nobody_has_a_client_rest_for_an_hour() -> None:
    """However long another worker says: at most for as long as a client rests of its own failures."""
    one = down()
    one.on_peer_report(News(key=one.key, up=False, failing=5000.0, rest=3600.0), NOW)
    assert one.circuit.next_try == NOW + LONGEST


def test_a_rate_limit_is_heard() -> None:
    """Several workers that try out paces of their own would find nothing out."""
    for former_share in (0.0, 0.9):
        one = proven()
        one.on_peer_report(News(key=one.key, up=True, spacing=0.25, former_share=former_share), NOW)
        assert one.rate.former_share == former_share
        assert one.pace(NOW, 8) == one.rate.spacing > 0


def test_a_rest_lasts_until_each_that_is_down_could_have_its_try() -> None:
    """`least`, in whole passes."""
    one = untried()
    one.on_result(Signal.UNAVAILABLE, 0.0, NOW, repeat=False, least=5.0)
    assert one.circuit.next_try == NOW + 8


def test_no_rest_is_longer_than_documented() -> None:
    """After a stall of this worker all clients look as if they hung, and all that are down as if they needed long."""
    one = untried()
    one.on_result(Signal.UNAVAILABLE, 5.0, NOW, repeat=False, least=200.0)
    assert one.circuit.next_try == NOW + LONGEST


def test_a_fault_of_ours_is_not_the_clients() -> None:
    """It neither takes credit nor ends an outage, and whoever is not up is left alone for a second."""
    well, rests = proven(), down()
    for number in range(50):
        assert learn(well, Signal.NONE, NOW + number) is None
        assert learn(rests, Signal.NONE, NOW + number) is None
        assert rests.circuit.next_try == NOW + number + 1
    assert (well.circuit.state, well.circuit.budget) == (State.CLOSED, FULL // 2)
    assert rests.down


def test_it_may_have_more_at_a_time_with_each_success() -> None:
    """One at first, its limit in the end, half of it after a rest."""
    one = untried(limit=6)
    assert one.cap == 1
    for expected in (2, 3, 4, 5, 6, 6):
        learn(one, Signal.RESPONSIVE, NOW)
        assert one.cap == expected
    for _ in range(FULL):
        learn(one, Signal.UNAVAILABLE, NOW + 1)
    assert (one.up, one.cap) == (False, 3)


def test_it_is_slow_by_the_mean_of_its_attempts_or_by_its_silence() -> None:
    """A tenth of a second of silence for one that is quick; four times the usual for one that is not."""
    one = proven()
    one.on_started(1, Lane.EVENTS, Side.QUICK, NOW)
    assert [one.side_at(NOW + silence) for silence in (0.09, 0.11)] == [Side.QUICK, Side.SLOW]
    one.hold = 0.2
    assert [one.side_at(NOW + silence) for silence in (0.7, 0.9)] == [Side.QUICK, Side.SLOW]
    one.on_ended(1)
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
            one.on_started(taken, Lane.EVENTS, Side.QUICK, now)
            one.on_ended(taken)
            taken += 1
    assert 19 <= taken <= 23
