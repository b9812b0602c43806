"""Each benchmark in its shortest form: it runs, and it counts right. How fast anything was is not looked at."""

from rich.console import Console

from tests.benchmarks import deferrals, deferrals_run, isolation
from tests.benchmarks.isolation_run import Case, Options
from tests.benchmarks.receivers import Behaviour, Kind
from tests.benchmarks.rig import Setup

QUIET = Console(quiet=True)


async def test_isolation_accounts_for_every_delivery_to_the_healthy(amqp_url: str) -> None:
    """Two of four clients hang suddenly; the others get everything, in the paced turns and in the drains."""
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
    assert isolation.table(report).row_count == 5


async def test_deferrals_all_arrive_after_the_recovery(amqp_url: str) -> None:
    """Twenty deliveries wait for a client that refuses connections, and each arrives once it listens."""
    options = deferrals_run.Options(
        setup=Setup(delivery={"circuit": {"open_for": "500ms"}}), deliveries=20, fault=Kind.REFUSE, wait=0.3, fresh=20,
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
    assert deferrals.table(found, options).row_count == 12
