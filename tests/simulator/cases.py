"""All cases, by what is wrong with the client, and by how its deliveries wait.

Short cases run with the tests, unless more than a tenth of the seeds miss them. The others cover the same ground with
more lengths, shares, rates, workers and seeds.
"""

import math
from collections.abc import Iterator

from tests.simulator.case import Case
from tests.simulator.crowd_cases import crowds
from tests.simulator.outage_cases import cost, politeness, recovery
from tests.simulator.partly_cases import instance_hangs, overload, partial_failure
from tests.simulator.seed_shares import LONG_SEEDS, SHORT_SHARE, recorded_shares
from tests.simulator.waiting_cases import waiting


def every() -> Iterator[Case]:
    """Return all cases."""
    for cases in (partial_failure, instance_hangs, overload, crowds, recovery, politeness, cost, waiting):
        yield from cases()


def short() -> Iterator[Case]:
    """Return the cases that run with the tests."""
    often_missed = {name for name, one in recorded_shares().items() if one.allowed and one.share > SHORT_SHARE}
    return (case for case in every() if case.short and case.name not in often_missed)


def long_seeds(case: Case) -> range:
    """Return the seeds that the long form measures: those of the case, or 20 if some may miss the goal."""
    return range(1, 1 + (case.seeds if allowed_by_record(case) is None else LONG_SEEDS))


def long_cpu_seconds(case: Case) -> float:
    """Return the CPU seconds of the goal in the long form, by the record: infinite if it is not there."""
    share = recorded_shares().get(case.name)
    return math.inf if share is None else share.cpu_seconds * len(long_seeds(case))


def allowed_by_record(case: Case) -> int | None:
    """Return how many of 20 seeds may miss the goal, None if each seed of the case must meet it."""
    share = recorded_shares().get(case.name)
    return None if share is None else share.allowed
