"""The growth benchmark in its shortest form: it runs, and it counts right. How fast anything was is not looked at."""

import os
from argparse import Namespace
from pathlib import Path
from typing import cast

from rich.console import Console

from notifier.adapters.configuration.document_files import read_document
from tests.benchmarks import growth, starting
from tests.benchmarks.lag import lag_of
from tests.benchmarks.rig import Cores
from tests.benchmarks.stand_in import stand_in
from tests.benchmarks.throughput_run import Case

QUIET = Console(quiet=True)
ALL_CORES = Cores(tuple(sorted(os.sched_getaffinity(0))), frozenset(os.sched_getaffinity(0)))


async def test_of_a_backlog_only_the_first_are_waited_for(amqp_url: str) -> None:
    """The others still wait when the drain is over; `/metrics` is asked for too where the series are what grows."""
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
    assert growth.table([found]).row_count == 1


async def test_a_start_and_a_reload_are_watched() -> None:
    """The worker answers all the while, and reads the new file."""
    found = await growth.started("start", growth.Starting(x=50, kind="yaml"), ALL_CORES, 1, QUIET)
    (only,) = found.rounds
    assert found.complete
    assert only.clients == 50
    assert only.seconds > 0
    assert only.before.asked > 0
    assert growth.starts_table([found]).row_count == 1


def test_both_kinds_of_a_registry_mean_the_same(tmp_path: Path) -> None:
    """What is measured differs by the format alone."""
    read = []
    for kind in ("yaml", "json"):
        file = tmp_path / f"clients.{kind}"
        starting.write_registry(file, 3, kind)
        read.append(read_document(file))
    assert read[0] == read[1]
    assert isinstance(read[0], list)
    assert len(read[0]) == 3


def test_every_point_has_a_name_of_its_own() -> None:
    """The largest backlog is of a million, the most clients are 100,000."""
    names = growth.points()
    assert {"backlog-1000000", "clients-100000", "fan-out-5000", "memory-1000000", "start-yaml-100000"} <= set(names)


def test_what_grows_grows_alone() -> None:
    """Of 100,000 clients registered as few are told as of ten."""
    for x in (10, 1_000, 100_000):
        point = growth.points()[f"clients-{x}"]
        assert isinstance(point, growth.Growth)
        told = {name for event in point.case.events(50) for name in cast("list[str]", event["clients"])}
        assert (point.case.clients, len(told)) == (x, 10)


def test_the_lag_is_told_in_milliseconds() -> None:
    """Middle, nearly all, and the longest."""
    found = lag_of([0.001] * 98 + [0.05, 0.2])
    assert (found.asked, found.p50, found.p99, found.max) == (100, 1.0, 50.0, 200.0)
