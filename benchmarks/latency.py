"""Measures how long a logout takes from its publication to its client, at shares of a core's capacity.

    python -m benchmarks.latency --load 0.5 --json FILE

Open loop: event i is due at start + i ÷ rate whatever became of those before, and the time counts from then, so that a
publisher, broker or worker that is held up shows (no coordinated omission). FILE keeps the loads that this run has not
measured. The capacity is that of a first drain of the same run.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import uvloop
from rich.console import Console

from benchmarks import figures
from benchmarks.isolation_run import Bench, Case, Options, Paced
from benchmarks.processes import Receivers, receivers
from benchmarks.receivers import Behaviour
from benchmarks.record import merge
from benchmarks.rig import Cores, Setup, answer, command_line, console, machine

LOADS = (0.1, 0.5, 0.8)
CLIENTS = 20
CASE = Case(clients=CLIENTS, faulty=0, fault=Behaviour())


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One load: events a second, of the capacity's; milliseconds, with their spread over the rounds.

    `late` is how late the publisher itself was (p99), which is part of the others.
    """

    load: float
    capacity: float
    rate: float
    rounds: Sequence[Paced]
    p50: figures.Spread
    p99: figures.Spread
    p999: figures.Spread
    max: figures.Spread
    late: figures.Spread
    cpu: figures.Spread

    @property
    def complete(self) -> bool:
        """True if every delivery arrived, and none at a wrong client."""
        return all(paced.account.complete for paced in self.rounds)


def report(load: float, capacity: float, rounds: Sequence[Paced]) -> Report:
    """Make the figures of one load."""
    return Report(
        load=load,
        capacity=capacity,
        rate=load * capacity,
        rounds=rounds,
        late=figures.spread([paced.late_p99 for paced in rounds]),
        **figures.spreads(rounds, "p50", "p99", "p999", "max", "cpu"),
    )


async def measure(
    url: str, played: Receivers, cores: Cores | None, given: argparse.Namespace, progress: Console
) -> list[Report]:
    """Measure the capacity, then the loads by turns, so that all of them meet the same moods of the machine."""
    options = Options(
        setup=Setup(delivery={}), seconds=given.seconds, warm_up=given.warm_up, drain=2.0, probe=given.probe
    )
    bench = Bench(url, played, CASE, options, cores)
    capacity = given.capacity or await bench.capacity()
    progress.print(f"  capacity {capacity:.0f} events/s, each for 10 clients")
    rounds: dict[float, list[Paced]] = {load: [] for load in given.load}
    for number in range(1, given.rounds + 1):
        for load, paced in rounds.items():
            found = await bench.paced(load * capacity, seed=number)
            progress.print(f"  round {number}, {load:.0%}: p50 {found.p50:.1f} ms, p99 {found.p99:.1f} ms")
            paced.append(found)
    return [report(load, capacity, paced) for load, paced in rounds.items()]


async def run(url: str, cores: Cores, given: argparse.Namespace, progress: Console) -> list[Report]:
    """Measure all loads."""
    async with receivers() as played:
        await played.open(CLIENTS)
        return await measure(url, played, cores, given, progress)


def main() -> int:
    """Return 0 when every delivery arrived, else 1."""
    parser = command_line("latency", __doc__)
    parser.add_argument("--load", type=float, action="append", help="of the capacity; default: 0.1, 0.5 and 0.8")
    parser.add_argument("--rounds", type=int, default=3, help="of each load (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each round (%(default)s)")
    parser.add_argument("--warm-up", type=float, default=3.0, help="seconds before them (%(default)s)")
    parser.add_argument("--probe", type=int, default=2000, help="events that the capacity is measured by (%(default)s)")
    parser.add_argument("--capacity", type=float, help="events a second, instead of measuring it")
    given = parser.parse_args()
    given.load = sorted(given.load or LOADS)
    progress = console()
    with machine(given.url) as (url, cores):
        reports = uvloop.run(run(url, cores, given, progress))
    answer().print(figures.table("ms from publication to arrival", {f"{each.load:.0%}": each for each in reports}))
    merge(given.json, {f"load-{each.load:g}": each for each in reports})
    return 0 if all(each.complete for each in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
