"""A goal as a named case: the measurement, the condition, and the text of the result."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What a case came to."""

    text: str
    ok: bool


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case: `measure` returns its figures. A `short` one runs with the tests."""

    name: str
    goal: str
    measure: Callable[[], Finding]
    short: bool = False


def seconds(value: float) -> str:
    """Return the duration as text."""
    return "never" if value == math.inf else f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
