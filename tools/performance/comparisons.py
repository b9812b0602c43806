"""The tables of docs/performance.md that set one run beside another: a fault beside none."""

from collections.abc import Mapping
from typing import Any

from tests.benchmarks.isolation import CASES as FAULTS
from tests.benchmarks.recovery import CASES as OUTAGES
from tools.performance.cells import Cases, rows, spread


def isolation(found: Cases) -> str:
    """By case: what the healthy clients feel, all healthy (A) and with the fault (B)."""
    head = (
        "| case | events/s | p50 ms, A | B | p99 ms, A | B | p99, B ÷ A | of the median second | A ÷ A |"
        " drain, B ÷ A | A ÷ A |"
    )
    lines = [_felt(name, found[name]) for name in FAULTS if name in found]
    return rows(head, lines)


def recovery(found: Cases) -> str:
    """How late logouts are after an outage, and at a client that half works."""
    outages = [
        [f"`{name}`", *_seconds(found[name], "first", "last", "after_first", "settled", "attempts")]
        for name, case in OUTAGES.items()
        if name in found and case.ends
    ]
    partial = [
        [
            f"`{name}`",
            *_seconds(found[name], "p50", "p95", "ideal_p95", "p99", "took", "attempts"),
            f"{found[name]['found']['account']['missing']:,} of {found[name]['found']['account']['expected']:,}",
        ]
        for name, case in OUTAGES.items()
        if name in found and not case.ends
    ]
    heads = (
        "| outage | first, s | last, s | after the first success, s | 5 s after the recovery, s | attempts |",
        "| fault | p50, s | p95, s | p95 of an ideal sender, s | p99, s | last, s | attempts | still waiting |",
    )
    tables = [rows(head, lines) for head, lines in zip(heads, (outages, partial), strict=True) if lines]
    return "\n\n".join([*tables, "![How late logouts are after an outage](performance/recovery.svg)"])


def _seconds(case: Mapping[str, Any], *names: str) -> list[str]:
    return ["–" if (value := case["found"][name]) is None else f"{value:.2f}" for name in names]


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
