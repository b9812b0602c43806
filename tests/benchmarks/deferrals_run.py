"""The run of the deferrals benchmark: one dead client, client 0, for whom everything waits, and a few healthy ones.

Fresh events bear numbers from FRESH on, so that a phase's own are told from what waits.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from rich.console import Console

from tests.benchmarks import figures
from tests.benchmarks.processes import Arrival, BenchWorker, Receivers, bench_worker, receivers
from tests.benchmarks.receivers import Behaviour, Kind
from tests.benchmarks.rig import Cores, Event, Setup, installation, publish_all, publish_on_schedule
from tests.system.broker import Broker

DEAD = 0
HEALTHY = range(1, 11)
FRESH = 10_000_000
PATIENCE = 600.0  # seconds until all must have been taken in


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asks for."""

    setup: Setup
    deliveries: int
    fault: Kind
    wait: float
    fresh: float
    answer: float
    limit: float
    max_concurrent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """Milliseconds from the moment that events were due to be published to their arrival at healthy clients."""

    events: int
    p50: float
    p99: float
    max: float

    def __str__(self) -> str:
        return f"{self.p50:.1f}, {self.p99:.1f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The worker's share of a core while nothing is published: over all, in its busiest second, and each second's."""

    mean: float
    max: float
    seconds: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Seconds from the client's recovery to its first and last first-time arrival; arrivals in each second.

    `peak` is how many requests the client had at a time, at most.
    """

    first: float
    last: float
    median_rate: float
    max_rate: float
    peak: int
    arrivals: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The figures of a run. `passes`: how often a delivery entered a delay queue (deferrals and retries), by phase."""

    intake_seconds: float
    waiting: Cpu
    memory: float
    fresh_before: Fresh
    fresh_waiting: Fresh
    fresh_recovery: Fresh
    recovery: Recovery
    passes: dict[str, float]
    attempts: float
    deferrals: dict[str, float]
    account: figures.Account


@dataclass(slots=True)
class Bench:
    """What a run works with, and the fresh events so far, each with the moment it was due."""

    rabbit: Broker
    worker: BenchWorker
    played: Receivers
    options: Options
    due: dict[int, float] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(FRESH))

    async def fresh(self, seconds: float) -> list[int]:
        """Publish fresh events for so long, each to the next healthy client. Returns their numbers."""
        numbers = [next(self.numbers) for _ in range(max(1, round(seconds * self.options.fresh)))]
        events = [Event(number, (HEALTHY[number % len(HEALTHY)],)) for number in numbers]
        start = time.monotonic() + 0.1
        self.due |= {number: start + place / self.options.fresh for place, number in enumerate(numbers)}
        self.events += events
        await publish_on_schedule(self.rabbit, events, self.options.fresh, start)
        return numbers

    async def passes(self) -> float:
        """How often deliveries entered a delay queue so far."""
        counted = await self.worker.metrics()
        return sum(v for k, v in counted.items() if k.startswith(("deferrals_total", "retries_scheduled_total")))

    async def taken_in(self) -> None:
        """Return once every event was acked: its delivery is put off or delivered."""
        give_up, wanted = time.monotonic() + PATIENCE, self.options.deliveries + len(self.events)
        while (await self.worker.metrics()).get("events_total{accepted}", 0.0) < wanted:
            if time.monotonic() > give_up:
                raise TimeoutError(f"not all events were taken in within {PATIENCE:.0f} s")
            await asyncio.sleep(0.25)

    async def look(self, seconds: float) -> Cpu:
        """Measure the worker's use of its core, second by second."""
        shares, used, began = [], self.worker.cpu(), time.monotonic()
        first = used, began
        while began - first[1] < seconds:
            await asyncio.sleep(min(1.0, seconds))
            before, (used, began) = (used, began), (self.worker.cpu(), time.monotonic())
            shares.append((used - before[0]) / (began - before[1]))
        return Cpu(mean=(used - first[0]) / (began - first[1]), max=max(shares), seconds=shares)

    async def recover(self) -> tuple[float, list[int]]:
        """Let the client live again, until all has arrived or the limit is over. Returns when, and the fresh events."""
        options = self.options
        await self.played.play([DEAD], Behaviour(seconds=options.answer))
        recovered = time.monotonic()
        arrived, told = asyncio.create_task(self._all_arrived(recovered + options.limit)), list[int]()
        while not arrived.done():
            told += await self.fresh(1.0)
        await arrived
        return recovered, told

    async def _all_arrived(self, give_up: float) -> None:
        """Some requests came before the recovery, or twice: so the account decides, not the count."""
        wanted = self.options.deliveries
        while await self.played.until_came(wanted, [DEAD], give_up - time.monotonic()):
            missing = self.account(await self.played.arrivals(), [DEAD]).account.missing
            if not missing:
                return
            wanted = (await self.played.counts())[DEAD] + missing

    def account(self, arrivals: Sequence[Arrival], clients: Collection[int]) -> figures.Ledger:
        """The account of everything published."""
        return figures.ledger(itertools.chain(waiting(self.options.deliveries), self.events), clients, arrivals)


