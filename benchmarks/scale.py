"""Measures what a second worker adds: one and two workers drain the same events, each with the same share of a core.

    python -m benchmarks.scale --json FILE

Two cores are too few to give each worker one: the broker and the receiver need one themselves. So each worker gets 45 %
of the first core by a control group, and one or two of them run there; everything else has the other core. Where no
control group may be made (it takes root), only the processor time of a delivery is compared, with one core for all
workers: `share` is then 0.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import aiohttp
import uvloop
from rich.console import Console

from benchmarks import figures, quota
from benchmarks.nginx import nginx
from benchmarks.processes import bench_worker
from benchmarks.record import merge
from benchmarks.rig import Cores, answer, command_line, console, machine
from benchmarks.throughput_run import CASES, Bench, Case, Drain, Receiver, by_turns, watched

SHARE = 0.45


class ScaleBench(Bench):
    """One case, drained by several workers at a time."""

    async def drained_by(self, workers: int, share: float) -> Drain:
        """Drain with so many workers, each with this share of a core (0: all on one core). CPU is their sum."""
        wanted = self._events * self._case.fan_out
        async with self.installed() as site, aiohttp.ClientSession() as session, AsyncExitStack() as stack:
            before = await self._receiver.count(session)
            running = []
            for _ in range(workers):
                group = stack.enter_context(quota.share(share)) if share else None
                worker = await stack.enter_async_context(bench_worker(site, self._cores.workers, group=group))
                running.append(worker)

            async def count() -> int:
                return await self._receiver.count(session) - before

            return await watched(count, lambda: sum(worker.cpu() for worker in running), wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One case: pairs of (one worker, two), round by round; `gain` is the rate of two over that of one."""

    case: Case
    share: float
    rounds: Sequence[tuple[Drain, Drain]]
    one: figures.Spread
    two: figures.Spread
    gain: figures.Spread
    one_cpu: figures.Spread
    two_cpu: figures.Spread

    @property
    def complete(self) -> bool:
        """Every delivery came, exactly once."""
        return all(drain.complete for pair in self.rounds for drain in pair)


def report(case: Case, share: float, rounds: Sequence[tuple[Drain, Drain]]) -> Report:
    """Make the figures of one case."""
    return Report(
        case=case,
        share=share,
        rounds=rounds,
        one=figures.spread([one.rate for one, _ in rounds]),
        two=figures.spread([two.rate for _, two in rounds]),
        gain=figures.ratios((one.rate, two.rate) if share else (math.nan, math.nan) for one, two in rounds),
        one_cpu=figures.spread([one.cpu for one, _ in rounds]),
        two_cpu=figures.spread([two.cpu for _, two in rounds]),
    )


async def measure(
    case: Case, where: tuple[str, Receiver, Cores], given: argparse.Namespace, progress: Console
) -> Report:
    """Measure one case in all of its rounds."""
    url, receiver, cores = where
    share = SHARE if quota.available() else 0.0
    bench = ScaleBench(url, receiver, case, cores, deliveries=given.deliveries)
    drains = partial(bench.drained_by, 1, share), partial(bench.drained_by, 2, share)
    return report(case, share, await by_turns(f"{case.name}: one worker, two", drains, given.rounds, progress))


async def run(url: str, cores: Cores, given: argparse.Namespace, progress: Console) -> list[Report]:
    """Measure all cases. Each is written as soon as it is measured."""
    reports = []
    async with nginx() as receiver:
        for name in given.case:
            reports.append(await measure(CASES[name], (url, receiver, cores), given, progress))
            merge(given.json, {name: reports[-1]})
    return reports


def main() -> int:
    """Return 0 when every delivery came exactly once, else 1."""
    parser = command_line("scale", __doc__)
    parser.add_argument("--case", action="append", choices=[*CASES], help="default: all")
    parser.add_argument("--rounds", type=int, default=3, help="of each case (%(default)s)")
    parser.add_argument("--deliveries", type=int, default=20_000, help="of each drain (%(default)s)")
    given = parser.parse_args()
    given.case = given.case or [*CASES]
    progress = console()
    with machine(given.url) as (url, cores):
        reports = uvloop.run(run(url, cores, given, progress))
    answer().print(
        figures.table(
            "one worker, and two with the same share of a core each", {each.case.name: each for each in reports}
        )
    )
    return 0 if all(each.complete for each in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
