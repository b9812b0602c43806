"""A goal as a named case: the measurement, the condition, and the text of the result."""

import math
from collections.abc import Callable
from dataclasses import dataclass

SHORT_SEEDS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a case came to."""

    text: str
    ok: bool


@dataclass(frozen=True, kw_only=True)
class Case:
    """One goal. `measure(seed)` returns the figures of one draw, which are a function of the seed.

    `seeds`: how many of the seeds 1, 2, … must meet the goal, unless a share may miss it. `random`: whether the seed
    influences the result. A `short` goal runs with the tests.
    """

    name: str
    goal: str
    measure: Callable[[int], Finding]
    seeds: int = 1
    random: bool = True
    short: bool = False


def measure_short(case: Case) -> Finding:
    """Return the figures of the first of three seeds that meets the goal, those of the third if all miss it."""
    found = case.measure(SHORT_SEEDS[0])
    for seed in SHORT_SEEDS[1:] if case.random else ():
        if found.ok:
            break
        found = case.measure(seed)
    return found


def consecutive(count: int, seed: int, first: int = 1) -> range:
    """Return the worlds of a draw that is the mean or median of `count` runs. Draws have none in common."""
    begin = first + count * (seed - 1)
    return range(begin, begin + count)


def seconds(value: float) -> str:
    """Return the duration as text."""
    return "never" if value == math.inf else f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
