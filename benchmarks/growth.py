"""What a delivery costs when there is more of everything: messages waiting, clients, clients an event, metrics, time.

    python -m benchmarks.growth --case 'backlog-*' --json FILE

Each case is drained by one worker on a dedicated core, beside the ceiling of the same run; FILE keeps the cases that
this run has not measured. The `start-…` cases start a worker with so many clients registered, and let it read them
again while its event loop is watched.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import uvloop
from rich.console import Console

from benchmarks import figures
from benchmarks.nginx import nginx
from benchmarks.record import merge
from benchmarks.rig import Cores, answer, console, machine
from benchmarks.starting import Start, start
from benchmarks.throughput import Report, chosen, drain_command_line, measure
from benchmarks.throughput_run import CLIENTS, Bench, Case, Receiver

LONG = 1_000_000  # one round of so many takes minutes
WARMED_UP = 50_000  # the first fifth, which does not count, has met each of 5,000 clients twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """A point of a series; `x` is the number that grows. `deliveries` 0: as many as the arguments set."""

    series: str
    x: int
    case: Case
    deliveries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Starting:
    """One point of the starts: so many clients, in a file of this kind."""

    x: int
    kind: str

    @property
    def series(self) -> str:
        """The name of its series."""
        return f"start-{self.kind}"


def points() -> dict[str, Growth | Starting]:
    """All points by name: `backlog-100000`, `clients-1000` and so on."""
    growths = [
        *(
            Growth(series=series, x=x, case=Case(queue=queue, alg="ES256", fan_out=1, backlog=x))
            for series, queue in (("backlog", "rabbitmq"), ("sqlite-backlog", "sqlite"))
            for x in (1_000, 100_000, 1_000_000)
        ),
        *(Growth(series="clients", x=x, case=_rabbitmq(clients=x, named=10)) for x in (10, 1_000, 100_000)),
        *(Growth(series="named", x=x, case=_rabbitmq(clients=x)) for x in (10, 100, 1_000, 20_000)),
        *(
            Growth(series="fan-out", x=x, case=_rabbitmq(x, clients=5_000), deliveries=WARMED_UP)
            for x in (1, 10, 100, 1_000, 5_000)
        ),
        *(
            Growth(series="series", x=x, case=_rabbitmq(clients=5_000, series=x), deliveries=WARMED_UP)
            for x in (10, 500, 5_000)
        ),
        *(Growth(series="memory", x=x, case=_rabbitmq(), deliveries=x) for x in (100_000, 1_000_000)),
    ]
    starts = [Starting(x=x, kind=kind) for kind in ("yaml", "json") for x in (10, 1_000, 100_000)]
    made: dict[str, Growth | Starting] = {f"{each.series}-{each.x}": each for each in growths}
    return made | {f"{each.series}-{each.x}": each for each in starts}


def _rabbitmq(
    fan_out: int = 10, *, clients: int = CLIENTS, named: int | None = None, series: int | None = None
) -> Case:
    return Case(queue="rabbitmq", alg="ES256", fan_out=fan_out, clients=clients, named=named, series=series)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """What one point cost."""

    series: str
    x: int
    report: Report

    @property
    def complete(self) -> bool:
        """Every delivery came, exactly once."""
        return self.report.complete


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Some starts, and spreads over them: seconds, and the longest that a reload held up the loop (ms)."""

    series: str
    x: int
    rounds: Sequence[Start]
    seconds: figures.Spread
    reload_seconds: figures.Spread
    stall: figures.Spread

    @property
    def complete(self) -> bool:
        """True if the loop was watched in every round."""
        return all(each.complete for each in self.rounds)


async def grown(
    name: str, point: Growth, where: tuple[str, Receiver, Cores], given: argparse.Namespace, progress: Console
) -> Grown:
    """Measure one point."""
    url, receiver, cores = where
    # An event of many clients is a lot of deliveries; ten of them at least, to avoid a single burst.
    deliveries = max(point.deliveries or given.deliveries, 10 * point.case.fan_out)
    if point.series.endswith("backlog"):
        deliveries = min(deliveries, point.x)
    bench = Bench(url, receiver, point.case, cores, deliveries=deliveries)
    rounds = 1 if max(point.deliveries, point.case.backlog) >= LONG else given.rounds
    report = await measure(name, bench, point.case, rounds, progress)
    return Grown(series=point.series, x=point.x, report=report)


async def started(name: str, point: Starting, cores: Cores, rounds: int, progress: Console) -> Started:
    """Start a worker so often."""
    starts = []
    for number in range(1, rounds + 1):
        found = await start(point.x, point.kind, cores.workers)
        told = f"ready in {found.seconds:.2f} s, reload {found.reload_seconds:.2f} s, loop {found.during.max:.0f} ms"
        progress.print(f"  {name}, round {number}: {told}")
        starts.append(found)
    return Started(
        series=point.series,
        x=point.x,
        rounds=starts,
        **figures.spreads(starts, "seconds", "reload_seconds"),
        stall=figures.spread([each.during.max for each in starts]),
    )


async def run(url: str, cores: Cores, given: argparse.Namespace, progress: Console) -> list[Grown | Started]:
    """Measure all points. Each is written as soon as it is measured."""
    found: list[Grown | Started] = []
    async with nginx() as receiver:
        for name, point in given.chosen.items():
            made: Grown | Started
            if isinstance(point, Starting):
                made = await started(name, point, cores, given.rounds, progress)
            else:
                made = await grown(name, point, (url, receiver, cores), given, progress)
            found.append(made)
            merge(given.json, {name: made})
    return found


def main() -> int:
    """Return 0 when every delivery came, else 1."""
    parser = drain_command_line("growth", __doc__, points())
    given = parser.parse_args()
    given.chosen = chosen(given.case, points(), parser)
    progress = console()
    with machine(given.url) as (url, cores):
        found = uvloop.run(run(url, cores, given, progress))
    if drains := [each for each in found if isinstance(each, Grown)]:
        told = {f"{each.series}-{each.x}": each.report for each in drains}
        answer(given.json).print(figures.table("what a delivery costs", told))
    if starts := [each for each in found if isinstance(each, Started)]:
        answer(given.json).print(
            figures.table("starts and reloads", {f"{each.series}-{each.x}": each for each in starts})
        )
    return 0 if all(each.complete for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
