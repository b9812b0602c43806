"""What the cases with a limit share: a figure beside its limit and its control, and the worker's share of a core.

A case is measured twice in one run, without and with the fault. A worker that other programs kept from its core shows
nothing about a limit: such a case is *not measured*, which is no success.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rich.table import Table

from benchmarks import figures
from benchmarks.processes import BenchWorker
from benchmarks.rig import plain, table_of


class Verdict(StrEnum):
    """What a case shows about its limits."""

    MET = "met"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The most that a figure may be, or the least."""

    figure: str
    bound: float
    unit: str = ""
    is_least: bool = False

    def holds(self, value: float) -> bool:
        """Return True if the value keeps the limit. NaN does not."""
        return value >= self.bound if self.is_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.is_least else '≤'} {self.bound:g}{self.unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """What a worker had of a core: `used`, and its `share` of the time in which it was ready to run.

    Only the share shows whether it was starved: a worker that waits for its clients uses little of an idle core.
    """

    used: float
    share: float


class Watch:
    """Watches a worker's processor time from now (`at`) on."""

    def __init__(self, worker: BenchWorker) -> None:
        self._worker = worker
        self.at = time.monotonic()
        self._used, (self._ran, self._waited) = worker.cpu(), worker.schedule()

    def read(self) -> Processor:
        """Return what it has had since."""
        ran, waited = self._worker.schedule()
        ready = ran - self._ran + waited - self._waited
        used = (self._worker.cpu() - self._used) / (time.monotonic() - self.at)
        return Processor(used=used, share=(ran - self._ran) / (ready or math.nan))


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn: its figures by name, the account of the deliveries that had to arrive, and the worker's processor."""

    values: Mapping[str, float]
    account: figures.Account
    processor: Processor


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One case: the turns without (`control`) and with the fault. None: this machine cannot make them.

    `least_share`: with less of a core, in hundredths, the fault's turn does not count.
    """

    case: str
    limits: Sequence[Limit]
    least_share: float
    turns: tuple[Turn, Turn] | None

    @property
    def verdict(self) -> Verdict:
        """Return what the case shows."""
        if self.turns is None or not round(self.turns[1].processor.share, 2) >= self.least_share:
            return Verdict.NOT_MEASURED
        holds = all(limit.holds(self.turns[1].values[limit.figure]) for limit in self.limits)
        return Verdict.MET if holds and all(turn.account.complete for turn in self.turns) else Verdict.MISSED

    @property
    def record(self) -> Mapping[str, Any]:
        """Return what the file of figures holds. `ratios`: of each figure to its control."""
        if self.turns is None:
            return {"verdict": self.verdict, "control": None, "fault": None}
        control, fault = self.turns
        ratios = {name: value / (control.values[name] or math.nan) for name, value in fault.values.items()}
        return {"verdict": self.verdict, "control": control, "fault": fault, "ratios": ratios}

    def __str__(self) -> str:
        if self.verdict is not Verdict.NOT_MEASURED:
            return f"{self.case}: {self.verdict}"
        if self.turns is None:
            return f"{self.case}: not measured, since no control group can be made here"
        had = f"the worker had {self.turns[1].processor.share:.2f} of a core"
        return f"{self.case}: not measured, since {had} instead of {self.least_share:g}"


HEADINGS = ("case", "figure", "limit", "with the fault", "without", "ratio", "of a core", "verdict")


def row(case: str, limit: Limit, record: Mapping[str, Any] | None) -> list[str]:
    """Return the cells of one limit, from what the file of figures holds of the case, if it does."""
    cells = [case, limit.figure, str(limit)]
    if record is None or record["fault"] is None:
        return [*cells, "–", "–", "–", "–", str(Verdict.NOT_MEASURED)]
    control, fault = record["control"], record["fault"]
    values = [each[limit.figure] for each in (fault["values"], control["values"], record["ratios"])]
    return [*cells, *map(_format, (*values, fault["processor"]["share"])), record["verdict"]]


def _format(value: float | None) -> str:
    if value is None:  # what JSON has for NaN and infinity
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(reports: Sequence[Report]) -> Table:
    """Make the table for people."""
    made = table_of("limits", HEADINGS, left=3)
    for report in reports:
        record: Any = plain(report.record)
        for limit in report.limits:
            made.add_row(*row(report.case, limit, record))
    return made
