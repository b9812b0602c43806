"""Measures what healthy clients feel of others that are in trouble."""

import math
import random
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import cycle
from typing import Any

from notifier.delivery.facts import Fact, RetryScheduled
from tests.simulator.clients import (
    OK,
    UNAVAILABLE,
    Behaviour,
    Step,
    between,
    client,
    hangs,
    names,
    refuses,
    steady,
    well,
)
from tests.simulator.world import EVENT, Process, Tally, World, capacity, further_seed, quantile

LAST = 0.1  # seconds


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """So many clients, the first `ill` of which behave so. Events for ten of them come at `load` of the capacity.

    With `events`, so many wait at the start instead, and no others come.
    """

    clients: int
    ill: int
    behaviour: Behaviour
    seconds: float
    since: float = 0.0
    events: int = 0
    load: float = 0.5
    workers: int = 1
    core: float = 1.0
    seed: int = 1
    usual: float = 0.0  # seconds of the run without the fault, if more: cases that differ in this share it


@dataclass(frozen=True, kw_only=True)
class Felt:
    """The healthy clients' figures: deliveries as (born, sent), the deferred ones, and the core's busy share."""

    sent: list[tuple[float, float]]
    deferred: int
    busy: float


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """Healthy clients' figures with the fault, divided by those without it. Times up, rates down are bad."""

    p99: float
    first: float  # of the first second
    seconds: float  # p99 with the fault
    done: float
    deferred: int
    busy: float
    rate: float = 1.0
    half: float = 1.0  # requests within half a second


def isolation(how: Crowd) -> Isolation:
    """Compare the healthy ones with and without the fault."""
    quiet = replace(how, ill=0, behaviour=well, since=0.0, seconds=max(how.seconds, how.usual), usual=0.0)
    usual, felt = _felt(how, *_usual(quiet)), _felt(how, *_run(how))
    if how.events:
        return Isolation(
            p99=math.nan, seconds=math.nan,
            half=_by(felt, 0.5) / _by(usual, 0.5), first=_by(felt, 1.0) / _by(usual, 1.0),
            rate=_end(usual) / _end(felt), done=len(felt.sent) / len(usual.sent), deferred=felt.deferred,
            busy=felt.busy,
        )  # fmt: skip
    whole, first = how.since, how.since + 1.0
    p99 = [quantile((sent - born for born, sent in one.sent if born >= whole), 0.99) for one in (usual, felt)]
    early = [quantile((sent - born for born, sent in one.sent if whole <= born < first), 0.99) for one in (usual, felt)]
    return Isolation(
        p99=p99[1] / p99[0], first=early[1] / early[0], seconds=p99[1], done=len(felt.sent) / len(usual.sent),
        deferred=felt.deferred,
            busy=felt.busy,
    )  # fmt: skip


def _by(felt: Felt, moment: float) -> int:
    return sum(sent <= moment for _, sent in felt.sent)


def _end(felt: Felt) -> float:
    return quantile((sent for _, sent in felt.sent), 0.99)


@lru_cache(maxsize=4)
def _usual(how: Crowd) -> tuple[Tally, float]:
    """The same without the fault, made once for all cases that compare with it."""
    return _run(how)


def _run(how: Crowd) -> tuple[Tally, float]:
    """The figures, and the seconds for which the core was busy."""
    everyone = names(how.clients)
    behaviours = dict.fromkeys(everyone[: how.ill], how.behaviour)
    with World(map(client, everyone), behaviours, workers=how.workers, core=how.core, seed=how.seed) as world:
        chance = random.Random(further_seed(3, how.seed))
        for _ in range(how.events):
            world.publish(chance.sample(everyone, EVENT))
        if not how.events:
            rate = how.load * capacity(how.core) * how.workers / EVENT
            world.stream(rate, how.seconds, lambda chance: chance.sample(everyone, EVENT))
        return world.run(how.seconds), world.busy


def _felt(how: Crowd, tally: Tally, busy: float) -> Felt:
    """Return the figures of the healthy clients of this crowd."""
    healthy = names(how.clients)[how.ill :]
    until = how.seconds - LAST  # the last events may be in flight, with or without the fault
    delivered = [
        one for name in healthy for one in tally.delivered[name] if one.born <= until and one.answered <= how.seconds
    ]
    sent = [(one.born, one.sent) for one in delivered]
    return Felt(sent=sent, deferred=sum(tally.deferred[name] for name in healthy), busy=busy / how.seconds)


@dataclass(frozen=True, kw_only=True)
class Held:
    """How late healthy clients are notified while others hang, in seconds: the last 1 %, and the last of all.

    `back`: from the recovery of a client until its last parked delivery.
    """

    p99: float
    longest: float
    back: float


