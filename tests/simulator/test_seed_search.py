"""Which seeds are measured, what the record has of them, and how many seeds may miss a goal."""

from pathlib import Path

import pytest

from tests.simulator.case import Case, Finding, measure_short
from tests.simulator.cases import every, long_cpu_seconds, short
from tests.simulator.draws import Draw
from tests.simulator.seed_search import ResultsFile, SeedSearch, unmeasured_goals
from tests.simulator.seed_shares import (
    LONG_SEEDS,
    RECORD,
    SHORT_SHARE,
    SeedShare,
    allowed_misses,
    read_record,
    recorded_shares,
    write_record,
)


def drawn(goal: str, seed: int, *, ok: bool = True, cpu_seconds: float = 1.0) -> Draw:
    """Return the result of a seed."""
    return Draw(goal=goal, seed=seed, ok=ok, text="", cpu_seconds=cpu_seconds)


def run(search: SeedSearch, missed: frozenset[int] = frozenset()) -> list[tuple[str, int]]:
    """Measure all that the search chooses, with these seeds missed, and return what it chose."""
    chosen = []
    while (draw := search.next_draw()) is not None:
        chosen.append(draw)
        search.on_result(drawn(*draw, ok=draw[1] not in missed))
    return chosen


@pytest.mark.parametrize(("share", "allowed"), [(0.01, 2), (0.05, 4), (0.1, 6), (0.2, 8), (0.31, 11), (1.0, 20)])
def test_bound_is_exceeded_by_chance_in_one_of_a_hundred_runs(share: float, allowed: int) -> None:
    """A core of this share misses more than the bound with a probability of at most 0.01."""
    assert allowed_misses(share) == allowed


def test_goal_that_no_seed_misses_has_no_bound() -> None:
    """Each seed of the case must meet it. The same holds for a goal with less than 20 measured seeds."""
    assert SeedShare(seeds=20, missed=(), cpu_seconds=1.0).allowed is None
    assert SeedShare(seeds=19, missed=(1,), cpu_seconds=1.0).allowed is None
    assert SeedShare(seeds=100, missed=(1,), cpu_seconds=1.0).allowed == 2


def test_twenty_seeds_are_measured_and_a_hundred_if_one_misses() -> None:
    """Each seed once."""
    assert run(SeedSearch(["x"], {}, [])) == [("x", seed) for seed in range(1, 21)]
    assert run(SeedSearch(["x"], {}, []), missed=frozenset({20})) == [("x", seed) for seed in range(1, 101)]


def test_goal_with_the_least_work_left_comes_first() -> None:
    """Twenty seeds of a second before twenty of two, whatever the order of the goals."""
    recorded = {name: SeedShare(seeds=1, missed=(), cpu_seconds=cost) for name, cost in (("slow", 2.0), ("fast", 1.0))}
    chosen = run(SeedSearch(["unknown", "slow", "fast"], recorded, [], same_core=False))
    assert [chosen[20 * number][0] for number in range(3)] == ["fast", "slow", "unknown"]


def test_seed_that_is_being_measured_is_not_chosen_again() -> None:
    """Several processes measure different seeds."""
    search = SeedSearch(["x"], {}, [])
    assert [search.next_draw(), search.next_draw()] == [("x", 1), ("x", 2)]


def test_record_is_not_replaced_while_goals_are_unmeasured() -> None:
    """The bound of a goal would be lost. A goal that the record has not measured on 20 seeds has none."""
    recorded = {name: SeedShare(seeds=seeds, missed=(1,), cpu_seconds=1.0) for name, seeds in (("x", 100), ("y", 19))}
    measured = SeedShare(seeds=20, missed=(), cpu_seconds=1.0)
    assert unmeasured_goals(recorded, {}) == ["x"]
    assert unmeasured_goals(recorded, {"x": SeedShare(seeds=1, missed=(), cpu_seconds=1.0)}) == ["x"]
    assert unmeasured_goals(recorded, {"x": measured}) == []


def test_search_continues_after_a_stop(tmp_path: Path) -> None:
    """It skips the seeds of its file, whose last line may be incomplete. Those of another core do not count."""
    path = tmp_path / "build/results.jsonl"
    for seed in (1, 2, 3):
        ResultsFile(path, "core").append(drawn("x", seed))
    ResultsFile(path, "other core").append(drawn("x", 4))
    with path.open("a") as file:
        file.write('{"core": "core", "goal": "x", "se')
    search = SeedSearch(["x"], {}, ResultsFile(path, "core").read())
    assert search.next_draw() == ("x", 4)
    ResultsFile(path, "core").append(drawn("x", 4))
    assert [draw.seed for draw in ResultsFile(path, "core").read()] == [1, 2, 3, 4]


@pytest.mark.parametrize(("same_core", "following"), [(True, 21), (False, 1)])
def test_search_continues_from_the_record_of_its_core(same_core: bool, following: int) -> None:
    """Without the file, the record is enough. That of another core has the costs alone."""
    recorded = {"x": SeedShare(seeds=20, missed=(7,), cpu_seconds=1.0)}
    assert SeedSearch(["x"], recorded, [], same_core=same_core).next_draw() == ("x", following)


def test_record_has_the_seeds_up_to_the_first_that_is_not_measured(tmp_path: Path) -> None:
    """A result past a gap waits for the next record."""
    search = SeedSearch(["x"], {}, [drawn("x", 1), drawn("x", 2, ok=False, cpu_seconds=2.0), drawn("x", 4, ok=False)])
    write_record(tmp_path / "record.json", "core", search.shares())
    recorded = SeedShare(seeds=2, missed=(2,), cpu_seconds=1.33)
    assert read_record(tmp_path / "record.json") == ("core", {"x": recorded})


def test_record_is_consistent(tmp_path: Path) -> None:
    """Its goals exist, and each share and bound follows from the seeds that missed."""
    core, shares = read_record(RECORD)
    assert shares.keys() <= {case.name for case in every() if case.random}
    write_record(tmp_path / "record.json", core, shares.items())
    assert (tmp_path / "record.json").read_text() == RECORD.read_text()


def test_measured_core_is_within_its_bounds() -> None:
    """On the seeds of the long form the core of the record meets each goal."""
    over = [
        name
        for name, one in recorded_shares().items()
        if one.allowed is not None and sum(seed <= LONG_SEEDS for seed in one.missed) > one.allowed
    ]
    assert over == []


def test_goals_that_many_seeds_miss_are_in_the_long_form_only() -> None:
    """The short form would fail by chance too often."""
    shares = recorded_shares()
    assert all(one.allowed is None or one.share <= SHORT_SHARE for case in short() if (one := shares.get(case.name)))


def test_long_form_takes_at_most_90_minutes_of_two_cores() -> None:
    """By the recorded CPU time of each draw."""
    seconds = sum(long_cpu_seconds(case) for case in every() if case.name in recorded_shares())
    assert seconds / 2 / 60 <= 90


@pytest.mark.parametrize(
    ("meets", "measured", "ok"), [((1, 2), (1,), True), ((3,), (1, 2, 3), True), ((4,), (1, 2, 3), False)]
)
def test_short_form_fails_if_all_three_seeds_miss(meets: tuple[int, ...], measured: tuple[int, ...], ok: bool) -> None:
    """It stops at the first that meets the goal."""
    seeds: list[int] = []

    def measure(seed: int) -> Finding:
        seeds.append(seed)
        return Finding(f"seed {seed}", seed in meets)

    found = measure_short(Case(name="x", goal="", measure=measure))
    assert (found.ok, tuple(seeds)) == (ok, measured)
