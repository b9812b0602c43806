"""Measures how many logouts a second one core delivers by notifier and by its alternatives, in turns of one run.

    python -m tests.benchmarks.peers --rounds 3 --json FILE

The peers are task frameworks that take the same events from the same RabbitMQ, mint the same token and POST it to the
same nginx, and node-oidc-provider's own sending. What is fair in that, and what cannot be compared: README.md.
"""

import argparse
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from tests.benchmarks import figures
from tests.benchmarks.nginx import nginx
from tests.benchmarks.peers_run import ENVIRONMENT, PEERS, Peer, PeerBench, versions
from tests.benchmarks.record import merge
from tests.benchmarks.rig import Cores, answer, command_line, console, machine, table_of
from tests.benchmarks.throughput_run import CASES, Bench, Case, Drain

OURS, CEILING, BEST = "notifier", "ceiling", "best framework"
FRAMEWORKS = frozenset(peer.name for peer in PEERS if peer.framework)
# How often faster than the best framework, by algorithm and clients an event; than a provider's own sending: faster.
TARGETS = {("RS256", 1): 1.15, ("ES256", 1): 1.7, ("RS256", 10): 1.4, ("ES256", 10): 2.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One case: its rounds, each a drain by program; all the rest by program too.

    `ahead` is our rate over the program's; `best framework` stands for the fastest of each round.
    """

    case: Case
    rounds: Sequence[Mapping[str, Drain]]
    rate: Mapping[str, figures.Spread]
    cpu: Mapping[str, figures.Spread]
    ahead: Mapping[str, figures.Spread]
    verified: Mapping[str, int]


def report(case: Case, rounds: Sequence[Mapping[str, Drain]], verified: Mapping[str, int]) -> Report:
    """Make the figures of one case."""
    names = [*rounds[0]]
    ahead = {name: figures.ratios((each[name].rate, each[OURS].rate) for each in rounds) for name in names}
    if contenders := FRAMEWORKS & set(names):
        best = [max(each[name].rate for name in contenders) for each in rounds]
        ahead[BEST] = figures.ratios(zip(best, (each[OURS].rate for each in rounds), strict=True))
    return Report(
        case=case,
        rounds=rounds,
        rate={name: figures.spread([each[name].rate for each in rounds]) for name in names},
        cpu={name: figures.spread([each[name].cpu for each in rounds]) for name in names},
        ahead=ahead,
        verified=verified,
    )


def target(case: Case, name: str) -> str:
    """The target for our rate ÷ this program's."""
    if name == BEST:
        return f"≥ {TARGETS[case.alg, case.fan_out]}"
    return "> 1" if name in {peer.name for peer in PEERS if not peer.framework} else ""


def table(reports: Sequence[Report]) -> Table:
    """Make the table for people."""
    headings = ("case", "program", "rate", "notifier ÷ program", "target", "CPU µs", "came", "verified")
    made = table_of("deliveries a second on one core: median (min – max)", headings, left=2)
    for each in reports:
        label = f"{each.case.alg}, {each.case.fan_out} client{'s' if each.case.fan_out > 1 else ''}"
        for name in each.rate:
            drains = [drains[name] for drains in each.rounds]
            came, wanted = (sum(counts) for counts in zip(*((each.came, each.wanted) for each in drains), strict=True))
            told = "all" if all(drain.complete for drain in drains) else f"{came:,} of {wanted:,}"
            ahead = "" if name == OURS else f"{each.ahead[name]:.2f}"
            verified = "" if name == CEILING else str(each.verified.get(name, 0))
            made.add_row(
                label, name, f"{each.rate[name]:,.0f}", ahead, target(each.case, name), f"{each.cpu[name]:.0f}", told,
                verified,
            )  # fmt: skip
            label = ""
        if BEST in each.ahead:
            made.add_row("", BEST, "", f"{each.ahead[BEST]:.2f}", target(each.case, BEST))
        made.add_section()
    return made


async def run(
    chosen: Mapping[str, Case],
    against: Sequence[Peer],
    url: str,
    cores: Cores,
    given: argparse.Namespace,
    progress: Console,
) -> list[Report]:
    """Measure all cases; in each round, all programs take turns."""
    reports = []
    async with nginx() as receiver:
        for name, case in chosen.items():
            bench = Bench(url, receiver, case, cores, deliveries=given.deliveries)
            peers = PeerBench(
                url, receiver, case, cores, deliveries=given.deliveries, environment=given.environment.absolute()
            )
            turns: dict[str, Callable[[], Awaitable[Drain]]] = {CEILING: bench.ceiling, OURS: bench.drain}
            turns |= {peer.name: partial(peers.drain, peer) for peer in against}
            rounds = []
            for number in range(1, given.rounds + 1):
                drains: dict[str, Drain] = {}
                for program, turn in turns.items():
                    drained = drains[program] = await turn()
                    told = f"{drained.rate:,.0f}/s at {drained.cpu:.0f} µs"
                    progress.print(f"  {name}, round {number}: {program}: {told}")
                rounds.append(drains)
            reports.append(report(case, rounds, {OURS: bench.verified, **peers.verified}))
    return reports


def main() -> int:
    """Return 0 when every delivery of every program came exactly once, and every token was valid; else 1."""
    parser = command_line("peers", __doc__)
    parser.add_argument("--case", action="append", choices=[*CASES], help="default: all")
    parser.add_argument("--peer", action="append", choices=[peer.name for peer in PEERS], help="default: all installed")
    parser.add_argument("--rounds", type=int, default=3, help="of each case (%(default)s)")
    parser.add_argument("--deliveries", type=int, default=20_000, help="of each drain (%(default)s)")
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT, help="where the peers are (%(default)s)")
    given = parser.parse_args()
    progress = console()
    chosen = {name: CASES[name] for name in given.case or CASES}
    wanted = [peer for peer in PEERS if given.peer is None or peer.name in given.peer]
    against = [peer for peer in wanted if peer.found(given.environment)]
    for peer in wanted:
        if peer not in against:
            progress.print(f"{peer.name} is not installed in {given.environment}, and so left out")
    if not against:
        return 1
    with machine(given.url) as (url, cores):
        reports = uvloop.run(run(chosen, against, url, cores, given, progress))
    answer(given.json).print(table(reports))
    used = versions(given.environment)
    merge(given.json, {name: {**asdict(each), "versions": used} for name, each in zip(chosen, reports, strict=True)})
    return 0 if all(drain.complete for each in reports for drains in each.rounds for drain in drains.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
