"""The share of seeds that miss a goal, as measured, and how many of 20 seeds may miss it.

`seed_shares.json` has the record, made by `python -m tests.simulator.seed_search`, and names the commit of the core
that was measured. A goal that some of its first 20 seeds miss was measured on 100.

**The bound.** The long form runs a goal that some seeds miss on 20 seeds, and at most K may miss it. K is the smallest
number that a core of the measured share exceeds with a probability of at most 0.01, by the binomial distribution:
0.05 → 4, 0.1 → 6, 0.2 → 8, 0.31 → 11. A goal that no seed missed has no bound: each seed of the case must meet it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from math import comb
from pathlib import Path

RECORD = Path(__file__).with_suffix(".json")
LONG_SEEDS = 20
MEASURED_SEEDS = 100
FALSE_ALARM = 0.01
SHORT_SHARE = 0.1  # the short form runs three seeds: at this share all three miss in one of a thousand runs


@dataclass(frozen=True, kw_only=True)
class SeedShare:
    """The result of the seeds 1 to `seeds`: which missed the goal, and the CPU seconds of a draw."""

    seeds: int
    missed: tuple[int, ...]
    cpu_seconds: float

    @property
    def share(self) -> float:
        """Return the share of the seeds that missed."""
        return len(self.missed) / self.seeds

    @property
    def allowed(self) -> int | None:
        """Return how many of 20 seeds may miss, None if each seed of the case must meet it."""
        return allowed_misses(self.share) if self.missed and self.seeds >= LONG_SEEDS else None


def allowed_misses(share: float) -> int:
    """Return the bound of this share, see the module."""
    exceeds, misses = 1.0, -1
    while exceeds > FALSE_ALARM:
        misses += 1
        exceeds -= comb(LONG_SEEDS, misses) * share**misses * (1 - share) ** (LONG_SEEDS - misses)
    return misses


@cache
def recorded_shares() -> Mapping[str, SeedShare]:
    """Return the record, by goal."""
    return read_record(RECORD)[1]


def read_record(path: Path) -> tuple[str, dict[str, SeedShare]]:
    """Return the commit of the measured core, and the shares by goal."""
    record = json.loads(path.read_text())
    return record["core"], {
        row["goal"]: SeedShare(seeds=row["seeds"], missed=tuple(row["missed"]), cpu_seconds=row["cpu_seconds"])
        for row in record["goals"]
    }


def write_record(path: Path, core: str, shares: Iterable[tuple[str, SeedShare]]) -> None:
    """Write a line for each goal: `share` and `allowed` follow from the seeds that missed, and are for readers."""
    lines = [
        json.dumps(
            {
                "goal": name,
                "seeds": one.seeds,
                "share": round(one.share, 2),
                "allowed": one.allowed,
                "cpu_seconds": one.cpu_seconds,
                "missed": one.missed,
            },
            ensure_ascii=False,
        )
        for name, one in shares
    ]
    path.write_text(f'{{"core": "{core}", "goals": [\n' + ",\n".join(lines) + "\n]}\n")
