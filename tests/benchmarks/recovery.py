"""How late logouts are at a client that was down, half works or is overloaded, on real processes.

    python -m tests.benchmarks.recovery --case down-45 --json FILE

One client gets events at a steady rate: while it is well, while it has its fault, and for a while after. What it got
when is compared with what the case promises. `ideal` is a sender that gives each failed delivery its own backoff and
nothing else. What each case is, and how to read the figures: README.md.
"""

import asyncio
import gc
import itertools
import math
import random
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import uvloop
from rich.console import Console

from notifier.domain.backoff import backoff
from notifier.domain.client import RetryPolicy
from tests.benchmarks import figures
from tests.benchmarks.processes import Arrival, Receivers, bench_worker, receivers
from tests.benchmarks.receivers import Behaviour, Kind
from tests.benchmarks.record import merge
from tests.benchmarks.rig import (
    Cores,
    Event,
    Setup,
    answer,
    command_line,
    console,
    installation,
    machine,
    publish_on_schedule,
    table_of,
)
from tests.system.broker import Broker

WELL = 5.0  # seconds before the fault
TIMEOUT = 2.0  # seconds, of the client
LENGTHS = (1.0, 4.0, 10.0, 20.0, 45.0, 120.0)  # seconds of outages of a client that answers 503; one worker
SETTLED = 5.0  # seconds after the recovery, from which everything is to be in time


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A fault of `fault_for` seconds, `rate` events a second through it and for `after` seconds more.

    `ends` is False if the fault lasts to the end. `limit`: seconds after the last event that everything may take.
    """

    fault: Behaviour
    fault_for: float
    rate: float = 10.0
    after: float = 30.0
    ends: bool = True
    workers: int = 1
    limit: float = 180.0
    max_concurrent: int = 32


CASES: Final[Mapping[str, Case]] = MappingProxyType(
    {
        **{
            f"down-{seconds:g}{'' if workers == 1 else f'-{workers}-workers'}": Case(
                fault=Behaviour(kind=Kind.FAIL), fault_for=seconds, workers=workers
            )
            for seconds, workers in (*((each, 1) for each in LENGTHS), (4.0, 2), (45.0, 2))
        },
        "refuse-45": Case(fault=Behaviour(kind=Kind.REFUSE), fault_for=45.0),
        "hang-20": Case(fault=Behaviour(kind=Kind.HANG), fault_for=20.0),
        "third-503": Case(
            fault=Behaviour(kind=Kind.FAIL, seconds=0.25, share=1 / 3), fault_for=60.0, rate=30.0, after=0.0, ends=False
        ),
        "70-percent-503": Case(
            fault=Behaviour(kind=Kind.FAIL, seconds=0.25, share=0.7), fault_for=60.0, rate=8.0, after=0.0, ends=False,
            limit=600.0,
        ),
        "third-hangs": Case(
            fault=Behaviour(kind=Kind.HANG, share=1 / 3), fault_for=60.0, rate=4.0, after=0.0, ends=False
        ),
        "overload": Case(
            fault=Behaviour(kind=Kind.LIMIT, seconds=1 / 20), fault_for=30.0, rate=40.0, after=0.0, ends=False
        ),
        "overload-2-workers": Case(
            fault=Behaviour(kind=Kind.LIMIT, seconds=1 / 20), fault_for=30.0, rate=40.0, after=0.0, ends=False,
            workers=2,
        ),
    }
)  # fmt: skip


SINGLE: Final = frozenset(f"down-{seconds:g}" for seconds in LENGTHS)
"""The cases of the picture: outages of several lengths, one worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Seconds, but for `attempts` (each delivery's, in the mean) and the account. None where it does not apply.

    `first` and `last`: from the recovery to the first and last delivery of what waited then. `after_first` and
    `settled`: the longest way of an event that was published after the first success, or SETTLED after the recovery.
    `p50`, `p95`, `p99`: the way of each event of the fault. `took`: from the fault's beginning to the last delivery.
    """

    first: float | None
    last: float | None
    after_first: float | None
    settled: float | None
    p50: float
    p95: float
    p99: float
    took: float
    attempts: float
    ideal_p95: float | None
    account: figures.Account


@dataclass(frozen=True, slots=True)
class Moments:
    """When the fault began and ended, and each event was due."""

    fault: float
    end: float
    due: Mapping[int, float]


def ideal(case: Case, events: int) -> float | None:
    """The 95th percentile of an ideal sender's, if the fault is a share of failures that lasts to the end."""
    if case.ends or case.fault.kind not in (Kind.FAIL, Kind.HANG):
        return None
    rng, policy = random.Random(7), RetryPolicy()
    length = TIMEOUT if case.fault.kind is Kind.HANG else case.fault.seconds
    ways = []
    for _ in range(max(events, 10_000)):
        way = 0.0
        for tries in itertools.count(1):
            if rng.random() >= case.fault.share:
                break
            way += length + backoff(policy, tries, rng.random)
        ways.append(way)
    return figures.percentile(ways, 0.95)


async def run(url: str, case: Case, cores: Cores | None, progress: Console) -> Found:
    """All phases of one case."""
    async with receivers() as played, _standing(url, case, cores, played) as rabbit:
        moments = await _phases(case, rabbit, played)
        events = [Event(number, (0,)) for number in moments.due]
        progress.print(f"published {len(events)} events; until all have come, {case.limit:.0f} s at most")
        give_up = time.monotonic() + case.limit
        while True:
            arrivals = await played.arrivals()
            ledger = figures.ledger(events, [0], arrivals)
            if not ledger.account.missing or time.monotonic() > give_up:
                break
            await asyncio.sleep(0.5)
        return _found(case, moments, ledger, arrivals)


@asynccontextmanager
async def _standing(url: str, case: Case, cores: Cores | None, played: Receivers) -> AsyncIterator[Broker]:
    await played.open(1)
    setup = Setup(delivery={"timeout": f"{TIMEOUT:g}s"})
    async with AsyncExitStack() as stack:
        more = {0: {"max_concurrent": case.max_concurrent}}
        site, rabbit = await stack.enter_async_context(installation(url, played.ports, setup, more))
        for number in range(case.workers):
            await stack.enter_async_context(bench_worker(site, cores.of_worker(number) if cores else ()))
        yield rabbit


async def _phases(case: Case, rabbit: Broker, played: Receivers) -> Moments:
    numbers, due = itertools.count(), dict[int, float]()

    async def publish(seconds: float) -> None:
        start = time.monotonic() + 0.05
        events = [Event(next(numbers), (0,)) for _ in range(round(seconds * case.rate))]
        due.update({event.number: start + place / case.rate for place, event in enumerate(events)})
        await publish_on_schedule(rabbit, events, case.rate, start)

    await publish(WELL)
    await played.play([0], case.fault)
    began = time.monotonic()
    await publish(case.fault_for)
    end = time.monotonic()
    if case.ends:
        await played.play([0], Behaviour())
        await publish(case.after)
    return Moments(began, end, due)


def _found(case: Case, moments: Moments, ledger: figures.Ledger, arrivals: Sequence[Arrival]) -> Found:
    ways = {event: at - moments.due[event] for (event, _), at in ledger.first.items()}
    of_fault = [way for event, way in ways.items() if moments.fault <= moments.due[event] <= moments.end]
    waited = sorted(
        at - moments.end
        for (event, _), at in ledger.first.items()
        if moments.due[event] <= moments.end and at > moments.end and case.ends
    )
    first_success = min((at for at in ledger.first.values() if at > moments.end), default=math.inf)
    asked = sum(arrival.at >= moments.fault for arrival in arrivals)
    return Found(
        first=waited[0] if waited else None,
        last=waited[-1] if waited else None,
        after_first=max(_after(ways, moments.due, first_success), default=None) if case.ends else None,
        settled=max(_after(ways, moments.due, moments.end + SETTLED), default=None) if case.ends else None,
        p50=figures.percentile(of_fault, 0.5), p95=figures.percentile(of_fault, 0.95),
        p99=figures.percentile(of_fault, 0.99),
        took=max(ledger.first.values()) - moments.fault,
        attempts=asked / max(1, sum(at >= moments.fault for at in ledger.first.values())),
        ideal_p95=ideal(case, len(of_fault)),
        account=ledger.account,
    )  # fmt: skip


def _after(ways: Mapping[int, float], due: Mapping[int, float], moment: float) -> Iterator[float]:
    return (way for event, way in ways.items() if due[event] > moment)


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def main() -> int:
    """0 when every delivery has arrived of each client that recovers, else 1."""
    parser = command_line("recovery", __doc__)
    parser.add_argument("--case", action="append", choices=[*CASES, "all"], help="may be repeated; default: all")
    given = parser.parse_args()
    chosen = list(CASES) if not given.case or "all" in given.case else given.case
    headings = (
        "case", "first", "last", "after the first", "5 s after", "p50", "p95", "ideal p95", "p99", "took", "attempts",
        "missing",
    )  # fmt: skip
    table, complete = table_of("seconds; attempts are each delivery's", headings), True
    with machine(given.url, max(CASES[name].workers for name in chosen)) as (url, cores):
        for name in chosen:
            found = uvloop.run(run(url, CASES[name], cores, console()))
            # Where a share of all answers fails, the last deliveries wait for hours, even at an ideal sender.
            complete &= found.account.complete or found.ideal_p95 is not None
            told = (
                found.first, found.last, found.after_first, found.settled, found.p50, found.p95, found.ideal_p95,
                found.p99, found.took, found.attempts,
            )  # fmt: skip
            table.add_row(name, *map(_seconds, told), str(found.account.missing))
            merge(given.json, {name: {"case": CASES[name], "found": found}})
    answer(given.json).print(table)
    return 0 if complete else 1


if __name__ == "__main__":
    gc.disable()  # a search for cycles holds the publisher for 40 ms
    sys.exit(main())
