"""`python -m tests.simulator.seed_search [NAME…]`: measure which seeds miss the goals whose names begin so.

Each goal with a random part is measured on the seeds 1 to 20, and on those up to 100 if some of these miss it. Goals
with the least work left come first. Each result is a line of `--results`; a search that was stopped continues from
there, and from the record (`seed_shares.json`) if that is of the same core. `--record` writes the record, in place of
that of another core.

The core is the last commit that changed `notifier`. If a goal changes, remove its rows from both files.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean

from tests.simulator.cases import every
from tests.simulator.draws import Draw, measure_draws
from tests.simulator.seed_shares import LONG_SEEDS, MEASURED_SEEDS, RECORD, SeedShare, read_record, write_record


@dataclass(slots=True)
class SearchedGoal:
    """The results of a goal by seed, and the seeds in progress."""

    name: str
    expected_cpu_seconds: float  # of a draw, before the first result
    recorded: SeedShare | None = None
    measured: dict[int, Draw] = field(default_factory=dict)
    in_progress: set[int] = field(default_factory=set)

    def is_met(self, seed: int) -> bool | None:
        """Return whether this seed met the goal, None if it is not measured."""
        if seed in self.measured:
            return self.measured[seed].ok
        if self.recorded is not None and seed <= self.recorded.seeds:
            return seed not in self.recorded.missed
        return None

    def seeds_left(self) -> list[int]:
        """Return the seeds without a result, except those in progress."""
        some_miss = any(self.is_met(seed) is False for seed in range(1, LONG_SEEDS + 1))
        last = MEASURED_SEEDS if some_miss else LONG_SEEDS
        return [seed for seed in range(1, last + 1) if self.is_met(seed) is None and seed not in self.in_progress]

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of a draw."""
        if self.measured:
            return round(mean(draw.cpu_seconds for draw in self.measured.values()), 2)
        return self.expected_cpu_seconds

    def share(self) -> SeedShare | None:
        """Return the result of the seeds from 1 to the first that is not measured."""
        seeds = 0
        while self.is_met(seeds + 1) is not None:
            seeds += 1
        missed = tuple(seed for seed in range(1, seeds + 1) if not self.is_met(seed))
        return SeedShare(seeds=seeds, missed=missed, cpu_seconds=self.cpu_seconds()) if seeds else None


class SeedSearch:
    """Chooses the seed to measure next."""

    def __init__(
        self, goals: Iterable[str], recorded: Mapping[str, SeedShare], draws: Iterable[Draw], *, same_core: bool = True
    ) -> None:
        """`recorded` has costs, and results if it is of the same core."""
        self.goals = {
            name: SearchedGoal(
                name,
                recorded[name].cpu_seconds if name in recorded else math.inf,
                recorded.get(name) if same_core else None,
            )
            for name in goals
        }
        for draw in draws:
            if draw.goal in self.goals:
                self.on_result(draw)

    def next_draw(self) -> tuple[str, int] | None:
        """Return a seed of the goal with the least work left, and note that it is in progress; None at the end."""
        waiting = [
            (one.cpu_seconds() * len(seeds), one, seeds) for one in self.goals.values() if (seeds := one.seeds_left())
        ]
        if not waiting:
            return None
        _, goal, seeds = min(waiting, key=lambda each: each[0])
        goal.in_progress.add(seeds[0])
        return goal.name, seeds[0]

    def on_result(self, draw: Draw) -> None:
        """Take a result."""
        goal = self.goals[draw.goal]
        goal.in_progress.discard(draw.seed)
        goal.measured[draw.seed] = draw

    def shares(self) -> Iterator[tuple[str, SeedShare]]:
        """Return the shares of the goals with a result."""
        return ((name, share) for name, goal in self.goals.items() if (share := goal.share()) is not None)


class ResultsFile:
    """A line of JSON for each result. It may end in the middle of a line: the search was killed."""

    def __init__(self, path: Path, core: str) -> None:
        self._path = path
        self._core = core

    def read(self) -> Iterator[Draw]:
        """Return the results for this core, and remove an incomplete last line."""
        if not self._path.exists():
            return
        text = self._path.read_text()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self._path.write_text(whole)
        for line in whole.splitlines():
            row = json.loads(line)
            if row.pop("core") == self._core:
                yield Draw(**row)

    def append(self, draw: Draw) -> None:
        """Write a result."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"core": self._core, **asdict(draw)}, ensure_ascii=False) + "\n")


def unmeasured_goals(recorded: Mapping[str, SeedShare], measured: Mapping[str, SeedShare]) -> list[str]:
    """Return the goals that the record has measured on 20 seeds, and this search has not."""
    return [
        name
        for name, share in recorded.items()
        if share.seeds >= LONG_SEEDS and (name not in measured or measured[name].seeds < LONG_SEEDS)
    ]


def core_commit() -> str:
    """Return the last commit that changed the core; empty if it has uncommitted changes."""
    return "" if _git("status", "--porcelain") else _git("log", "-1", "--format=%h", "--abbrev=8")


def _git(*arguments: str) -> str:
    command = ("git", *arguments, "--", "notifier")
    done = subprocess.run(command, cwd=RECORD.parent.parents[1], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main() -> None:
    """Search, or write the record."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator.seed_search", description=__doc__)
    parser.add_argument("names", nargs="*", default=[""], help="beginnings of goals' names")
    parser.add_argument("--results", type=Path, default=Path("build/seed-search.jsonl"), metavar="FILE")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--nice", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no draw after so many minutes")
    parser.add_argument("--record", action="store_true", help="write the record, and measure nothing")
    options = parser.parse_args()
    core = core_commit()
    if not core:
        parser.error("commit the changes of notifier first: a result names the commit of its core")
    results = ResultsFile(options.results, core)
    recorded_core, recorded = read_record(RECORD)
    goals = [case.name for case in every() if case.random]
    search = SeedSearch(goals, recorded, results.read(), same_core=recorded_core == core)
    if options.record:
        shares = dict(search.shares())
        if missing := unmeasured_goals(recorded, shares):
            parser.error(
                f"the record has {len(missing)} goals that are not measured on {core} yet, such as {missing[0]}"
            )
        write_record(RECORD, core, shares.items())
        return
    search.goals = {name: goal for name, goal in search.goals.items() if name.startswith(tuple(options.names))}
    if not search.goals:
        parser.error(f"no goal with a random part begins with {' or '.join(options.names)}")
    end = time.monotonic() + 60 * options.minutes
    for draw in measure_draws(
        lambda: search.next_draw() if time.monotonic() < end else None, options.processes, options.nice
    ):
        search.on_result(draw)
        results.append(draw)
        sys.stdout.write(f"{draw.goal} {draw.seed}: {'met' if draw.ok else 'missed'}, {draw.text}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
