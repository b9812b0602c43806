"""The regression guard says what became dearer, by how much, and in which stage."""

from tests.benchmarks.check import Moved, Ratio, ratio_of, table
from tests.benchmarks.stages import NAMES, Looks, costs, stage_of
from tests.benchmarks.throughput import report
from tests.benchmarks.throughput_run import Case, Drain

CASE = Case(queue="rabbitmq", alg="ES256", fan_out=1)


def ratio(median: float, **stages: float) -> Ratio:
    """One that varies by a hundredth."""
    return Ratio(min=median - 0.01, median=median, max=median + 0.01, stages=stages)


def test_a_case_is_dearer_only_beyond_the_tolerance_and_the_noise_of_both_runs() -> None:
    """5 %, and no round of now is as cheap as the dearest of then."""
    before = ratio(1.5)
    assert Moved(name="c", before=before, now=ratio(1.6)).dearer
    assert not Moved(name="c", before=before, now=ratio(1.57)).dearer
    assert not Moved(name="c", before=before, now=ratio(1.2)).dearer
    noisy = Ratio(min=1.5, median=1.7, max=1.9, stages={})
    assert not Moved(name="c", before=before, now=noisy).dearer


def test_the_stage_that_moved_most_is_told_first() -> None:
    """In the ceiling's cost, whichever way it moved."""
    moved = Moved(name="c", before=ratio(1.5, post=0.6, log=0.2), now=ratio(1.6, post=0.5, log=0.5))
    assert [name for name, _ in moved.stages[:2]] == ["log", "post"]
    assert round(moved.stages[0][1], 6) == 0.3
    assert table([moved]).row_count == 1


def test_the_stages_of_a_ratio_add_up_to_it() -> None:
    """What each costs is its share of the looks."""
    stages = costs({"mint": 30, "post": 60, "loop": 10}, cpu=200.0)
    assert stages == {"mint": 60.0, "post": 120.0, "loop": 20.0}
    assert costs({}, cpu=200.0) == {}
    ceiling = Drain(rate=10_000, cpu=100, came=1, wanted=1)
    worker = Drain(rate=5_000, cpu=200, came=1, wanted=1, stages=stages)
    found = ratio_of(report(CASE, [(ceiling, worker), (ceiling, worker)], verified=0))
    assert found.median == 2
    assert round(sum(found.stages.values()), 6) == 2
    assert found.stages["post"] == 1.2


def test_every_module_on_the_way_of_a_delivery_has_a_stage() -> None:
    """By the libraries' folders too; what serves all has none."""
    found = {
        path: stage_of(path)
        for path in (
            "/x/notifier/adapters/queues/rabbitmq/acks.py", "/x/site-packages/aiormq/channel.py", "/x/jwt/api_jws.py",
            "/x/site-packages/aiohttp/client.py", "/x/notifier/adapters/telemetry/logs.py",
            "/x/notifier/pipeline/intake.py",
            "/x/notifier/pipeline/worker.py", "/usr/lib/python3.11/json/__init__.py",
        )
    }  # fmt: skip
    assert list(found.values()) == ["queue", "queue", "mint", "post", "log", "read", "deliver", None]


def test_what_runs_outside_of_the_event_loop_is_not_looked_at() -> None:
    """The start of the process is no part of a delivery."""
    looks = Looks()
    looks._look(0, None)
    assert looks.counts() == dict.fromkeys(NAMES, 0)
