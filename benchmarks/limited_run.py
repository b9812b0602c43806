"""The cases with a limit: their loads, each measured without and with the fault. README.md describes them.

A turn has a new worker and new queues, and the service's default settings. No argument changes a load, since its limit
holds for nothing else.
"""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Final

from yarl import URL

from benchmarks import figures, quota
from benchmarks.isolation_run import HEAD_START, until_arrived
from benchmarks.limits import Limit, Report, Turn, Watch
from benchmarks.processes import BenchWorker, Receivers, bench_worker, receivers
from benchmarks.receivers import Behaviour, Kind
from benchmarks.rig import Cores, Event, Setup, installation, name, publish_all, publish_on_schedule
from notifier.model.defaults import BUCKETS
from notifier.queues.rabbitmq.buckets import bucket_number
from tests.system.broker import Broker
from tests.system.site import ISSUER
from tests.system.tcp_proxy import Ending, TcpProxy
from tests.system.waiting import until

PATIENCE = 240.0  # seconds for what has to arrive
CONNECTIONS = 2  # of a worker: it publishes by one and consumes by the other


@dataclass(frozen=True, slots=True)
class Running:
    """One worker, the proxy between it and its broker, and its clients."""

    worker: BenchWorker
    proxy: TcpProxy
    rabbit: Broker
    played: Receivers

    async def park(self, events: Sequence[Event]) -> None:
        """Publish events to clients that are down, and return once the worker has parked the deliveries."""
        await self.played.play({number for event in events for number in event.clients}, Behaviour(kind=Kind.REFUSE))
        await publish_all(self.rabbit, events)
        await until(lambda: self.rabbit.depths(["events"]), lambda depths: not depths, PATIENCE)
        await until(self.worker.metrics, lambda found: not found["queue_unsettled{events}"], PATIENCE)

    async def arrived(self, events: Sequence[Event], clients: Collection[int]) -> figures.Ledger:
        """Return the ledger of these clients, once all has arrived or patience is over."""
        return await until_arrived(self.played, events, frozenset(clients), PATIENCE)


@asynccontextmanager
async def run(url: str, played: Receivers, cores: Cores | None, share: float, clients: int) -> AsyncIterator[Running]:
    """Run a worker with this share of a core (0: all of it) for so many healthy clients."""
    await played.forget()
    direct = URL(url)
    async with AsyncExitStack() as stack:
        site, rabbit = await stack.enter_async_context(installation(url, played.ports[:clients], Setup(delivery={})))
        proxy = await stack.enter_async_context(TcpProxy(direct.host or "", direct.port or 5672))
        site.config["queue"] |= {"url": str(direct.with_host("127.0.0.1").with_port(proxy.port)), "buckets": BUCKETS}
        site.write()
        group = stack.enter_context(quota.share(share)) if share else None
        pinned = cores.of_worker(0) if cores else ()
        yield Running(await stack.enter_async_context(bench_worker(site, pinned, group=group)), proxy, rabbit, played)


Start = Callable[[int], AbstractAsyncContextManager[Running]]
"""Runs a worker for so many healthy clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paced:
    """Events for one client each, on a schedule: so many a second name one with a fault, and a healthy one.

    Healthy clients may be flaky, without and with the fault. `faulty_rate` is a multiple of `healthy_rate`.
    """

    fault: Kind
    faulty_rate: int
    healthy_rate: int = 50
    faulty: int = 3000
    healthy: int = 50
    is_flaky: bool = False
    seconds: float = 40.0

    @property
    def clients(self) -> int:
        """The faulty ones come first."""
        return self.faulty + self.healthy

    def events(self) -> list[Event]:
        """Events in the order in which they are due, evenly spread over all clients of a kind."""
        every = self.faulty_rate // self.healthy_rate + 1
        made = []
        for number in range(round(self.seconds * (self.faulty_rate + self.healthy_rate))):
            healthy, position = divmod(number, every)
            faulty = (number - healthy - 1) % self.faulty
            made.append(Event(number, (faulty if position else self.faulty + healthy % self.healthy,)))
        return made

    async def turn(self, start: Start, *, faulty: bool) -> Turn:
        """Measure the healthy clients' deliveries."""
        healthy, rate = range(self.faulty, self.clients), self.faulty_rate + self.healthy_rate
        events = self.events()
        async with start(self.clients) as it:
            await it.played.play(range(self.faulty), Behaviour(kind=self.fault if faulty else Kind.ANSWER))
            await it.played.play(healthy, Behaviour(kind=Kind.FLAKY if self.is_flaky else Kind.ANSWER))
            watch, began = Watch(it.worker), time.monotonic() + HEAD_START
            await publish_on_schedule(it.rabbit, events, rate, began)
            processor = watch.read()
            found = await it.arrived(events, healthy)
            retries = _retries(it.worker.log)
        due = {event.number: began + number / rate for number, event in enumerate(events)}
        fresh = found.waits(found.expected - found.refused, due)
        repeated = found.waits(found.refused, {**due, **retries})
        ratio = figures.percentile(repeated, 0.9) / figures.percentile(fresh, 0.9)
        values = {"fresh p99": figures.percentile(fresh, 0.99), "retries' p90 ÷ fresh p90": ratio}
        return Turn(values=values, account=found.account, processor=processor)


