"""Every case, in the order of the goals.

Short cases run with the tests. The others make the same ground denser: more lengths, shares, rates, workers and seeds.
"""

from tests.simulator.case import Case
from tests.simulator.crowd_cases import crowds
from tests.simulator.outage_cases import cost, politeness, recovery
from tests.simulator.partly_cases import instance_hangs, overload, partial_failure


def every() -> list[Case]:
    """All of them."""
    groups = (recovery, partial_failure, instance_hangs, crowds, overload, politeness, cost)
    return [case for group in groups for case in group()]
