"""What must hold in any world: clients, outages, restarts, reloads, confirm times and copies drawn at random."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.simulator.random_worlds import Loss, Person, Plan, broken, plans

WORLDS = 60  # a second of CPU each


@pytest.mark.full
@pytest.mark.timeout(600)
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


@pytest.mark.parametrize("what", ["nothing", "address", "entry", "issuer", "inline"])
def test_temporary_gap_in_the_registry_loses_nothing(what: str) -> None:
    """By name, by `"*"`, and with an address of the event; workers reload at different moments, and one restarts."""
    refusing = Person(moods=((5.0, "refuses"), (30.0, "fails a third")), max_concurrent=4)
    plan = Plan(
        clients=(refusing, Person(moods=((10.0, "throttles"),)), replace(refusing, brought=True)),
        rate=1.0, workers=2, buckets=4, confirm=0.1, again=None, copies=1, restarts=((25.0, 1, True),),
        unreadable=None, stars=5, seed=1,
        losses=(
            Loss(begins=8.0, ends=20.0, what=what, lag=0.5),
            Loss(begins=24.0, ends=45.0, what=what, lag=5.0, number=2),
        ),
    )  # fmt: skip
    assert not (found := broken(plan)), f"{found}; again: python -m tests.simulator.random_worlds '{plan!r}'"


def test_bucket_unreadable_for_no_time_is_readable() -> None:
    """A bucket that is unreadable from 8.0 to 8.0 s keeps nothing, whatever the order of the two timers."""
    plan = Plan(
        clients=(Person(moods=((5.0, "refuses"),)),), rate=5.0, workers=1, buckets=1, confirm=0.1, again=None,
        copies=1, restarts=((10.0, 0, True), (30.0, 0, False)), unreadable=(8.0, 8.0), seed=1,
    )  # fmt: skip
    assert broken(plan) == []
