"""A client's circuit: what opens it, how long, and how one success closes it."""

import pytest

from notifier.domain.client import CircuitPolicy
from notifier.pipeline.circuit import LONGEST_OPEN, Circuit

POLICY = CircuitPolicy()


def _fail(circuit: Circuit, times: int, now: float = 0.0, *, proven: bool = True) -> list[bool]:
    return [circuit.down(now, POLICY, proven=proven) for _ in range(times)]


def _opened(now: float = 0.0) -> Circuit:
    circuit = Circuit()
    _fail(circuit, 10, now)
    return circuit


def test_ten_failures_in_a_row_open_it_once() -> None:
    """The tenth tells so; what was under way and fails afterwards is no news."""
    circuit = Circuit()
    assert _fail(circuit, 10) == [False] * 9 + [True]
    assert circuit.blocks(29.9)
    assert not any(_fail(circuit, 5))
    assert circuit.open_until == 30.0


def test_three_are_enough_for_a_client_that_never_answered() -> None:
    """What was never seen alive gets less credit."""
    assert _fail(Circuit(), 3, proven=False) == [False, False, True]


def test_an_answer_between_starts_the_count_anew() -> None:
    """Four times four failures, with answers between: neither ten in a row, nor half of them."""
    circuit = Circuit()
    for round_ in range(4):
        assert not any(_fail(circuit, 4, round_ * 100.0))
        for _ in range(5):
            circuit.alive(round_ * 100.0, POLICY)
    assert not circuit.blocks(400.0)


@pytest.mark.parametrize(("answers", "opens"), [(5, True), (6, False)])
def test_a_failure_rate_over_the_window_opens_it(answers: int, opens: bool) -> None:
    """Half of at least ten attempts, though never ten in a row."""
    circuit = Circuit()
    for _ in range(answers):
        circuit.alive(0.0, POLICY)
    assert _fail(circuit, 5, 2.0) == [False] * 4 + [opens]


def test_what_lies_before_the_window_does_not_count() -> None:
    """Failures of an hour ago say nothing of the rate now."""
    circuit = Circuit()
    _fail(circuit, 9)
    circuit.alive(0.0, POLICY)
    for number in range(20):
        circuit.alive(3600.0 + number, POLICY)
    assert not any(_fail(circuit, 4, 3621.0))


def test_each_failed_probe_doubles_the_time_up_to_a_quarter_of_an_hour() -> None:
    """30 s, 1, 2, 4, 8, 15, 15 minutes."""
    circuit, now = _opened(), 0.0
    lengths = []
    for _ in range(8):
        assert circuit.open_until is not None
        lengths.append(circuit.open_until - now)
        now = circuit.open_until
        assert not circuit.blocks(now)
        circuit.begin()
        circuit.down(now, POLICY, proven=True)
    assert lengths == [30, 60, 120, 240, 480, LONGEST_OPEN, LONGEST_OPEN, LONGEST_OPEN]


def test_half_open_lets_one_probe_through() -> None:
    """While it is under way the others wait."""
    circuit = _opened()
    assert not circuit.blocks(30.0)
    circuit.begin()
    assert circuit.blocks(30.0)
    assert circuit.blocks(1000.0)


def test_a_success_closes_it_and_forgets_what_was() -> None:
    """It says so once; the next time it opens for the short time again, after the full count."""
    circuit = _opened()
    circuit.begin()
    circuit.down(30.0, POLICY, proven=True)
    circuit.begin()
    assert circuit.alive(95.0, POLICY)
    assert not circuit.alive(95.0, POLICY)
    assert not circuit.blocks(95.0)
    assert _fail(circuit, 10, 200.0) == [False] * 9 + [True]
    assert circuit.open_until == 230.0


def test_a_probe_that_says_nothing_lets_the_next_one_be_the_probe() -> None:
    """A fault of ours, as a refusing proxy, is never charged to the client."""
    circuit = _opened()
    circuit.begin()
    circuit.undecided()
    assert circuit.open_until == 30.0
    assert not circuit.blocks(30.0)
