"""The growth benchmark in its shortest form: it runs, and it counts right. Speed is not judged."""

import os
from argparse import Namespace

from rich.console import Console

from tests.benchmarks import growth
from tests.benchmarks.rig import Cores
from tests.benchmarks.stand_in import stand_in
from tests.benchmarks.throughput_run import Case

QUIET = Console(quiet=True)
ALL_CORES = Cores(tuple(sorted(os.sched_getaffinity(0))), frozenset(os.sched_getaffinity(0)))


async def test_of_a_backlog_only_the_first_are_waited_for(amqp_url: str) -> None:
    """The others still wait when the drain is over. If the series grow, `/metrics` is measured too."""
    case = Case(queue="rabbitmq", alg="ES256", fan_out=1, clients=20, series=10, backlog=300)
    point = growth.Growth(series="backlog", x=300, case=case)
    async with stand_in(keep=20) as receiver:
        found = await growth.grown(
            "backlog-300", point, (amqp_url, receiver, ALL_CORES), Namespace(rounds=1, deliveries=20), QUIET
        )
    (_, worker), *_ = found.report.rounds
    assert found.complete
    assert worker.came >= worker.wanted == 20
    assert worker.scrape is not None
    assert worker.scrape.size > 1000
    assert worker.memory_at[0][1] > 10


async def test_a_start_and_a_reload_are_watched() -> None:
    """The worker answers all the while, and reads the new file."""
    found = await growth.started("start", growth.Starting(x=50, kind="yaml"), ALL_CORES, 1, QUIET)
    (only,) = found.rounds
    assert found.complete
    assert only.clients == 50
    assert only.seconds > 0
    assert only.before.asked > 0