def _retries(log: str) -> Mapping[int, float]:
    """Return when the first retry of each event could arrive at the earliest (monotonic), by the log of the attempts.

    A delay queue holds it for the whole seconds of its backoff.
    """
    found: dict[int, float] = {}
    offset = time.time() - time.monotonic()
    for line in map(json.loads, log.splitlines()):
        if line["event"] == "attempt" and line["next_due"]:
            failed_at, due = (datetime.fromisoformat(line[name]).timestamp() for name in ("time", "next_due"))
            number = int(line["event_id"].rpartition("-")[2])
            found.setdefault(number, failed_at + max(1, int(due - failed_at)) - offset)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """A client recovers with parked deliveries. The fault: a client in its bucket has a backlog and stays down, or the
    round trip to the broker in seconds.
    """

    parked: int
    backlog: int = 0
    round_trip: float = 0.0
    down_seconds: float = 20.0

    @property
    def clients(self) -> int:
        """As many as it takes until the last is in the bucket of the first."""
        buckets = [bucket_number((ISSUER, name(number)), BUCKETS) for number in range(100 * BUCKETS)]
        return buckets.index(buckets[0], 1) + 1

    async def turn(self, start: Start, *, faulty: bool) -> Turn:
        """Measure the first client's deliveries. Their rate is from the first to the last tenth of them."""
        events = [Event(number, (0,)) for number in range(self.parked)]
        clients, backlog = self.clients, self.backlog if faulty else 0
        async with start(clients) as it:
            await it.park([Event(self.parked + number, (clients - 1,)) for number in range(backlog)])
            await it.park(events)
            await asyncio.sleep(self.down_seconds)
            it.proxy.delay_seconds = self.round_trip / 2 if faulty else 0.0
            watch = Watch(it.worker)
            await it.played.play([0], Behaviour())
            found = await it.arrived(events, [0])
            processor = watch.read()
        waits = found.waits(found.expected, dict.fromkeys(range(self.parked), watch.at))
        seconds = figures.percentile(waits, 0.9) - figures.percentile(waits, 0.1)
        values = {"last delivery after": max(waits), "deliveries": 0.8 * len(waits) / (seconds or math.nan)}
        return Turn(values=values, account=found.account, processor=processor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """All connections to the broker are cut once. The fault is the round trip in seconds."""

    round_trip: float = 0.2
    clients: int = 1

    async def turn(self, start: Start, *, faulty: bool) -> Turn:
        """Measure the time until the worker has new connections and is ready; then it delivers."""
        events = [Event(number, (0,)) for number in range(20)]
        async with start(self.clients) as it:
            it.proxy.delay_seconds = self.round_trip / 2 if faulty else 0.0
            wanted, watch = it.proxy.made + CONNECTIONS, Watch(it.worker)
            it.proxy.end(Ending.CUT)

            async def is_back() -> bool:
                return it.proxy.made >= wanted and await it.worker.ready()

            await until(is_back, bool, PATIENCE)
            seconds, processor = time.monotonic() - watch.at, watch.read()
            await publish_all(it.rabbit, events)
            found = await it.arrived(events, [0])
        return Turn(values={"ready again after": seconds}, account=found.account, processor=processor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """One case. Of a core the worker gets the share `quota` (0: all of it), and must have had `least_share`."""

    load: Paced | Recovery | Cut
    limits: Sequence[Limit]
    quota: float = 0.0
    least_share: float = 0.0


FRESH: Final = Limit(figure="fresh p99", bound=1, unit=" s")
LIMITED: Final[Mapping[str, Limited]] = MappingProxyType(
    {
        "hanging-200": Limited(load=Paced(fault=Kind.HANG, faulty_rate=200), limits=[FRESH]),
        "hanging-300": Limited(load=Paced(fault=Kind.HANG, faulty_rate=300), limits=[FRESH], least_share=0.5),
        "neighbour": Limited(
            load=Recovery(parked=20, backlog=30_000),
            limits=[Limit(figure="last delivery after", bound=15, unit=" s")],
        ),
        "broker-100ms": Limited(
            load=Recovery(parked=600, round_trip=0.1),
            limits=[Limit(figure="deliveries", bound=500, unit=" a second", is_least=True)],
        ),
        "cut-200ms": Limited(load=Cut(), limits=[Limit(figure="ready again after", bound=5, unit=" s")]),
        "quarter-core": Limited(
            load=Paced(fault=Kind.REFUSE, faulty_rate=300, healthy=20, is_flaky=True), quota=0.25, least_share=0.25,
            limits=[Limit(figure="retries' p90 ÷ fresh p90", bound=3), Limit(figure="fresh p99", bound=2, unit=" s")],
        ),
    }
)  # fmt: skip


async def run_limited(case: str, limited: Limited, url: str, cores: Cores | None) -> Report:
    """Measure one case: without the fault, then with it."""
    turns = None
    if not limited.quota or quota.available():
        async with receivers() as played:
            await played.open(limited.load.clients)
            start = partial(run, url, played, cores, limited.quota)
            turns = await limited.load.turn(start, faulty=False), await limited.load.turn(start, faulty=True)
    return Report(case=case, limits=limited.limits, least_share=limited.least_share, turns=turns)
