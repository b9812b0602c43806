"""Each row of the table in `circuit`, and how long a circuit stays open."""

import math
from collections.abc import Callable

import pytest

from notifier.delivery.circuit import Circuit, CircuitChange, State

NOW = 1000.0
Event = Callable[[Circuit], CircuitChange | None]


def success(after: float = 0.0, *, repeat: bool = True) -> Event:
    """An attempt that succeeds so many seconds after `NOW`."""
    return lambda circuit: circuit.on_success(NOW + after, is_repeat=repeat)


def failure(after: float = 0.0, *, least: float = 0.0) -> Event:
    """A repeat that fails so many seconds after `NOW`."""
    return lambda circuit: circuit.on_failure(0.0, NOW + after, is_repeat=True, min_open_seconds=least)


def peer_open(after: float, failing: float, rest: float = 8.0) -> Event:
    """A peer reports its circuit open."""
    return lambda circuit: circuit.on_peer_open(NOW + after - failing, rest, NOW + after)


def peer_closed(after: float) -> Event:
    """A peer reports a recovery."""
    return lambda circuit: circuit.on_peer_closed(NOW + after)


def operator_probe(after: float) -> Event:
    """An operator requests a probe."""
    return lambda circuit: circuit.on_operator_probe(NOW + after)


def internal_fault(after: float) -> Event:
    """An attempt fails for an internal reason."""
    return lambda circuit: circuit.on_internal_fault(NOW + after)


CLOSED = (success(repeat=False),)
OPEN = (failure(),)  # for a second
UNTRIED_STATE = (State.UNTRIED, 0, -math.inf)


def closed(budget: int) -> tuple[State, int, None]:
    """The circuit closed, with so many failures in the budget."""
    return State.CLOSED, budget, None


def opened(seconds: float) -> tuple[State, int, float]:
    """The circuit open until so many seconds after `NOW`."""
    return State.OPEN, 0, seconds


@pytest.mark.parametrize(
    ("before", "event", "change", "after"),
    [
        ((), success(repeat=False), None, closed(16)),
        ((), failure(), CircuitChange.OPENED, opened(1)),
        ((), peer_open(0, 9), None, UNTRIED_STATE),
        ((), peer_closed(9), None, UNTRIED_STATE),
        (CLOSED, success(), None, closed(20)),
        (CLOSED * 9, success(), None, closed(32)),
        (CLOSED, failure(1), None, closed(15)),
        ((*CLOSED, *[failure(1)] * 15), failure(1), CircuitChange.OPENED, opened(2)),
        ((*CLOSED * 9, failure(100)), failure(109.9), None, closed(30)),
        ((*CLOSED * 9, failure(100)), failure(110), CircuitChange.OPENED, opened(114)),
        (CLOSED, peer_open(3, 2), CircuitChange.OPENED, opened(11)),
        (CLOSED, peer_open(3, 4), None, closed(16)),
        (CLOSED, peer_closed(9), None, closed(16)),
        (CLOSED, internal_fault(9), None, closed(16)),
        (OPEN, failure(0.9), None, opened(1)),
        (OPEN, operator_probe(0.5), None, opened(0.5)),
        (OPEN, failure(1), CircuitChange.STILL_OPEN, opened(2)),
        (OPEN, failure(9), CircuitChange.STILL_OPEN, opened(13)),  # half of 9 s, rounded down to a power of two
        (OPEN, failure(500), CircuitChange.STILL_OPEN, opened(564)),
        (
            OPEN,
            failure(1, least=5),
            CircuitChange.STILL_OPEN,
            opened(9),
        ),  # until each client that is down had its probe
        (OPEN, failure(1, least=200), CircuitChange.STILL_OPEN, opened(65)),
        (OPEN, success(2), CircuitChange.RECOVERED, closed(4)),
        (OPEN, success(2.1), CircuitChange.RECOVERED, closed(16)),
        (OPEN, peer_open(1, 60, 32), CircuitChange.STILL_OPEN, opened(33)),
        (OPEN, peer_open(1, 5000, 3600), CircuitChange.STILL_OPEN, opened(65)),
        ((*OPEN, peer_open(1, 61, 8)), failure(9), CircuitChange.STILL_OPEN, opened(41)),  # half of the peer's 69 s
        (OPEN, peer_closed(2.1), CircuitChange.RECOVERED, closed(16)),
        (OPEN, peer_closed(1.9), None, opened(1)),
        (OPEN, internal_fault(5), None, opened(6)),
    ],
)
def test_an_event_leads_from_one_state_to_the_next(
    before: tuple[Event, ...], event: Event, change: CircuitChange | None, after: tuple[State, int, float | None]
) -> None:
    """The rows of the table, in its order."""
    circuit = Circuit()
    for earlier in before:
        earlier(circuit)
    assert event(circuit) is change
    state, budget, seconds = after
    assert (circuit.state, circuit.budget) == (state, budget)
    assert seconds is None or circuit.probe_at == pytest.approx(NOW + seconds)


def test_a_client_of_which_a_fifth_succeeds_keeps_a_closed_circuit() -> None:
    """A load balancer has one good instance of five."""
    circuit = Circuit()
    events = [event for number in range(200) for event in (success(number / 5), *[failure(number / 5)] * 4)]
    assert not any(event(circuit) for event in events)


def test_a_circuit_stays_open_for_half_of_the_outage() -> None:
    """From one second to 64, each a power of two."""
    circuit, now, spans = Circuit(), 0.0, list[float]()
    for _ in range(17):
        failure(now)(circuit)
        spans.append(circuit.probe_at - NOW - now)
        now += spans[-1]
    assert spans == [1, 1, 1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32, 64, 64, 64]


@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_the_budget_doubles_while_first_attempts_alone_fail(seconds: float) -> None:
    """However short the outages are. A first attempt that succeeds ends that."""
    circuit, now, budgets = Circuit(), NOW, list[int]()
    for first_succeeds in (*[False] * 8, True):
        if first_succeeds:
            circuit.on_success(now, is_repeat=False)
        while circuit.on_failure(0.0, now, is_repeat=False, min_open_seconds=0.0) is None:
            pass
        circuit.on_success(now + seconds)
        budgets.append(circuit.budget)
        now += seconds + 1
    assert budgets == [32, 64, 128, 256, 512, 1024, 1024, 1024, 4 if seconds <= 2 else 16]