def waiting(deliveries: int) -> list[Event]:
    """The events for the dead client."""
    return [Event(number, (DEAD,)) for number in range(deliveries)]


async def run(url: str, options: Options, cores: Cores | None, progress: Console) -> Found:
    """Run all phases."""
    async with receivers() as played:
        await played.open(1 + len(HEALTHY))
        async with _standing(url, options, cores, played) as bench:
            return await _phases(bench, progress)


@asynccontextmanager
async def _standing(url: str, options: Options, cores: Cores | None, played: Receivers) -> AsyncIterator[Bench]:
    more = {DEAD: {"max_concurrent": options.max_concurrent}}
    async with (
        installation(url, played.ports, options.setup, more) as (site, rabbit),
        bench_worker(site, cores.of_worker(0) if cores else ()) as worker,
    ):
        yield Bench(rabbit=rabbit, worker=worker, played=played, options=options)


async def _phases(bench: Bench, progress: Console) -> Found:
    options, worker = bench.options, bench.worker
    progress.print("fresh deliveries, before anything waits")
    before = await bench.fresh(options.wait)
    await bench.played.play([DEAD], Behaviour(kind=options.fault))
    progress.print(f"{options.deliveries:,} events for the dead client")
    began, passes = time.monotonic(), [await bench.passes()]
    await publish_all(bench.rabbit, waiting(options.deliveries))
    await bench.taken_in()
    intake = time.monotonic() - began
    passes.append(await bench.passes())
    progress.print(f"taken in after {intake:.1f} s; looking at the worker for {options.wait:.0f} s")
    cpu = await bench.look(options.wait)
    progress.print(f"{100 * cpu.mean:.1f} % of a core; fresh deliveries beside what waits")
    beside = await bench.fresh(options.wait)
    passes.append(await bench.passes())
    memory = worker.memory()
    progress.print("the client recovers")
    recovered, during = await bench.recover()
    passes.append(await bench.passes())
    counted = await worker.metrics()
    await bench.played.until_came(len(bench.events), HEALTHY, 30)
    arrivals = await bench.played.arrivals()
    ledger = bench.account(arrivals, [DEAD, *HEALTHY])
    steps = [after - before for before, after in itertools.pairwise(passes)]
    return Found(
        intake_seconds=intake,
        waiting=cpu,
        memory=memory,
        fresh_before=_fresh(bench, ledger, before),
        fresh_waiting=_fresh(bench, ledger, beside),
        fresh_recovery=_fresh(bench, ledger, during),
        recovery=_recovery(ledger, recovered, (await bench.played.peaks())[DEAD]),
        passes=_each(dict(zip(("intake", "waiting", "recovery"), steps, strict=True)), options.deliveries),
        attempts=sum(arrival.client == DEAD for arrival in arrivals) / options.deliveries,
        deferrals={cause: count for cause, count in counted.items() if cause.startswith("deferrals") and count},
        account=ledger.account,
    )


def _each(passes: Mapping[str, float], deliveries: int) -> dict[str, float]:
    return {phase: count / deliveries for phase, count in {**passes, "all": sum(passes.values())}.items()}


def _fresh(bench: Bench, ledger: figures.Ledger, numbers: Collection[int]) -> Fresh:
    latencies = [1000 * seconds for seconds in ledger.latencies({number: bench.due[number] for number in numbers})]
    return Fresh(
        events=len(numbers),
        p50=figures.percentile(latencies, 0.5),
        p99=figures.percentile(latencies, 0.99),
        max=figures.percentile(latencies, 1),
    )


def _recovery(ledger: figures.Ledger, recovered: float, peak: int) -> Recovery:
    moments = sorted(at for (event, client), at in ledger.first.items() if client == DEAD and event < FRESH)
    rates = figures.per_second(moments, recovered)
    return Recovery(
        first=moments[0] - recovered if moments else float("nan"),
        last=moments[-1] - recovered if moments else float("nan"),
        median_rate=figures.percentile([rate for rate in rates if rate], 0.5),
        max_rate=max(rates, default=0),
        peak=peak,
        arrivals=rates,
    )
