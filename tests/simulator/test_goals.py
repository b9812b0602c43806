"""The goals for healthy clients beside those in trouble, held by the real pipeline in virtual time."""

import pytest

from tests.simulator.case import Case
from tests.simulator.cases import short
from tests.simulator.crowd_cases import crowds

CASES = short(crowds())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_goal(case: Case) -> None:
    """It is reached: `python -m tests.simulator NAME` shows the same."""
    found = case.measure()
    assert found.ok, f"{case.goal}: {found.said}"
