"""Every case, by what is wrong with the client, and by how its deliveries wait.

Short cases run with the tests. The others make the same ground denser: more lengths, shares, rates, workers and seeds.
"""

from collections.abc import Iterable, Iterator

from tests.simulator.case import Case
from tests.simulator.crowd_cases import crowds
from tests.simulator.outage_cases import cost, politeness, recovery
from tests.simulator.partly_cases import instance_hangs, overload, partial_failure
from tests.simulator.waiting_cases import waiting


def every() -> Iterator[Case]:
    """All of them."""
    yield from half_well()
    yield from crowds()
    yield from outages()
    yield from waiting()


def half_well() -> Iterator[Case]:
    """A client half works, or takes less than is wanted."""
    yield from partial_failure()
    yield from instance_hangs()
    yield from overload()


def outages() -> Iterator[Case]:
    """A client is down."""
    yield from recovery()
    yield from politeness()
    yield from cost()


def short(cases: Iterable[Case]) -> dict[str, Case]:
    """Those that run with the tests, by name."""
    return {case.name: case for case in cases if case.short}
