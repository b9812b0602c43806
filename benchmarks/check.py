"""Whether a delivery costs more than it did: its processor time, relative to the ceiling's, against what is recorded.

    python -m benchmarks.check            # compares, and exits 1 if a case has become dearer
    python -m benchmarks.check --record   # from now on compare with today

For a person, before a release, on a machine that does nothing else. The ratio is what carries over from one machine to
another; it still differs between kinds of processors, so record on the machine that you compare on. What changed is
told by stage (`stages.py`), in hundredths of the ceiling's cost.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.nginx import nginx
from benchmarks.record import load, merge
from benchmarks.rig import Cores, answer, console, machine, table_of
from benchmarks.stages import NAMES
from benchmarks.throughput import Report, cases, chosen, measure
from benchmarks.throughput_run import Bench

RECORDED = Path(__file__).with_name("results") / "recorded.json"
CASES = ("rabbitmq-es256-1", "rabbitmq-es256-10", "rabbitmq-rs256-1", "sqlite-es256-1")
TOLERANCE = 0.05  # beyond what both runs' own rounds differ by


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A case's cost over the ceiling's: least, middle and greatest of the rounds; `stages` of the middle's parts."""

    min: float
    median: float
    max: float
    stages: Mapping[str, float]


def ratio_of(report: Report) -> Ratio:
    """The ratio of a run whose stages were looked at."""
    ceiling = report.ceiling_cpu.median
    stages = {
        name: sum(worker.stages.get(name, 0.0) for _, worker in report.rounds) / len(report.rounds) / ceiling
        for name in NAMES
    }
    spread = report.cpu_ratio
    return Ratio(min=spread.min, median=spread.median, max=spread.max, stages=stages)


def recorded(case: Mapping[str, Any]) -> Ratio:
    """Read a case of the file."""
    return Ratio(min=case["min"], median=case["median"], max=case["max"], stages=case["stages"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One case, then and now."""

    name: str
    before: Ratio
    now: Ratio

    @property
    def by(self) -> float:
        """How much dearer it is: 0.1 is a tenth."""
        return self.now.median / self.before.median - 1

    @property
    def dearer(self) -> bool:
        """True if it grew by more than the tolerance, and today's cheapest round is above the dearest recorded."""
        return self.by > TOLERANCE and self.now.min > self.before.max

    @property
    def stages(self) -> list[tuple[str, float]]:
        """How much each stage moved, as a share of the ceiling's cost; the largest first."""
        moved = [(name, self.now.stages.get(name, 0.0) - self.before.stages.get(name, 0.0)) for name in NAMES]
        return sorted(moved, key=lambda each: -abs(each[1]))


def table(all_moved: Sequence[Moved]) -> Table:
    """Make the table for people."""
    headings = ("case", "recorded", "now", "moved", "verdict", "in which stages")
    made = table_of("processor time of a delivery ÷ the ceiling's", headings, left=len(headings))
    for each in all_moved:
        told = ", ".join(f"{name} {by:+.2f}" for name, by in each.stages[:3] if not math.isnan(by))
        made.add_row(each.name, _shown(each.before), _shown(each.now), f"{each.by:+.1%}", _verdict(each), told)
    return made


def _verdict(each: Moved) -> str:
    if each.dearer:
        return "dearer"
    cheaper = each.by < -TOLERANCE and each.now.max < each.before.min
    return "cheaper: record it" if cheaper else "as before"


def _shown(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} ({ratio.min:.2f} – {ratio.max:.2f})"


async def run(
    names: Sequence[str], url: str, cores: Cores, given: argparse.Namespace, progress: Console
) -> list[Report]:
    """Run each case, and look at its stages."""
    known, reports = cases(), []
    async with nginx() as receiver:
        for name in names:
            bench = Bench(url, receiver, known[name], cores, deliveries=given.deliveries, looked_at=True)
            reports.append(await measure(name, bench, known[name], given.rounds, progress))
    return reports


def main() -> int:
    """Return 0 if nothing is dearer, 1 if a case is or deliveries are missing, 2 without a record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="keep today's figures to compare with")
    parser.add_argument("--case", action="append", metavar="NAME", help=f"default: {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=5, help="of each case (%(default)s)")
    parser.add_argument("--deliveries", type=int, default=20_000, help="of each drain (%(default)s)")
    parser.add_argument("--file", type=Path, default=RECORDED, help="what is compared with (%(default)s)")
    parser.add_argument("--url", help="a RabbitMQ that may be used (default: a private node)")
    given = parser.parse_args()
    names = [*chosen(given.case or CASES, cases(), parser)]
    progress, known = console(), load(given.file)
    if missing := [name for name in names if name not in known and not given.record]:
        progress.print(f"{given.file} has no {', '.join(missing)}; record it first, with --record")
        return 2
    with machine(given.url) as (url, cores):
        reports = uvloop.run(run(names, url, cores, given, progress))
    now = {report.case.name: ratio_of(report) for report in reports}
    all_moved = [Moved(name=name, before=recorded(known[name]), now=now[name]) for name in now if name in known]
    if all_moved:
        answer().print(table(all_moved))
    if not all(report.complete for report in reports):
        progress.print("deliveries are missing or came twice")
        return 1
    if given.record:
        merge(given.file, now)
        progress.print(f"recorded in {given.file}")
        return 0
    return int(any(each.dearer for each in all_moved))


if __name__ == "__main__":
    sys.exit(main())
