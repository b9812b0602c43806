"""The goals for clients in trouble, held by the real pipeline in virtual time: all that concern no bystander."""

import pytest

from tests.simulator import test_goals
from tests.simulator.case import Case
from tests.simulator.cases import every, short

CASES = {name: case for name, case in short(every()).items() if name not in test_goals.CASES}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_goal(case: Case) -> None:
    """It is reached: `python -m tests.simulator NAME` shows the same."""
    test_goals.test_goal(case)
