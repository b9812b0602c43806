"""What a flood of logouts takes is computed from what was measured, and each of the four limits can be the one."""

import pytest

from notifier.features.capacity import measured_costs
from notifier.features.capacity.capacity import (
    ALGORITHMS,
    LOAD,
    MAX_CONCURRENT,
    Demand,
    capacity_for,
    cost,
    worker_rate,
)
from notifier.model.message import Lane


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_the_measured_figures_come_out_again(alg: str) -> None:
    """Of events of 1 and of 10 clients; between and beyond them a delivery costs between the two, and no less."""
    assert cost(alg, 1) == pytest.approx(measured_costs.DELIVERY[alg, 1])
    assert cost(alg, 10) == pytest.approx(min(measured_costs.DELIVERY[alg, 10], measured_costs.DELIVERY[alg, 1]))
    costs = [cost(alg, clients) for clients in (1, 2, 5, 10, 100, 10_000)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] > 0


def test_the_processor_is_planned_with_a_reserve() -> None:
    """Twice the sessions take twice the workers; a core is never planned to be fully used."""
    demand = Demand(sessions=6_000_000, clients=10, within=600, alg="RS256", answer=0.001)
    found = capacity_for(demand)
    assert found.workers == found.workers_for_processor > 10
    assert found.workers * worker_rate("RS256", 10) >= demand.deliveries_per_second
    assert found.workers * LOAD * 1e6 / cost("RS256", 10) >= demand.deliveries_per_second
    double = capacity_for(Demand(sessions=12_000_000, clients=10, within=600, alg="RS256", answer=0.001))
    assert abs(double.workers - 2 * found.workers) <= 1


def test_slow_answers_take_workers_that_their_processors_do_not() -> None:
    """In lane bulk a worker holds 64 events, so with one client each 64 requests at a time."""
    demand = Demand(sessions=60_000, clients=1, within=60, alg="ES256", answer=1.0)
    found = capacity_for(demand)
    assert found.in_flight == 1000
    assert (found.workers, found.workers_for_in_flight) == (16, 16)
    assert found.workers_for_processor == 1
    urgent = capacity_for(Demand(sessions=60_000, clients=1, within=60, alg="ES256", answer=1.0, lane=Lane.EVENTS))
    assert urgent.workers == 2


def test_no_number_of_workers_makes_a_client_faster() -> None:
    """One that knows every session is told by `max_concurrent` requests at a time."""
    demand = Demand(sessions=1_000_000, clients=5, within=600, answer=0.1)
    found = capacity_for(demand)
    assert found.client_seconds == pytest.approx(1_000_000 * 0.1 / MAX_CONCURRENT)
    assert not found.within_reach(demand)
    patient = Demand(sessions=1_000_000, clients=5, within=3600, answer=0.1)
    assert capacity_for(patient).within_reach(patient)


def test_more_events_than_one_queue_gives_are_shared_out_over_several() -> None:
    """A queue is one process of the broker, and so never more than one core of it."""
    found = capacity_for(Demand(sessions=100_000_000, clients=1, within=600, answer=0.001))
    assert found.broker_cores == pytest.approx(100_000_000 / 600 * measured_costs.BROKER_EVENT / 1e6)
    assert found.queues * LOAD >= found.broker_cores
    assert capacity_for(Demand(sessions=1, clients=1, within=600)).queues == 1
    assert capacity_for(Demand(sessions=1, clients=1, within=600)).workers == 1
