"""What the comparison with peers makes of its drains is right. The peers themselves are not installed for the tests."""

import math
import os
import time
from pathlib import Path

from tests.benchmarks import peers, peers_run
from tests.benchmarks.processes import TICKS
from tests.benchmarks.throughput_run import Case, Drain, watched

CASE = Case(queue="rabbitmq", alg="ES256", fan_out=10)


def drain(rate: float, came: int = 100) -> Drain:
    """At so many a second."""
    return Drain(rate=rate, cpu=1e6 / rate, came=came, wanted=100)


def test_we_are_compared_with_the_best_framework_of_each_round() -> None:
    """Another one may be best in another round, and a provider's own sending is not a framework."""
    found = peers.report(
        CASE,
        [
            {"ceiling": drain(900), "notifier": drain(600), "celery": drain(100), "taskiq": drain(300)},
            {"ceiling": drain(900), "notifier": drain(800), "celery": drain(200), "taskiq": drain(100)},
        ],
        {},
    )
    assert (found.ahead["celery"].min, found.ahead["celery"].max) == (4, 6)
    assert (found.ahead["taskiq"].min, found.ahead["taskiq"].max) == (2, 8)
    assert (found.ahead["best framework"].min, found.ahead["best framework"].max) == (2, 4)
    alone = peers.report(CASE, [{"notifier": drain(600), "oidc-provider": drain(100)}], {})
    assert "best framework" not in alone.ahead


def test_the_table_has_a_line_for_each_program_and_tells_the_targets() -> None:
    """And one for the best framework."""
    rounds = [{"notifier": drain(600), "celery": drain(100), "oidc-provider": drain(50)}]
    assert peers.table([peers.report(CASE, rounds, {"celery": 7})]).row_count == 4
    assert peers.target(CASE, "best framework") == "≥ 2.5"
    assert peers.target(CASE, "oidc-provider") == "> 1"
    assert peers.target(CASE, "celery") == ""


def test_a_peer_has_no_fewer_events_in_hand_than_keep_it_busy() -> None:
    """As many deliveries as the ceiling for events of one client."""
    assert [peers_run.events_at_once(fan_out) for fan_out in (1, 10)] == [64, 16]


def test_the_processor_time_of_a_session_is_read_whatever_the_process_is_called() -> None:
    """A name may hold blanks and parentheses; the times of children that have ended count."""
    stat = f"17 (a ) (b) S 1 17 4711 {' '.join(['0'] * 7)} 5 6 7 8 20 0"
    assert peers_run.session_of(stat) == (4711, 26)
    while time.process_time() < 2 / TICKS:
        pass
    session, ticks = peers_run.session_of(Path("/proc/self/stat").read_text())
    assert session == os.getsid(0)
    assert ticks >= 1


def test_a_peer_that_is_not_installed_is_not_found(tmp_path: Path) -> None:
    """Each by what it is started with."""
    celery, provider = peers_run.PEERS[0], peers_run.PEERS[-1]
    assert not celery.found(tmp_path)
    assert not provider.found(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "celery").touch()
    (tmp_path / "bin" / "node").touch()
    assert not provider.found(tmp_path)
    (tmp_path / "modules" / "node_modules" / "oidc-provider").mkdir(parents=True)
    assert celery.found(tmp_path)
    assert provider.found(tmp_path)


async def test_a_drain_that_is_over_by_the_first_look_has_no_rate() -> None:
    """It has been counted all the same."""

    async def count() -> int:
        return 30

    found = await watched(count, lambda: 1.0, 30)
    assert found.complete
    assert math.isnan(found.rate)
    assert math.isnan(found.cpu)
