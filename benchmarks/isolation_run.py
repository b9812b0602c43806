"""One case of the isolation benchmark: measures the capacity, then runs the load with and without the fault by turns.

Each turn has a new worker (or several) and new queues, so that nothing of one turn is left to the next.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median

from rich.console import Console

from benchmarks import figures
from benchmarks.processes import BenchWorker, Receivers, bench_worker
from benchmarks.receivers import Behaviour
from benchmarks.rig import Cores, Event, Setup, installation, publish_all, publish_on_schedule
from tests.system.broker import Broker
from tests.system.site import Site

FAN_OUT = 10  # clients of an event
HEAD_START = 0.5  # seconds from a worker's readiness to the first event
SUDDENLY = 1 / 3  # of the measured time has passed when a sudden fault begins


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The clients. The first `faulty` ones have a fault: from the start, or suddenly after a third of the time."""

    clients: int
    faulty: int
    fault: Behaviour
    suddenly: bool = False
    workers: int = 1

    @property
    def healthy(self) -> frozenset[int]:
        """The clients without a fault."""
        return frozenset(range(self.faulty, self.clients))

    def events(self, count: int, seed: int) -> list[Event]:
        """Events for FAN_OUT clients each, drawn at random; for all clients if there are no more."""
        chance, most = random.Random(seed), min(FAN_OUT, self.clients)
        return [Event(number, tuple(chance.sample(range(self.clients), most))) for number in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How long, how often, how fast. Times in seconds; `rate` in events a second, None: half of the capacity."""

    setup: Setup
    seconds: float = 45.0
    warm_up: float = 5.0
    drain: float = 10.0
    rounds: int = 3
    rate: float | None = None
    probe: int = 1500  # events that the capacity is measured with
    patience: float = 120.0  # for the last of the healthy clients' deliveries


@dataclass(frozen=True, slots=True, kw_only=True)
class Paced:
    """One turn at a fixed rate. Latencies in milliseconds; the publisher's own lateness is part of them.

    `cpu` is what the workers used of a core, all together. `p99_second` is the median of the seconds' own p99: a moment
    in which the machine stood still is in one second, and makes up the whole of the plain p99.
    """

    p50: float
    p99: float
    p99_second: float
    p999: float
    max: float
    late_p99: float
    cpu: float
    account: figures.Account


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """One drain: healthy clients' deliveries a second, until 99 % of them had arrived and until all had."""

    rate_99: float
    rate: float
    account: figures.Account


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn: A (all healthy) or B (with the fault)."""

    paced: Paced
    drained: Drained


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All of one case. Rates in events a second; of the rounds, the turn A (all healthy) and B (with the fault)."""

    capacity: float
    rate: float
    rounds: list[tuple[Turn, Turn]]


class Bench:
    """A broker, receivers that stand open for all of the case's clients, and the cores of the workers."""

    def __init__(self, url: str, played: Receivers, case: Case, options: Options, cores: Cores | None) -> None:
        self._url = url
        self._played = played
        self._case = case
        self._options = options
        self._cores = cores

    async def run(self, progress: Console) -> Measured:
        """Run all rounds."""
        case, options = self._case, self._options
        capacity = await self.capacity()
        rate = options.rate or capacity / 2
        progress.print(f"  capacity {capacity:.0f} events/s; offered {rate:.0f} events/s")
        rounds = []
        for number in range(1, options.rounds + 1):
            turns = []
            for faulty in (False, True):
                events = case.events(round((options.warm_up + options.seconds) * rate), seed=number)
                waiting = case.events(max(1, round(options.drain * capacity)), seed=-number)
                turn = Turn(
                    paced=await self._pace(events, rate, faulty=faulty),
                    drained=await self._drain(waiting, faulty=faulty),
                )
                paced, drained = turn.paced, turn.drained
                told = f"p50 {paced.p50:.1f} ms, p99 {paced.p99:.1f} ms, drain {drained.rate_99:.0f}/s"
                progress.print(f"  round {number} {'B' if faulty else 'A'}: {told}")
                turns.append(turn)
            rounds.append((turns[0], turns[1]))
        return Measured(capacity=capacity, rate=rate, rounds=rounds)

    async def capacity(self) -> float:
        """Measure the events a second of a drain of `probe` events."""
        case = self._case
        drained = await self._drain(case.events(self._options.probe, seed=0), faulty=False)
        return drained.rate_99 / len(case.healthy) * case.clients / min(FAN_OUT, case.clients)

    async def paced(self, rate: float, seed: int) -> Paced:
        """Run one turn without a fault, at so many events a second."""
        options = self._options
        events = self._case.events(max(1, round((options.warm_up + options.seconds) * rate)), seed=seed)
        return await self._pace(events, rate, faulty=False)

    # ── the two kinds of a turn ──

    async def _pace(self, events: Sequence[Event], rate: float, *, faulty: bool) -> Paced:
        options = self._options
        async with self._installed(faulty=faulty) as (site, rabbit), self._workers(site) as workers:
            start = time.monotonic() + HEAD_START
            used, began = sum(worker.cpu() for worker in workers), time.monotonic()
            async with self._sudden(start + options.warm_up + SUDDENLY * options.seconds, faulty=faulty):
                late = await publish_on_schedule(rabbit, events, rate, start)
                share = (sum(worker.cpu() for worker in workers) - used) / (time.monotonic() - began)
            found = await until_arrived(self._played, events, self._case.healthy, options.patience)
        due = {event.number: start + number / rate for number, event in enumerate(events)}
        counted = {number: at for number, at in due.items() if at >= start + options.warm_up}
        latencies = [1000 * seconds for seconds in found.latencies(counted)]
        return Paced(
            p50=figures.percentile(latencies, 0.5),
            p99=figures.percentile(latencies, 0.99),
            p99_second=1000
            * median(figures.percentile(each, 0.99) for each in found.by_second(counted, start + options.warm_up)),
            p999=figures.percentile(latencies, 0.999),
            max=figures.percentile(latencies, 1),
            late_p99=1000 * figures.percentile(late, 0.99),
            cpu=share,
            account=found.account,
        )

    async def _drain(self, events: Sequence[Event], *, faulty: bool) -> Drained:
        """The first fifth of the expected time (at most a quarter) is the warm-up: caps grow, connections are made."""
        drain = self._options.drain
        async with self._installed(faulty=faulty) as (site, rabbit):
            await publish_all(rabbit, events)
            async with self._workers(site), self._sudden(time.monotonic() + SUDDENLY * drain, faulty=faulty):
                found = await until_arrived(self._played, events, self._case.healthy, self._options.patience)
        moments = sorted(found.first.values())
        if len(moments) < 2:  # starved altogether
            return Drained(rate_99=0.0, rate=0.0, account=found.account)
        warm_up = min(drain / 5, (moments[-1] - moments[0]) / 4)  # the probe may be much shorter than `drain`
        warm = [at for at in moments[1:] if at >= moments[0] + warm_up]
        before = moments[len(moments) - len(warm) - 1]
        most = warm[: max(1, round(0.99 * len(moments)) - (len(moments) - len(warm)))]
        return Drained(
            rate_99=len(most) / (most[-1] - before),
            rate=len(warm) / (warm[-1] - before),
            account=found.account,
        )

    # ── what both need ──

    @asynccontextmanager
    async def _installed(self, *, faulty: bool) -> AsyncIterator[tuple[Site, Broker]]:
        await self._played.forget()
        if faulty and not self._case.suddenly:
            await self._begin_fault()
        async with installation(self._url, self._played.ports[: self._case.clients], self._options.setup) as installed:
            yield installed

    async def _begin_fault(self) -> None:
        await self._played.play(range(self._case.faulty), self._case.fault)

    @asynccontextmanager
    async def _workers(self, site: Site) -> AsyncIterator[list[BenchWorker]]:
        cores = self._cores
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(bench_worker(site, cores.of_worker(number) if cores else ()))
                for number in range(self._case.workers)
            ]

    @asynccontextmanager
    async def _sudden(self, at: float, *, faulty: bool) -> AsyncIterator[None]:
        """Begin a sudden fault at that moment."""

        async def begin() -> None:
            await asyncio.sleep(at - time.monotonic())
            await self._begin_fault()

        task = asyncio.create_task(begin()) if faulty and self._case.suddenly else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


async def until_arrived(
    played: Receivers, events: Sequence[Event], clients: frozenset[int], patience: float
) -> figures.Ledger:
    """Return the ledger of these clients, once each of their deliveries has arrived or patience (seconds) is over.

    Duplicates would make a count complete too early, so it is tried again until the account itself is.
    """
    give_up = time.monotonic() + patience
    wanted = sum(number in clients for event in events for number in event.clients)
    while True:
        await played.until_came(wanted, clients, give_up - time.monotonic())
        found = figures.ledger(events, clients, await played.arrivals())
        if not found.account.missing or time.monotonic() > give_up:
            return found
        wanted += found.account.missing
