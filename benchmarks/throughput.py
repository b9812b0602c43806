"""Measures how many logouts a second one core delivers, and what each costs, against the ceiling of the same run.

    python -m benchmarks.throughput --rounds 3 --json FILE

FILE keeps the cases that this run has not measured, so that they can be measured in pieces. The queue is filled first;
then one worker, alone on its core, drains it into a local nginx, by turns with the ceiling (`ceiling.py`) on the same
core. What is compared and how to read it: README.md.
"""

import argparse
import fnmatch
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import uvloop
from rich.console import Console

from benchmarks import figures
from benchmarks.nginx import nginx
from benchmarks.record import merge
from benchmarks.rig import Cores, answer, command_line, console, machine
from benchmarks.throughput_run import Bench, Case, Drain, by_turns

T = TypeVar("T")

FAN_OUTS = (1, 10, 100)
# Of the ceiling, by algorithm and clients an event; only on RabbitMQ without TLS.
TARGETS = {("RS256", 1): 0.8, ("ES256", 1): 0.6, ("RS256", 10): 0.95, ("ES256", 10): 0.9}


def cases() -> dict[str, Case]:
    """All cases by name: `rabbitmq-es256-10`, `sqlite-rs256-1-tls`, `rabbitmq-es256-10-failing` and so on."""
    all_of_them = [
        Case(queue=queue, alg=alg, fan_out=fan_out, tls=tls)
        for queue in ("rabbitmq", "sqlite")
        for alg in ("RS256", "ES256")
        for fan_out in FAN_OUTS
        for tls in (False, True)
    ]
    failing = [Case(queue=queue, alg="ES256", fan_out=10, failing=True) for queue in ("rabbitmq", "sqlite")]
    return {case.name: case for case in (*all_of_them, *failing)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One case: pairs of (ceiling, worker), round by round. `ratios` are worker over ceiling."""

    case: Case
    rounds: Sequence[tuple[Drain, Drain]]
    rate: figures.Spread
    ceiling: figures.Spread
    ratio: figures.Spread
    cpu: figures.Spread
    ceiling_cpu: figures.Spread
    cpu_ratio: figures.Spread
    memory: figures.Spread
    verified: int

    @property
    def complete(self) -> bool:
        """Every delivery came, exactly once."""
        return all(worker.complete for _, worker in self.rounds)


def report(case: Case, rounds: Sequence[tuple[Drain, Drain]], verified: int) -> Report:
    """Make the figures of one case."""
    return Report(
        case=case,
        rounds=rounds,
        rate=figures.spread([worker.rate for _, worker in rounds]),
        ceiling=figures.spread([ceiling.rate for ceiling, _ in rounds]),
        ratio=figures.ratios((ceiling.rate, worker.rate) for ceiling, worker in rounds),
        cpu=figures.spread([worker.cpu for _, worker in rounds]),
        ceiling_cpu=figures.spread([ceiling.cpu for ceiling, _ in rounds]),
        cpu_ratio=figures.ratios((ceiling.cpu, worker.cpu) for ceiling, worker in rounds),
        memory=figures.spread([worker.memory for _, worker in rounds]),
        verified=verified,
    )


def target(case: Case) -> float | None:
    """The target for worker ÷ ceiling; only on RabbitMQ without TLS."""
    plain_one = case.queue == "rabbitmq" and not case.tls and not case.failing
    return TARGETS.get((case.alg, case.fan_out)) if plain_one else None


async def measure(name: str, bench: Bench, case: Case, rounds: int, progress: Console) -> Report:
    """Measure one case in all of its rounds."""
    pairs = await by_turns(f"{name}: ceiling, worker", (bench.ceiling, bench.drain), rounds, progress)
    return report(case, pairs, bench.verified)


async def run(
    chosen: Mapping[str, Case], url: str, cores: Cores, given: argparse.Namespace, progress: Console
) -> list[Report]:
    """Measure all cases. Each is written at once, so that a run that is stopped keeps them."""
    reports = []
    async with nginx() as receiver:
        for name, case in chosen.items():
            bench = Bench(url, receiver, case, cores, deliveries=given.deliveries)
            reports.append(await measure(name, bench, case, given.rounds, progress))
            if str(given.json) != "-":
                merge(given.json, {name: reports[-1]})
    return reports


def chosen(patterns: Sequence[str] | None, known: Mapping[str, T], parser: argparse.ArgumentParser) -> dict[str, T]:
    """The cases that the patterns name."""
    for pattern in patterns or ():
        if not fnmatch.filter(known, pattern):
            parser.error(f"no case is called {pattern}; there are {', '.join(known)}")
    wanted = patterns or ["*"]
    return {name: case for name, case in known.items() if any(fnmatch.fnmatchcase(name, each) for each in wanted)}


def drain_command_line(name: str, doc: str | None, known: Mapping[str, object]) -> argparse.ArgumentParser:
    """The arguments of a benchmark that measures drains of the known cases."""
    parser = command_line(name, doc)
    parser.add_argument(
        "--case", action="append", metavar="NAME",
        help=f"one of {', '.join(known)}; or a shell pattern; several times; default: all",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="of each case (%(default)s)")
    parser.add_argument("--deliveries", type=int, default=20_000, help="of each drain (%(default)s)")
    return parser


def main() -> int:
    """Return 0 when every delivery came exactly once, and every token of the sample was valid; else 1."""
    parser = drain_command_line("throughput", __doc__, cases())
    parser.add_argument("--short", action="store_true", help="1 round of 1,000 deliveries: to see that it works")
    given = parser.parse_args()
    if given.short:
        given.rounds, given.deliveries = 1, 1_000
    given.chosen = chosen(given.case, cases(), parser)
    progress = console()
    with machine(given.url) as (url, cores):
        reports = uvloop.run(run(given.chosen, url, cores, given, progress))
    answer(given.json).print(
        figures.table("deliveries a second, and µs of a core", {each.case.name: each for each in reports})
    )
    if str(given.json) == "-":
        merge(given.json, {each.case.name: each for each in reports})
    return 0 if all(each.complete for each in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
