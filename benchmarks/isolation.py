"""Measures what healthy clients feel of a faulty one: the same load without and with the fault, by turns (A/B/A/B).

    python -m benchmarks.isolation --case black-hole --rounds 3 --json FILE

*Paced*: an open-loop publisher at half of the measured capacity; the latency is from the moment an event was due to be
published until a healthy client has the request. *Drain*: the events wait in the queue when the worker starts; the rate
is that of the healthy clients' deliveries. Other cases have a limit (`limited_run.py`). README.md describes the cases,
and how to read the figures.
"""

import gc
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Final

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks import figures, limits
from benchmarks.isolation_run import FAN_OUT, Bench, Case, Measured, Options, Turn
from benchmarks.limited_run import LIMITED, run_limited
from benchmarks.limits import Verdict
from benchmarks.processes import receivers
from benchmarks.receivers import Behaviour, Kind
from benchmarks.record import merge
from benchmarks.rig import Cores, Setup, answer, command_line, console, machine, table_of

HANG: Final = Behaviour(kind=Kind.HANG)
CASES: Final[Mapping[str, Case]] = MappingProxyType(
    {
        "black-hole": Case(clients=10, faulty=1, fault=HANG),
        "6-of-20": Case(clients=20, faulty=6, fault=HANG, suddenly=True),
        "8-of-50": Case(clients=50, faulty=8, fault=HANG, suddenly=True),
        "300-of-1000": Case(clients=1000, faulty=300, fault=HANG),
        "300-of-1000-refuse": Case(clients=1000, faulty=300, fault=Behaviour(kind=Kind.REFUSE)),
        "slow": Case(clients=20, faulty=7, fault=Behaviour(seconds=4.5)),
        "two-workers": Case(clients=10, faulty=1, fault=HANG, workers=2),
    }
)
TARGETS: Final = MappingProxyType({"p99": "< 1.10", "p99_second": "< 1.10", "drain_99": "≥ 0.95"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One case. `ratios` are B over A, pair by pair; `noise` is A over the A of the round before: without an effect."""

    case: str
    what: Case
    measured: Measured
    ratios: Mapping[str, figures.Spread]
    noise: Mapping[str, figures.Spread]

    @property
    def accounts(self) -> list[figures.Account]:
        """The accounts of every turn."""
        turns = [turn for pair in self.measured.rounds for turn in pair]
        return [account for turn in turns for account in (turn.paced.account, turn.drained.account)]

    @property
    def complete(self) -> bool:
        """True if every delivery to a healthy client arrived, and nothing else."""
        return all(account.complete for account in self.accounts)


def _values(turn: Turn) -> dict[str, float]:
    paced, drained = turn.paced, turn.drained
    return {
        "p50": paced.p50,
        "p99": paced.p99,
        "p99_second": paced.p99_second,
        "drain_99": drained.rate_99,
        "drain_all": drained.rate,
    }


def compared(pairs: Sequence[tuple[Turn, Turn]]) -> dict[str, figures.Spread]:
    """The ratios of the second turn of each pair to the first."""
    both = [(_values(first), _values(second)) for first, second in pairs]
    return {name: figures.ratios((a[name], b[name]) for a, b in both) for name in (both[0][0] if both else ())}


async def run_case(
    case_name: str, case: Case, url: str, options: Options, cores: Cores | None, progress: Console
) -> Report:
    """Run one case, from the capacity to the ratios."""
    progress.print(f"[bold]{case_name}[/bold]")
    async with receivers() as played:
        await played.open(case.clients)
        measured = await Bench(url, played, case, options, cores).run(progress)
    baselines = [first for first, _ in measured.rounds]
    return Report(
        case=case_name,
        what=case,
        measured=measured,
        ratios=compared(measured.rounds),
        noise=compared(list(pairwise(baselines))),
    )


def table(report: Report) -> Table:
    """Make the table for people."""
    case, measured = report.what, report.measured
    title = (
        f"{report.case}: {case.faulty} of {case.clients} clients, {case.workers} worker(s);"
        f" {measured.rate:.0f} events/s of {measured.capacity:.0f}, {min(FAN_OUT, case.clients)} clients each"
    )
    made = table_of(title, ("", "with the fault ÷ all healthy", "all healthy, round by round", "target"), left=4)
    for name, ratio in report.ratios.items():
        made.add_row(name, str(ratio), str(report.noise.get(name, "–")), TARGETS.get(name, ""))
    told = {name: sum(getattr(each, name) for each in report.accounts) for name in asdict(report.accounts[0])}
    made.caption = "healthy clients' deliveries: " + ", ".join(f"{count} {name}" for name, count in told.items())
    return made


def record(report: Report, options: Options) -> dict[str, object]:
    """The JSON of a report: the spreads of A (`healthy`) and B (`faulty`), their ratios, and how they were taken."""
    firsts, seconds = ([_values(turn) for turn in turns] for turns in zip(*report.measured.rounds, strict=True))
    both = {
        name: {figure: figures.spread([each[figure] for each in values]) for figure in values[0]}
        for name, values in (("healthy", firsts), ("faulty", seconds))
    }
    return {
        "case": report.what, "rate": report.measured.rate, "capacity": report.measured.capacity, "options": options,
        "rounds": [{"healthy": a.paced, "faulty": b.paced} for a, b in report.measured.rounds],
        "accounts": report.accounts, "ratios": report.ratios, "noise": report.noise, **both,
    }  # fmt: skip


def exit_code(reports: Sequence[Report], limited: Sequence[limits.Report]) -> int:
    """Return 0 when every delivery is accounted for and every limit is met, else 1."""
    return int(not all(each.complete for each in reports) or any(each.verdict is not Verdict.MET for each in limited))


def main() -> int:
    """Return 0 when every delivery is accounted for and every limit is met, else 1."""
    parser = command_line("isolation", __doc__)
    names = [*CASES, *LIMITED]
    parser.add_argument("--case", action="append", choices=[*names, "all"], help="may be repeated; default: all")
    parser.add_argument("--seconds", type=float, default=45, help="measured in each paced turn (default %(default)s)")
    parser.add_argument("--warm-up", type=float, default=5, help="seconds before that which do not count (%(default)s)")
    parser.add_argument("--drain", type=float, default=10, help="about so many seconds a drain lasts (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of A and B (%(default)s)")
    parser.add_argument("--rate", type=float, help="events a second (default: half of the measured capacity)")
    parser.add_argument("--probe", type=int, default=1500, help="events to measure the capacity with (%(default)s)")
    parser.add_argument("--log-level", default="info", help="of the workers, to a file (%(default)s)")
    given = parser.parse_args()
    progress, reports = console(), []
    chosen = names if not given.case or "all" in given.case else given.case
    options = Options(
        setup=Setup(delivery={}, log_level=given.log_level), seconds=given.seconds, warm_up=given.warm_up,
        drain=given.drain, rounds=max(1, given.rounds), rate=given.rate, probe=given.probe,
    )  # fmt: skip
    limited: list[limits.Report] = []
    with machine(given.url, max(CASES[name].workers if name in CASES else 1 for name in chosen)) as (url, cores):
        for name in chosen:
            if name in LIMITED:
                progress.print(f"[bold]{name}[/bold]")
                limited.append(uvloop.run(run_limited(name, LIMITED[name], url, cores)))
                merge(given.json, {name: limited[-1].record})
                continue
            report = uvloop.run(run_case(name, CASES[name], url, options, cores, progress))
            answer(given.json).print(table(report))
            reports.append(report)
            merge(given.json, {name: record(report, options)})
    if limited:
        answer(given.json).print(limits.table(limited), *map(str, limited), sep="\n")
    return exit_code(reports, limited)


if __name__ == "__main__":
    gc.disable()  # a search for cycles holds the publisher for 40 ms
    sys.exit(main())
