"""Each benchmark in its shortest form: it runs, and it counts right. Speed is not judged."""

import os
from argparse import Namespace

import pytest
from rich.console import Console

from tests.benchmarks import deferrals_run, isolation, latency, scale, stages, throughput
from tests.benchmarks.isolation_run import Case, Options
from tests.benchmarks.processes import receivers
from tests.benchmarks.receivers import Behaviour, Kind
from tests.benchmarks.rig import Cores, Setup
from tests.benchmarks.stand_in import stand_in
from tests.benchmarks.throughput_run import CASES, Bench

QUIET = Console(quiet=True)
ALL_CORES = Cores(tuple(sorted(os.sched_getaffinity(0))), frozenset(os.sched_getaffinity(0)))


async def test_isolation_accounts_for_every_delivery_to_the_healthy(amqp_url: str) -> None:
    """Two of four clients hang suddenly. The others get everything, in paced turns and in drains."""
    options = Options(
        setup=Setup(delivery={"timeout": "300ms"}), seconds=0.6, warm_up=0.2, drain=0.2, rounds=1, rate=25, probe=10,
        patience=30,
    )  # fmt: skip
    case = Case(clients=4, faulty=2, fault=Behaviour(kind=Kind.HANG), suddenly=True)
    report = await isolation.run_case("shortest", case, amqp_url, options, None, QUIET)
    assert report.complete
    assert [account.expected for account in report.accounts][::2] == [2 * 20, 2 * 20]
    assert all(account.arrived == account.expected for account in report.accounts)
    assert set(report.ratios) == {"p50", "p99", "p99_second", "drain_99", "drain_all"}


async def test_deferrals_all_arrive_after_the_recovery(amqp_url: str) -> None:
    """Twenty deliveries wait for a client that refuses connections, and each arrives once it listens."""
    options = deferrals_run.Options(
        setup=Setup(delivery={}), deliveries=20, fault=Kind.REFUSE, wait=0.3, fresh=20,
        answer=0.01, limit=40, max_concurrent=2,
    )  # fmt: skip
    found = await deferrals_run.run(amqp_url, options, None, QUIET)
    assert found.account.complete
    assert (
        found.account.expected
        == 20 + found.fresh_before.events + found.fresh_waiting.events + found.fresh_recovery.events
    )
    assert sum(found.recovery.arrivals) == 20
    assert 1 <= found.recovery.peak <= 2
    assert found.passes["all"] >= 1


@pytest.mark.parametrize("name", ["rabbitmq-es256-10", "sqlite-rs256-1", "sqlite-es256-10-failing"])
async def test_a_drain_counts_each_delivery_once_and_verifies_its_token(name: str, amqp_url: str) -> None:
    """It holds for ceiling and worker, with stages, with clients that answer and with some where nobody listens."""
    case = throughput.cases()[name]
    async with stand_in() as receiver:
        bench = Bench(amqp_url, receiver, case, ALL_CORES, deliveries=100, looked_at=True)
        found = await throughput.measure(name, bench, case, 1, QUIET)
    (ceiling, worker), *others = found.rounds
    assert not others
    assert found.complete
    assert ceiling.came == 100
    assert worker.came >= 100 if case.failing else worker.came == 100
    assert found.verified == (0 if case.failing else 100)
    assert worker.memory > 10
    assert set(ceiling.stages) <= set(stages.NAMES)


async def test_latency_is_taken_from_when_an_event_was_due(amqp_url: str) -> None:
    """Every delivery of every load is accounted for."""
    given = Namespace(load=[0.5, 1.0], rounds=1, seconds=0.4, warm_up=0.2, probe=10, capacity=20.0)
    async with receivers() as played:
        await played.open(latency.CLIENTS)
        found = await latency.measure(amqp_url, played, None, given, QUIET)
    assert [report.rate for report in found] == [10, 20]
    assert all(report.complete for report in found)
    assert [report.rounds[0].account.expected for report in found] == [10 * 6, 10 * 12]
    assert found[0].p50.median > 0


async def test_two_workers_share_a_queue(amqp_url: str) -> None:
    """One of them makes each delivery. Without shares of a core, the gain is not told."""
    case = CASES["es256-10"]
    async with stand_in() as receiver:
        bench = scale.ScaleBench(amqp_url, receiver, case, ALL_CORES, deliveries=100)
        drained = await bench.drained_by(2, share=0.0)
    assert drained.complete
    scale.report(case, 0.0, [(drained, drained)])
