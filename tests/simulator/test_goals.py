"""The goals for clients in trouble and for those beside them, held by the real pipeline in virtual time."""

import pytest

from tests.simulator.case import Case
from tests.simulator.cases import every

SHORT = [case for case in every() if case.short]


@pytest.mark.parametrize("case", SHORT, ids=[case.name for case in SHORT])
def test_goal(case: Case) -> None:
    """It is reached: `python -m tests.simulator NAME` shows the same."""
    found = case.measure()
    assert found.ok, f"{case.goal}: {found.said}"
