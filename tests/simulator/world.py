"""Clients, a broker and workers in one virtual time. The workers are the product's, down to their documents."""

import asyncio
import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from notifier.configuration.clients.registry_checks import record_losses
from notifier.delivery.facts import (
    ClientFailing,
    ClientRecovered,
    ClientServed,
    DeadLettered,
    Deferred,
    EventTaken,
    Fact,
    LogoutDelivered,
    RetryScheduled,
    Skipped,
)
from notifier.delivery.ports import ClientReport, Tools
from notifier.messages.message_planner import MessagePlanner
from notifier.messages.worker import Limits, Worker
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.errors import InternalFault
from notifier.model.message import Lane, Message
from notifier.model.outcome import HttpResponse, Outcome, TransportFailure, TransportResult, to_outcome
from notifier.model.registry import Issuer, Registry
from notifier.model.request import PreparedRequest, Request
from notifier.operators.status.worker_presence import WorkerPresence
from notifier.queues.rabbitmq.delays import Forwarder
from notifier.queues.rabbitmq.side_channel import SHARE_INTERVAL_SECONDS
from notifier.service.peer_reports import PeerReports
from tests.simulator.broker import BUCKETS, CONFIRM, HAND_OUT, Broker, Costs
from tests.simulator.clients import ISS, OK, SILENT, Behaviour, Step, well
from tests.simulator.virtual_time import VirtualLoop
from tests.support.no_pauses import NoPauses

EVENT = 10  # clients in an event, where there are many


def capacity(core: float) -> float:
    """Deliveries a second that a core of this speed makes."""
    costs = Costs().on(core)
    return 1 / (costs.take / EVENT + costs.post + costs.answer)


def further_seed(first: int, seed: int) -> int:
    """Return the seed of a further generator in the world of this seed: `first` in that of seed 1."""
    return first + 1000 * (seed - 1)


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which this share of them lies."""
    found = sorted(values)
    return found[min(len(found) - 1, int(share * len(found)))] if found else math.nan


class RepairReport(NamedTuple):
    """A client accepted a logout: when it was published, sent and answered."""

    born: float
    sent: float
    answered: float


@dataclass(slots=True)
class Tally:
    """The figures by client."""

    published: Counter[str] = field(default_factory=Counter)
    delivered: dict[str, list[RepairReport]] = field(default_factory=lambda: defaultdict(list))
    attempts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # when they began
    failed: Counter[str] = field(default_factory=Counter)  # the most failures of one delivery
    charged: Counter[str] = field(default_factory=Counter)  # the most of them that were charged to one delivery
    delivered_by: Counter[tuple[int, str, str]] = field(default_factory=Counter)  # by worker, event and client
    deferred: Counter[str] = field(default_factory=Counter)
    running: Counter[str] = field(default_factory=Counter)
    most_running: Counter[str] = field(default_factory=Counter)
    changes: list[ClientFailing | ClientRecovered | ClientServed] = field(default_factory=list)
    dead_letters: list[tuple[float, DeadLettered]] = field(default_factory=list)
    open: set[tuple[str, str]] = field(default_factory=set)  # deliveries without a fate, by event and client
    waiting: set[tuple[str, str]] = field(default_factory=set)  # deliveries that were ever deferred
    skipped: Counter[str] = field(default_factory=Counter)  # by workers that could not know better

    @property
    def left(self) -> int:
        """How many deliveries have no fate."""
        return len(self.open)

    def left_of(self, name: str) -> int:
        """How many of a client's deliveries have no fate."""
        return sum(each == name for _, each in self.open)

    def rests_of(self, name: str) -> int:
        """How often a client went down."""
        return sum(isinstance(change, ClientFailing) and change.client_id == name for change in self.changes)

    @property
    def delivered_twice(self) -> int:
        """Count repeated notifications of one client by the same worker."""
        return sum(times - 1 for times in self.delivered_by.values())


