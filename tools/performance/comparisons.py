"""The tables of docs/evidence/performance.md that set one run beside another: a fault beside none, and its limit."""

from collections.abc import Mapping
from typing import Any

from benchmarks.isolation import CASES as FAULTS
from benchmarks.limited_run import LIMITED
from benchmarks.limits import HEADINGS, row
from tools.performance.cells import Cases, rows, spread


def isolation(found: Cases) -> str:
    """By case: what the healthy clients feel, all healthy (A) and with the fault (B)."""
    head = (
        "| case | events/s | p50 ms, A | B | p99 ms, A | B | p99, B ÷ A | of the median second | A ÷ A |"
        " full queue, B ÷ A | A ÷ A |"
    )
    lines = [_felt(name, found[name]) for name in FAULTS if name in found]
    return rows(head, lines)


def _felt(name: str, case: Mapping[str, Any]) -> list[str]:
    a, b, ratios, noise = (case[part] for part in ("healthy", "faulty", "ratios", "noise"))

    def beside(figure: str) -> str:
        return spread(noise[figure], ".2f") if noise else ""

    return [
        f"`{name}`", f"{case['rate']:,.0f}", spread(a["p50"], ".1f"), spread(b["p50"], ".1f"),
        spread(a["p99"], ".1f"), spread(b["p99"], ".1f"), spread(ratios["p99"], ".2f"),
        spread(ratios["p99_second"], ".2f"), beside("p99_second"),
        spread(ratios["drain_99"], ".2f"), beside("drain_99"),
    ]  # fmt: skip


def limits(found: Cases) -> str:
    """By case and limit: the figure with the fault, beside that without. A case without a result is not measured."""
    lines = [row(f"`{name}`", limit, found.get(name)) for name, case in LIMITED.items() for limit in case.limits]
    return rows(f"| {' | '.join(HEADINGS)} |", lines)
