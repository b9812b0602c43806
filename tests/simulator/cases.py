"""All cases, by what is wrong with the client, and by how its deliveries wait.

Short cases run with the tests. The others cover the same ground with more lengths, shares, rates, workers and seeds.
"""

from collections.abc import Iterator

from tests.simulator.case import Case
from tests.simulator.crowd_cases import crowds
from tests.simulator.outage_cases import cost, politeness, recovery
from tests.simulator.partly_cases import instance_hangs, overload, partial_failure
from tests.simulator.waiting_cases import waiting


def every() -> Iterator[Case]:
    """Return all cases."""
    for cases in (partial_failure, instance_hangs, overload, crowds, recovery, politeness, cost, waiting):
        yield from cases()


def short() -> Iterator[Case]:
    """Return the cases that run with the tests."""
    return (case for case in every() if case.short)