class Process:
    """A worker as it runs, with its ways out. Once it is killed, nothing of it reaches anybody."""

    def __init__(self, world: "World", number: int) -> None:
        self._world = world
        self.number = number
        self.clock_ahead = world.clock_ahead
        self.consumer = world.broker.connect(self.clock)
        self.others = PeerReports(self.count, monotonic=lambda: world.now)
        self.presence = WorkerPresence(f"vm:{number}", f"id-{number}", lambda: world.now, lambda: world.now)
        self._telling = False
        self.registry = self.began_with = world.registered
        self.worker = world.make_worker(self)
        self.running: asyncio.Task[None] | None = None
        self.announcing: asyncio.Task[None] | None = None
        self.leaving: asyncio.Task[None] | None = None
        self.stops = False

    def clock(self) -> float:
        """Return the time by the wall clock of its machine."""
        return self._world.now + self.clock_ahead

    def count(self) -> int:
        """Return the number of workers. Satisfies the port `Peers`, as does `report`."""
        return self.presence.count if self._world.announces else self._world.size

    async def announce(self) -> None:
        """Announce it to all, as long as it runs."""
        while not self.consumer.cut:
            self._world.announce(await self.presence.next_announcement())

    def report(self, news: ClientReport) -> None:
        """Tell it at once, or when it is the next turn."""
        self.others.report(news)
        if not self._telling and self._world.size > 1:
            self._telling = True
            self._world.at(self._world.now, self._tell_others)

    def _tell_others(self) -> None:
        document = self.others.take_document()
        self._telling = document is not None
        if document is not None:
            self._world.pass_on(document, self)
            self._world.at(self._world.now + SHARE_INTERVAL_SECONDS, self._tell_others)

    async def post(self, request: Request) -> TransportResult:
        """Satisfies the port `Transport`. A killed one never learns the answer."""
        if self.consumer.cut:
            await asyncio.Future()
        wire = await self._world.answer(request, self.number)
        if self.consumer.cut:
            await asyncio.Future()
        return wire

    def observe(self, fact: Fact) -> None:
        """Take a fact down."""
        if not self.consumer.cut:
            self._world.observe(fact, self)

    def reload(self) -> None:
        """Take the clients as they are registered now, as `LiveConfiguration` does."""
        self.registry, _ = record_losses(self.registry, self._world.registered, self._world.now)

    def may_skip(self, name: str) -> bool:
        """Whether it cannot know that the client had an address: it has none, and had none when the worker began."""
        return not any(self._world.reaches(registry, name) for registry in (self.registry, self.began_with))

    async def run(self) -> None:
        """Run the worker to its end. What it still held goes back."""
        await self.worker.run()
        if not self.consumer.cut:
            self._world.broker.disconnect(self.consumer)

    def stop(self, *, kill: bool) -> None:
        """Begin the drain; or be gone at once."""
        self.stops = True
        if kill:
            self._world.broker.disconnect(self.consumer)
        elif self._world.announces:
            self.leaving = asyncio.get_running_loop().create_task(self.presence.leave())
        self._world.broker.stop_consuming(self.consumer)
        self.worker.stop()


