"""The goals of delivery, met by the real pipeline in virtual time."""

import pytest

from tests.simulator.case import Case, measure_short
from tests.simulator.cases import short

SLOW = {
    "hung-300-1-workers",
    "overload-4-threads-503-short",
    "overload-20/s-503-3-workers-short",
    "drain-600-of-1000-short",
    "isolation-300-of-1000-flap-short",
    "isolation-300-of-1000-at-once-short",
    "isolation-600-of-1000-short",
    "firsts-fail-150/s-1-workers",
    "firsts-fail-150/s-3-workers",
    "partial-0.7-30/s-max32",
    "partial-0.33-30/s-max32",
    "partial-0.5-30/s-max32",
    "partial-0.7-8/s-max4",
    "instance-max8-short",
    "isolation-300-of-1000-short",
    "recovery-429-45-3-workers",
    "recovery-503-45-3-workers",
    "recovery-hangs-45-3-workers",
    "restart-drains-again-3-workers-unreadable",
    "restart-drains-3-workers",
    "overload-20/s-503-short",
    "cost-1x2500-short",
    "storm-2000-in-8",
    "copies-half-fail-100-ms",
    "firsts-fail-40/s-1-workers",
    "recovery-restarted-3-workers",
    "recovery-refuses-45-3-workers",
    "partial-0.33-3-workers",
    "partial-0.5-8/s-max4",
    "partial-0.1-30/s-max32",
    "firsts-fail-40/s-3-workers",
    "copies-chains-3-workers",
}
"""Cases of at least a second of CPU: they run in `make test-all` only."""


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=[pytest.mark.full] if case.name in SLOW else []) for case in short()],
)
def test_goal(case: Case) -> None:
    """One of three seeds meets the goal. `python -m tests.simulator --short NAME` shows the same."""
    found = measure_short(case)
    assert found.ok, f"{case.goal}: {found.text}"
