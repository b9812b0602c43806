"""Each benchmark in its shortest form: it runs, and it counts right. Speed is not judged."""

import math
import os
from argparse import Namespace

import pytest
from rich.console import Console

from benchmarks import attacks, growth, isolation, latency, limits, scale, throughput
from benchmarks.figures import Account
from benchmarks.isolation_run import Case, Options
from benchmarks.limited_run import Cut, Limited, Paced, Recovery, run_limited
from benchmarks.limits import Limit, Processor, Turn
from benchmarks.processes import receivers
from benchmarks.receivers import Behaviour, Kind
from benchmarks.rig import Cores, Setup
from benchmarks.stand_in import stand_in
from benchmarks.throughput_run import CASES, Bench
from benchmarks.throughput_run import Case as Drained

pytestmark = pytest.mark.full
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


LIMITED: dict[str, tuple[Paced | Recovery | Cut, int]] = {
    "fresh p99": (Paced(fault=Kind.HANG, faulty_rate=40, healthy_rate=20, faulty=9, healthy=4, seconds=1), 20),
    "retries' p90 ÷ fresh p90": (
        Paced(fault=Kind.REFUSE, faulty_rate=20, healthy_rate=20, faulty=9, healthy=2, is_flaky=True, seconds=0.5), 10,
    ),
    "deliveries": (Recovery(parked=20, backlog=30, round_trip=0.02, down_seconds=0), 20),
    "ready again after": (Cut(round_trip=0.05), 20),
}  # fmt: skip


@pytest.mark.parametrize("figure", LIMITED)
async def test_a_load_with_a_limit_accounts_for_every_delivery(figure: str, amqp_url: str) -> None:
    """The fault's turn, its control, and the worker's share of a core. A delayed proxy is felt: no cut ends sooner."""
    load, expected = LIMITED[figure]
    limit = Limit(figure=figure, bound=0, is_least=True)
    report = await run_limited("shortest", Limited(load=load, limits=(limit,)), amqp_url, None)
    assert report.turns is not None
    for turn in report.turns:
        assert (turn.account.expected, turn.account.complete) == (expected, True)
        assert math.isfinite(turn.values[figure])
        assert 0 < turn.processor.share <= 1
    if isinstance(load, Cut):
        assert report.turns[1].values[figure] > 3 * load.round_trip


def limited(value: float, share: float, missing: int = 0) -> limits.Report:
    """Return the report of a figure that may be 1, of a worker that must have had half of a core."""
    account = Account(expected=1, arrived=1 - missing, duplicated=0, missing=missing, strange=0)
    turn = Turn(values={"p99": value}, account=account, processor=Processor(used=0.1, share=share))
    turns, limit = (turn, turn) if share else None, Limit(figure="p99", bound=1)
    return limits.Report(case="this", limits=(limit,), least_share=0.5, turns=turns)


@pytest.mark.parametrize(
    ("report", "text", "exit_code"),
    [
        (limited(1.0, share=0.5), "this: met", 0),
        (limited(1.1, share=1.0), "this: missed", 1),
        (limited(0.1, share=1.0, missing=1), "this: missed", 1),
        (limited(0.1, share=0.49), "this: not measured, since the worker had 0.49 of a core instead of 0.5", 1),
        (limited(0.1, share=0.0), "this: not measured, since no control group can be made here", 1),
    ],
)
def test_a_limit_that_is_missed_or_not_measured_is_no_success(report: limits.Report, text: str, exit_code: int) -> None:
    """One such case is enough for 1."""
    assert (str(report), isolation.exit_code([], [limited(1.0, share=1.0), report])) == (text, exit_code)


@pytest.mark.parametrize("name", ["rabbitmq-es256-10", "sqlite-rs256-1", "sqlite-es256-10-failing"])
async def test_a_drain_counts_each_delivery_once_and_verifies_its_token(name: str, amqp_url: str) -> None:
    """It holds for ceiling and worker, with clients that answer and with some where nobody listens."""
    case = throughput.cases()[name]
    async with stand_in() as receiver:
        bench = Bench(amqp_url, receiver, case, ALL_CORES, deliveries=100)
        found = await throughput.measure(name, bench, case, 1, QUIET)
    (ceiling, worker), *others = found.rounds
    assert not others
    assert found.complete
    assert ceiling.came == 100
    assert worker.came >= 100 if case.failing else worker.came == 100
    assert found.verified == (0 if case.failing else 100)
    assert worker.memory > 10


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
    """One of them makes each delivery. Without shares of a core, the gain is unknown."""
    case = CASES["es256-10"]
    async with stand_in() as receiver:
        bench = scale.ScaleBench(amqp_url, receiver, case, ALL_CORES, deliveries=100)
        drained = await bench.drained_by(2, share=0.0)
    assert drained.complete
    scale.report(case, 0.0, [(drained, drained)])


async def test_of_a_backlog_only_the_first_are_waited_for(amqp_url: str) -> None:
    """The others still wait when the drain is over."""
    case = Drained(queue="rabbitmq", alg="ES256", fan_out=1, clients=20, series=10, backlog=300)
    point = growth.Growth(series="backlog", x=300, case=case)
    async with stand_in(keep=20) as receiver:
        found = await growth.grown(
            "backlog-300", point, (amqp_url, receiver, ALL_CORES), Namespace(rounds=1, deliveries=20), QUIET
        )
    (_, worker), *_ = found.report.rounds
    assert found.complete
    assert worker.came >= worker.wanted == 20
    assert worker.memory > 10


async def test_a_start_and_a_reload_are_watched() -> None:
    """The worker answers all the while, and reads the new file."""
    found = await growth.started("start", growth.Starting(x=50, kind="yaml"), ALL_CORES, 1, QUIET)
    (only,) = found.rounds
    assert found.complete
    assert only.clients == 50
    assert only.seconds > 0
    assert only.before.asked > 0


@pytest.mark.parametrize(("name", "status"), [("wrong token", "401"), ("hellos", "ended")])
async def test_an_attack_is_answered_beside_others(name: str, status: str) -> None:
    """The attacker gets what it should, the publisher, the stranger and the probe an answer each time."""
    report = await attacks.measure(name, "sqlite", 2.0)
    assert report.attacker[status] > 0
    assert {reader.answers for reader in (*report.calm.values(), *report.attacked.values())} == {20}
    assert report.worker_cpu > 0
