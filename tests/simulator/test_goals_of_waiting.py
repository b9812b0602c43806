"""The goals of waiting at scale, held by the real pipeline in virtual time."""

import pytest

from tests.simulator import test_goals
from tests.simulator.case import Case
from tests.simulator.cases import short
from tests.simulator.waiting_cases import waiting

CASES = short(waiting())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_goal(case: Case) -> None:
    """It is reached: `python -m tests.simulator NAME` shows the same."""
    test_goals.test_goal(case)
