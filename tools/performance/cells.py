"""Cells and tables in Markdown, from figures as the files of benchmarks/results hold them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Cases = Mapping[str, Mapping[str, Any]]
"""A file's cases by name."""


def spread(found: Mapping[str, float | None], spec: str = ",.0f") -> str:
    """Median (least–greatest), or the one value if there was one round."""
    low, middle, high = (found[name] for name in ("min", "median", "max"))
    if low is None or middle is None or high is None:
        return "–"
    return f"{middle:{spec}}" if low == high else f"{middle:{spec}} ({low:{spec}}–{high:{spec}})"


def rows(head: str, lines: Iterable[Sequence[str]]) -> str:
    """A table, its first column to the left."""
    columns = head.count("|") - 1
    return "\n".join([head, "|---|" + "--:|" * (columns - 1), *(f"| {' | '.join(line)} |" for line in lines)])
