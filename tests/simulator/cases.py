"""Every case, in the order of the goals.

Short cases run with the tests. The others make the same ground denser: more lengths, shares, rates, workers and seeds.
"""

from collections.abc import Iterator
from itertools import chain

from tests.simulator.case import Case
from tests.simulator.crowd_cases import crowds
from tests.simulator.outage_cases import cost, politeness, recovery
from tests.simulator.partly_cases import instance_hangs, overload, partial_failure


def every() -> Iterator[Case]:
    """All of them."""
    groups = (recovery, partial_failure, instance_hangs, crowds, overload, politeness, cost)
    return chain.from_iterable(group() for group in groups)


def short(cases: Iterator[Case]) -> dict[str, Case]:
    """Those that run with the tests, by name."""
    return {case.name: case for case in cases if case.short}