class World:
    """Fill it with `publish` and `stream`, then `run`. Use it as a context: its tasks end with it.

    `core` is the speed of the core that a worker has: 1 as measured, 0.5 takes twice as long for everything. The broker
    confirms after `confirm` seconds. With `again` each event is published once more within as many seconds; `copies`
    times, if more. With `announces` the workers count each other by their announcements; otherwise they know their
    number. All that is random follows from `seed`.
    """

    def __init__(
        self,
        clients: Iterable[Client],
        behaviours: Mapping[str, Behaviour] | None = None,
        *,
        workers: int = 1,
        core: float = 1.0,
        buckets: int = BUCKETS,
        confirm: float = CONFIRM,
        again: float | None = None,
        copies: int = 1,
        announces: bool = False,
        seed: int = 1,
    ) -> None:
        self._loop = VirtualLoop()
        self._costs = Costs().on(core * workers)  # one core for all: each has its share of the time
        self.broker = Broker(self._loop, self._costs, buckets=buckets, confirm=confirm)
        self.tally = Tally()
        self._again = () if again is None else (again,) * copies
        self._seed = seed
        self._chance = random.Random(seed)
        self._behaviours = behaviours or {}
        self._born: dict[str, float] = {}
        self._ids = itertools.count()
        self.registered = Registry(
            issuers={ISS: Issuer(iss=ISS)}, clients={ISS: {client.client_id: client for client in clients}}
        )
        self.brought: set[str] = set()  # clients of whom the registry knows no address, and their events do
        self.size = workers
        self.announces = announces
        self.clock_ahead = 0.0  # seconds by which the wall clocks of workers that begin from now on are ahead
        self._numbers = itertools.count()
        self._processes = [Process(self, next(self._numbers)) for _ in range(workers)]
        self._draining: list[Process] = []

    def make_worker(self, process: Process) -> Worker:
        """Build the worker of a process."""
        clock, monotonic, consumer = process.clock, self._loop.time, process.consumer
        tools = Tools(
            channels=dict.fromkeys(("back_channel", "front_channel"), self),
            transport=process,
            clock=clock,
            monotonic=monotonic,
            jitter=self._chance.random,
            observe=process.observe,
            pauses=NoPauses(),
        )
        worker = Worker(
            MessagePlanner(
                lambda: process.registry,
                clock=clock,
                monotonic=monotonic,
                new_id=lambda: f"made-up-{next(self._ids)}",
                max_event=128 * 1024,
            ),
            tools,
            lambda: process.registry,
            consumer,
            Limits(),
            process,
        )
        consumer.inbox = Forwarder(worker, consumer.publish, consumer.wait_until_available, consumer.ack, clock)
        return worker

    def pass_on(self, document: bytes, speaker: Process) -> None:
        """Pass a worker's report on to the others after a short delay, as the workers' exchange does."""
        for other in (*self._processes, *self._draining):
            if other is not speaker and not (speaker.consumer.cut or other.consumer.cut):
                self._loop.call_later(HAND_OUT, other.others.read, document, other.worker.scheduler.on_peer_report)

    def announce(self, document: bytes) -> None:
        """Pass a worker's announcement on to all workers."""
        for process in (*self._processes, *self._draining):
            if not process.consumer.cut:
                self._loop.call_later(HAND_OUT, process.presence.on_announcement, document)

    # ── what happens ──

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self._loop.now

    @property
    def busy(self) -> float:
        """Seconds for which the core worked."""
        return self._loop.busy

    def at(self, moment: float, what: Callable[..., object], *args: object) -> None:
        """Let it happen then."""
        self._loop.call_at(moment, what, *args)

    def reload(self, registered: Registry, lag: float = 0.0) -> None:
        """Have the workers reload, one `lag` seconds after the other. One that begins from now on knows this alone."""
        self.registered = registered
        for number, process in enumerate((*self._processes, *self._draining)):
            self.at(self.now + number * lag, process.reload)

    def reaches(self, registry: Registry, name: str) -> bool:
        """Whether there is an address for the client by this registry."""
        return registry.has_address(ISS, name) or (name in self.brought and registry.inline == "allow")

    def born(self, event_id: str) -> float:
        """Return when this event was published."""
        return self._born[event_id]

    def publish(self, names: Iterable[str], born: float | None = None, *, star: bool = False) -> None:
        """An event for these clients, now; `star`: for `"*"`. A busy core reads it later than it was `born`."""
        listed = list(names)
        number = f"e{next(self._ids)}"
        self._born[number] = self.now if born is None else born
        self.tally.open.update((number, name) for name in listed)
        self.tally.published.update(listed)
        entries = ",".join(map(self._entry, listed))
        clients = '"*"' if star else f"[{entries}]"
        body = f'{{"iss":"{ISS}","id":"{number}","sub":"alice","sid":"s","clients":{clients}}}'
        message = Message(lane=Lane.EVENTS, body=body.encode(), tag=None)
        self.broker.offer(message)
        for within in self._again:
            self.at(self.now + within * self._chance.random(), self.broker.offer, message)

    def _entry(self, name: str) -> str:
        if name not in self.brought:
            return f'"{name}"'
        return f'{{"client_id":"{name}","backchannel_logout_uri":"https://{name}.example/"}}'

    def restart(self, number: int, *, kill: bool = False) -> None:
        """Replace a worker, as in a rolling update: the new one runs when the old one stops.

        With `kill` the old one ends at once, without a drain.
        """
        old = self._processes[number]
        self._processes[number] = new = Process(self, next(self._numbers))
        self._draining.append(old)
        self._start(new)
        old.stop(kill=kill)

    def add_worker(self) -> None:
        """Start another worker."""
        self._processes.append(process := Process(self, next(self._numbers)))
        self._start(process)

    def _start(self, process: Process) -> None:
        process.registry = process.began_with = self.registered
        process.running = self._loop.create_task(process.run())
        if self.announces:
            process.announcing = self._loop.create_task(process.announce())

    def stream(
        self,
        rate: float,
        until: float,
        pick: Callable[[random.Random], Iterable[str]],
        *,
        evenly: bool = False,
        seed: int | None = None,
    ) -> None:
        """Events at random moments, or evenly, `rate` a second."""
        chance = random.Random(further_seed(7, self._seed) if seed is None else seed)

        def arrive(moment: float) -> None:
            self.publish(pick(chance), moment)
            follow(moment)

        def follow(moment: float) -> None:
            following = moment + (1 / rate if evenly else chance.expovariate(rate))
            if following < until:
                self.at(following, arrive, following)

        follow(self.now)

    def run(self, until: float) -> Tally:
        """Let time pass up to that moment."""
        for process in self._processes:
            if process.running is None:
                self._start(process)
        self._loop.run_until_complete(asyncio.sleep(until - self.now))
        for process in (*self._processes, *self._draining):
            assert process.running is not None
            if process.running.done():
                assert process.stops, process.running
                process.running.result()
        self._draining = [process for process in self._draining if process.running and not process.running.done()]
        return self.tally

    def run_until_done(self, until: float) -> Tally:
        """Let time pass until every delivery has its fate, in steps of a second."""
        while self.tally.left and self.now < until:
            self.run(min(until, self.now + 1.0))
        return self.tally

    def __enter__(self) -> Self:
        random.seed(self._seed)  # the product draws the times of its audit
        return self

    def __exit__(self, *_exc: object) -> None:
        while tasks := asyncio.all_tasks(self._loop):  # the end of an attempt may begin another
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    # ── the workers' ports ──

    async def answer(self, request: Request, worker: int) -> TransportResult:
        """The client behaves as it does."""
        self._loop.spend(self._costs.post)
        name, tally, began = request.uri[8:-9], self.tally, self._loop.now
        seconds, wire = self.behave(name, request.secret)
        if seconds >= request.timeout:
            seconds, wire = request.timeout, SILENT
        tally.attempts[name].append(began)
        tally.running[name] += 1
        tally.most_running[name] = max(tally.most_running[name], tally.running[name])
        try:
            await asyncio.sleep(seconds)
        finally:
            tally.running[name] -= 1
        if wire is OK:
            tally.delivered[name].append(RepairReport(self._born[request.secret], began, self._loop.now))
            tally.delivered_by[worker, request.secret, name] += 1
        self._loop.spend(self._costs.answer)
        return wire

    def behave(self, name: str, _event_id: str) -> Step:
        """Return what a client does with a request now."""
        return self._behaviours.get(name, well)(self._loop.now, self._chance)

    def uri(self, client: Client) -> str:
        """The client's address. Satisfies the port `Channel`, as do the methods up to `internal_fault`."""
        assert client.backchannel_logout_uri is not None
        return client.backchannel_logout_uri

    async def prepare(self, delivery: Delivery, _client: Client) -> PreparedRequest:
        """The token is the event's id."""
        return PreparedRequest(jti=delivery.id, body=b"", secret=delivery.event_id)

    def read(self, answer: HttpResponse | TransportFailure, client: Client) -> Outcome:
        """As the product reads it."""
        return to_outcome(answer, client.response, self._loop.now)

    def internal_fault(self, _outcome: Outcome, _client: Client) -> InternalFault | None:
        """Nothing is our fault here."""
        return None

    def observe(self, fact: Fact, process: Process) -> None:
        """Record a fact that a worker reports."""
        tally = self.tally
        match fact:
            case Skipped(event_id=event_id, client_id=name):
                self._skip(event_id, {name}, process)
            case EventTaken(result="split", event_id=event_id):
                self._skip(event_id, {name for number, name in tally.open if number == event_id}, process)
            case RetryScheduled(delivery=delivery):
                tally.waiting.add((delivery.event_id, delivery.client_id))
            case LogoutDelivered(delivery=delivery):
                name = delivery.client_id
                tally.open.discard((delivery.event_id, name))
                tally.failed[name] = max(tally.failed[name], delivery.progress.attempts)
                tally.charged[name] = max(tally.charged[name], delivery.progress.backoffs)
            case DeadLettered():
                tally.open.discard((fact.event_id, fact.client_id or ""))
                tally.dead_letters.append((self.now, fact))
            case Deferred():
                tally.deferred[fact.client_id] += 1
                tally.waiting.add((fact.event_id, fact.client_id))
            case ClientFailing() | ClientRecovered() | ClientServed():
                tally.changes.append(fact)
            case _:
                pass

    def _skip(self, event_id: str, names: Iterable[str], process: Process) -> None:
        """Take clients that a worker skipped for done, if it began without an address of them and nothing waits."""
        for name in names:
            if process.may_skip(name) and (event_id, name) not in self.tally.waiting:
                self.tally.open.discard((event_id, name))
                self.tally.skipped[name] += 1
