"""Clients, a broker and workers in one virtual time. The workers are the product's, down to their documents."""

import asyncio
import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from notifier.adapters.queues.rabbitmq.delays import Forwarder
from notifier.domain.client import Client
from notifier.domain.delivery import Delivery
from notifier.domain.errors import OurFault
from notifier.domain.message import Lane, Message
from notifier.domain.outcome import Answer, Break, Outcome, Wire, read_wire
from notifier.domain.registry import Issuer, Registry
from notifier.pipeline.attempt import Tools
from notifier.pipeline.facts import (
    Buried,
    ClientFailing,
    ClientRecovered,
    ClientServed,
    Deferred,
    Fact,
    LogoutDelivered,
)
from notifier.pipeline.intake import Intake
from notifier.pipeline.known_client import News
from notifier.pipeline.ports import Push, Request
from notifier.pipeline.settlement import Settlement
from notifier.pipeline.worker import Limits, Worker
from tests.simulator.broker import BUCKETS, HAND_OUT, Broker, Consumer, Costs
from tests.simulator.clients import ISS, OK, SILENT, Behaviour, well
from tests.simulator.virtual_time import VirtualLoop

EVENT = 10  # clients in an event, where there are many


def capacity(core: float) -> float:
    """Deliveries a second that a core of this speed makes."""
    costs = Costs().on(core)
    return 1 / (costs.take / EVENT + costs.post + costs.answer)


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which this share of them lies."""
    found = sorted(values)
    return found[min(len(found) - 1, int(share * len(found)))] if found else math.nan


class Told(NamedTuple):
    """A client accepted a logout: when it was published, sent and answered."""

    born: float
    sent: float
    answered: float


@dataclass(slots=True)
class Tally:
    """What was seen, by client."""

    published: Counter[str] = field(default_factory=Counter)
    told: dict[str, list[Told]] = field(default_factory=lambda: defaultdict(list))
    attempts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # when they began
    failed: Counter[str] = field(default_factory=Counter)  # the most failures of one delivery
    charged: Counter[str] = field(default_factory=Counter)  # the most of them that were charged to one delivery
    put_off: Counter[str] = field(default_factory=Counter)
    running: Counter[str] = field(default_factory=Counter)
    most_running: Counter[str] = field(default_factory=Counter)
    changes: list[ClientFailing | ClientRecovered | ClientServed] = field(default_factory=list)
    buried: list[tuple[float, Buried]] = field(default_factory=list)
    left: int = 0  # deliveries without a fate


class World:
    """Fill it with `publish` and `stream`, then `run`. Use it as a context: its tasks end with it.

    `core` is the speed of the core that a worker has: 1 as measured, 0.5 takes twice as long for everything.
    """

    def __init__(
        self,
        clients: Iterable[Client],
        behaviours: Mapping[str, Behaviour] | None = None,
        *,
        workers: int = 1,
        core: float = 1.0,
        buckets: int = BUCKETS,
        seed: int = 1,
    ) -> None:
        self._loop = VirtualLoop()
        self._costs = Costs().on(core * workers)  # one core for all: each has its share of the time
        self.broker = Broker(self._loop, self._costs, workers=workers, buckets=buckets)
        self.tally = Tally()
        self._chance = random.Random(seed)
        self._behaviours = behaviours or {}
        self._born: dict[str, float] = {}
        self._ids = itertools.count()
        registry = Registry(
            issuers={ISS: Issuer(iss=ISS)}, clients={ISS: {client.client_id: client for client in clients}}
        )
        self._workers = [self._worker(consumer, registry, workers) for consumer in self.broker.consumers]
        self._running: list[asyncio.Task[None]] = []

    def _worker(self, consumer: Consumer, registry: Registry, workers: int) -> Worker:
        clock = self._loop.time
        tools = Tools(
            channel=self, transport=self, clock=clock, steady=clock, jitter=self._chance.random, observe=self._observe
        )
        worker = Worker(
            Intake(lambda: registry, clock=clock, new_id=lambda: f"made-up-{next(self._ids)}", max_event=128 * 1024),
            Settlement(consumer, consumer, clock=clock, observe=self._observe),
            tools,
            lambda: registry,
            consumer,
            consumer,
            Limits(),
            lambda: workers,
            tell=lambda news: self._tell(worker, news),
        )
        consumer.inbox = Forwarder(worker, consumer.publish, consumer.available, consumer.ack, clock)
        return worker

    def _tell(self, speaker: Worker, news: News) -> None:
        """The workers' exchange: what one says, the others hear soon."""
        for other in self._workers:
            if other is not speaker:
                self._loop.call_later(HAND_OUT, other.heard, news)

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

    def publish(self, names: Iterable[str], born: float | None = None) -> None:
        """An event for these clients, now. A busy core reads it later than it was `born`."""
        listed = list(names)
        number = f"e{next(self._ids)}"
        self._born[number] = self.now if born is None else born
        self.tally.left += len(listed)
        self.tally.published.update(listed)
        quoted = '","'.join(listed)
        body = f'{{"iss":"{ISS}","id":"{number}","sub":"alice","sid":"s","clients":["{quoted}"]}}'
        self.broker.offer(Message(lane=Lane.EVENTS, body=body.encode(), tag=None))

    def stream(
        self,
        rate: float,
        until: float,
        pick: Callable[[random.Random], Iterable[str]],
        *,
        evenly: bool = False,
        seed: int = 7,
    ) -> None:
        """Events at random moments, or evenly, `rate` a second."""
        chance = random.Random(seed)

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
        if not self._running:
            self._running = [self._loop.create_task(worker.run()) for worker in self._workers]
        self._loop.run_until_complete(asyncio.sleep(until - self.now))
        broken = [task for task in self._running if task.done()]
        assert not broken, broken
        return self.tally

    def run_until_done(self, until: float) -> Tally:
        """Let time pass until every delivery has its fate, in steps of a second."""
        while self.tally.left and self.now < until:
            self.run(min(until, self.now + 1.0))
        return self.tally

    def __enter__(self) -> Self:
        random.seed(1)  # the product draws the times of its audit
        return self

    def __exit__(self, *_exc: object) -> None:
        while tasks := asyncio.all_tasks(self._loop):  # the end of an attempt may begin another
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    # ── the workers' ports ──

    async def post(self, request: Request) -> Wire:
        """Satisfies the port `Transport`: the client behaves as it does."""
        self._loop.spend(self._costs.post)
        name, tally, began = request.uri[8:-9], self.tally, self._loop.now
        seconds, wire = self._behaviours.get(name, well)(began, self._chance)
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
            tally.told[name].append(Told(self._born[request.secret], began, self._loop.now))
        self._loop.spend(self._costs.answer)
        return wire

    def uri(self, client: Client) -> str:
        """Satisfies the port `Channel`, as do all that follow."""
        assert client.backchannel_logout_uri is not None
        return client.backchannel_logout_uri

    def names_session(self, _delivery: Delivery, _client: Client) -> bool:
        """A late logout ends no younger session here."""
        return True

    async def prepare(self, delivery: Delivery, _client: Client) -> Push:
        """The token is the event's id."""
        return Push(jti=delivery.id, body=b"", secret=delivery.event_id)

    def read(self, answer: Answer | Break, client: Client) -> Outcome:
        """As the product reads it."""
        return read_wire(answer, client.response, self._loop.now)

    def our_fault(self, _outcome: Outcome, _client: Client) -> OurFault | None:
        """Nothing is our fault here."""
        return None

    def _observe(self, fact: Fact) -> None:
        tally = self.tally
        match fact:
            case LogoutDelivered(delivery=delivery):
                name = delivery.client_id
                tally.left -= 1
                tally.failed[name] = max(tally.failed[name], delivery.attempts)
                tally.charged[name] = max(tally.charged[name], delivery.charged)
            case Buried():
                tally.left -= 1
                tally.buried.append((self.now, fact))
            case Deferred():
                tally.put_off[fact.client_id] += 1
            case ClientFailing() | ClientRecovered() | ClientServed():
                tally.changes.append(fact)
            case _:
                pass
