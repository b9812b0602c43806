"""The goals for clients that were down, held by the real pipeline in virtual time."""

import pytest

from tests.simulator import test_goals
from tests.simulator.case import Case
from tests.simulator.cases import outages, short

CASES = short(outages())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_goal(case: Case) -> None:
    """It is reached: `python -m tests.simulator NAME` shows the same."""
    test_goals.test_goal(case)