def beside_hanging(
    rate: float, *, clients: int = 3000, timeout: float = 5.0, seconds: float = 20.0, workers: int = 1
) -> Held:
    """So many events a second name one of `clients` that hang, and 50 a second one of 50 healthy clients.

    Another client, with 40 parked deliveries, recovers after half of the time. Nothing is random but jitter.
    """
    hanging, healthy, recovery = names(clients), [f"h{number}" for number in range(50)], seconds / 2
    behaviours: dict[str, Behaviour] = dict.fromkeys(hanging, hangs) | dict.fromkeys(healthy, steady(0.005))
    behaviours["back"] = between(0, recovery, refuses, steady(0.005))
    known = [*(client(name, timeout=timeout) for name in hanging), *map(client, healthy), client("back")]
    with World(known, behaviours, workers=workers) as world:
        for number in range(40):
            world.at(0.1 + 0.1 * number, world.publish, ["back"])
        turns = iter(hanging * 10), iter(healthy * 1000)
        world.stream(rate, seconds, lambda _chance: [next(turns[0])], evenly=True)
        world.stream(50, seconds, lambda _chance: [next(turns[1])], evenly=True)
        tally = world.run(seconds + 10)
        late = [one.answered - one.born for name in healthy for one in tally.delivered[name]]
        late += [math.inf] * sum(tally.left_of(name) for name in healthy)
        back = max((one.answered - recovery for one in tally.delivered["back"]), default=math.inf)
        return Held(p99=quantile(late, 0.99), longest=max(late), back=math.inf if tally.left_of("back") else back)


class FlakyWorld(World):
    """Each fourth delivery of a client named h… fails once. By event: when that was (`failed`), when its delay queue
    returned it (`retried`), and when each delivery was last `sent`.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.seen: dict[str, set[str]] = defaultdict(set)
        self.failed: dict[str, float] = {}
        self.retried: dict[str, float] = {}
        self.sent: dict[str, float] = {}

    def behave(self, name: str, event_id: str) -> Step:
        """Answer in 2 ms."""
        if not name.startswith("h"):
            return super().behave(name, event_id)
        self.sent[event_id] = self.now
        is_first = event_id not in self.seen[name]
        self.seen[name].add(event_id)
        if is_first and len(self.seen[name]) % 4 == 0:
            self.failed[event_id] = self.now
            return 0.002, UNAVAILABLE
        return 0.002, OK

    def observe(self, fact: Fact, process: Process) -> None:
        """Note when a retry leaves its delay queue."""
        if isinstance(fact, RetryScheduled) and (failed_at := self.failed.get(fact.delivery.event_id)) is not None:
            self.retried[fact.delivery.event_id] = failed_at + max(1, int(fact.due - failed_at))
        super().observe(fact, process)


@dataclass(frozen=True, kw_only=True)
class Beside:
    """How late fresh events of healthy clients are, their retries, and the first events of others, in seconds."""

    fresh_p90: float
    fresh_p99: float
    retries_p90: float
    untried_longest: float


def beside_down(rate: int, *, clients: int, core: float, seconds: float, healthy_rate: int = 50) -> Beside:
    """So many events a second name one of `clients` that are down, others one of 20 flaky clients.

    The first event for another client that is well comes each second.
    """
    down, flaky = names(clients), [f"h{number}" for number in range(20)]
    new = [f"n{number}" for number in range(int(seconds))]
    with FlakyWorld(map(client, [*down, *flaky, *new]), dict.fromkeys(down, refuses), core=core) as world:
        for per_second, among in ((rate, cycle(down)), (healthy_rate, cycle(flaky)), (1, cycle(new))):
            for number in range(1, round(seconds * per_second)):  # not as a stream, which a busy core slows down
                world.at(number / per_second, world.publish, [next(among)], number / per_second)
        tally = world.run(seconds + 20)
        assert not any(map(tally.left_of, flaky))
        born = {event_id: world.born(event_id) for name in flaky for event_id in world.seen[name]}
        fresh = [world.sent[event_id] - at for event_id, at in born.items() if event_id not in world.failed]
        retries = [world.sent[event_id] - at for event_id, at in world.retried.items()]
        untried = [one.sent - one.born for name in new for one in tally.delivered[name]]
        untried += [math.inf] * sum(map(tally.left_of, new))
    return Beside(
        fresh_p90=quantile(fresh, 0.9), fresh_p99=quantile(fresh, 0.99), retries_p90=quantile(retries, 0.9),
        untried_longest=max(untried),
    )  # fmt: skip
