"""What must hold in any world: clients, outages, restarts, confirm times, copies and buckets drawn at random."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.simulator.random_worlds import Plan, broken, plans

WORLDS = 60  # a second of CPU each


@pytest.mark.full
@settings(
    max_examples=WORLDS,
    derandomize=True,  # `python -m tests.simulator.random_worlds SEED COUNT` looks at others
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[*HealthCheck],
)
@given(plan=plans)
def test_no_promise_is_broken(plan: Plan) -> None:
    """`python -m tests.simulator.random_worlds 'Plan(…)'` runs one again."""
    assert not (found := broken(plan)), f"{found}; again: python -m tests.simulator.random_worlds '{plan!r}'"
