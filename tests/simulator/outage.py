"""Measures what an outage of one client leads to, and what it costs to let many deliveries wait."""

import math
import random
from collections import Counter
from dataclasses import dataclass

from tests.simulator.broker import Costs
from tests.simulator.clients import (
    UNAVAILABLE,
    Behaviour,
    LimitedRate,
    answers_503,
    between,
    client,
    hangs,
    names,
    wakes,
    well,
)
from tests.simulator.world import EVENT, RepairReport, World, capacity, further_seed

BEGIN = 5.0  # seconds that a client is well before its outage


@dataclass(frozen=True, kw_only=True)
class Outage:
    """A client is well, then down for `seconds`, then well (`good`), or awake ever more within `slowly` seconds.

    Meanwhile `rate` deliveries a second come, or `waiting` in all, evenly within `within` seconds; afterwards `after` a
    second, for the `watched` seconds.
    """

    seconds: float
    bad: Behaviour
    good: Behaviour = well
    rate: float = 10.0
    waiting: int | None = None
    within: float = math.inf
    after: float = 2.0
    watched: float = 150.0
    slowly: float = 0.0
    beside: float = 0.0
    workers: int = 1
    core: float = 1.0
    timeout: float = 5.0
    seed: int = 1

    @property
    def count(self) -> int:
        """How many are published during the outage."""
        return round(self.rate * self.seconds) if self.waiting is None else self.waiting

    @property
    def allowed(self) -> float:
        """Return the seconds after the recovery by which pending deliveries must start."""
        return min(0.5 * self.seconds + 3.0, 120.0) + (self.timeout if self.bad is hangs else 0.0)


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """The result of an outage: seconds after the recovery, and for events published after it."""

    noticed: float  # the first success
    start: float  # the longest gap without a delivery, while any waited
    lag: float  # until all that had waited was delivered
    fresh: float  # the latest of those published after the first success
    later: float  # the latest of those published 5 s after the recovery
    probes: int
    most_a_second: int
    failed: int  # failed attempts at one delivery
    charged: int  # of these, to its own backoff
    left: int


def outage(how: Outage) -> Recovery:
    """Have a client go down and recover."""
    end = BEGIN + how.seconds
    back = wakes(end, how.slowly) if how.slowly else how.good
    others = names(20)
    with World(
        [client("x", timeout=how.timeout), *map(client, others)],
        {"x": lambda now, chance: (well if now < BEGIN else how.bad if now < end else back)(now, chance)},
        workers=how.workers, core=how.core, seed=how.seed,
    ) as world:  # fmt: skip
        world.stream(max(how.rate, 2.0), BEGIN, lambda _: ["x"])
        if how.beside:
            world.stream(how.beside * capacity(how.core) / EVENT, end + 60, lambda chance: chance.sample(others, EVENT))
        for number in range(how.count):
            world.at(BEGIN + (number + 0.02) * min(how.seconds, how.within) / how.count, world.publish, ["x"])
        world.run(end)
        if how.after:
            world.stream(how.after, end + how.watched, lambda _: ["x"], seed=further_seed(11, how.seed))
        world.run(end + how.watched)
        tally = world.run_until_done(end + 400)
    return _recovery(
        how, end, tally.delivered["x"], tally.attempts["x"], tally.failed["x"], tally.charged["x"], tally.left
    )


def _recovery(
    how: Outage, end: float, delivered: list[RepairReport], attempts: list[float], failed: int, charged: int, left: int
) -> Recovery:
    answered = sorted(one.answered for one in delivered if one.answered >= end)
    noticed = answered[0] if answered else math.inf
    waited = sorted(one.answered for one in delivered if one.born < end <= one.answered)
    rested = BEGIN + 2 * how.timeout + 1  # by then it rests, whatever its credit was
    probes = [began for began in attempts if rested < began < end]
    return Recovery(
        noticed=noticed - end,
        start=(waited[0] - end) if waited else 0.0,
        lag=math.inf if left else (waited[-1] - end if waited else 0.0),
        fresh=max((one.answered - one.born for one in delivered if one.born >= noticed + 0.1), default=0.0),
        later=max((one.answered - one.born for one in delivered if one.born >= end + 5), default=0.0),
        probes=len(probes),
        most_a_second=max(Counter(int(began) for began in probes).values(), default=0),
        failed=failed,
        charged=charged,
        left=left,
    )


def restart(workers: int, seed: int) -> tuple[float, float]:
    """A client accepts 8 of 20 a second for 30 s, is down for 45 s, and then accepts all.

    Returns the seconds until the first and until the last pending delivery arrived.
    """
    small, begin, end = LimitedRate(8, UNAVAILABLE), 30.0, 75.0
    with World(
        [client("x")],
        {"x": lambda now, chance: (small if now < begin else answers_503 if now < end else well)(now, chance)},
        workers=workers, seed=seed,
    ) as world:  # fmt: skip
        world.stream(20.0, end, lambda _: ["x"])
        world.run(end)
        tally = world.run_until_done(end + 400)
    answered = [one.answered - end for one in tally.delivered["x"] if one.answered >= end]
    return min(answered), math.inf if tally.left else max(answered)


@dataclass(frozen=True, kw_only=True)
class Waited:
    """What it cost to let deliveries wait for clients that are down: shares of a core, for passes alone."""

    busiest: float  # minute, after all had come
    arrival: float  # the minute in which they came
    passes: float  # for each delivery
    attempts: float  # at each client


def wait(
    clients: int, each: int, behaviour: Behaviour, *, seconds: float = 120.0, until: float = 3600.0, seed: int = 1
) -> Waited:
    """So many for clients that are down come within `seconds`."""
    down = [f"d{number}" for number in range(clients)]
    with World(map(client, down), dict.fromkeys(down, between(BEGIN, math.inf, behaviour)), seed=seed) as world:
        chance = random.Random(further_seed(5, seed))
        for name in down * 2:
            world.at(0.5 + 4 * chance.random(), world.publish, [name])
        world.run(BEGIN)
        count = clients * each
        for number in range(count):
            world.at(BEGIN + number * seconds / count, world.publish, [down[number % clients]])
        tally = world.run(until)
        halves, half = world.broker.halves_in, Costs().write
        minutes = [
            sum(halves[at] for at in range(60 * minute, 60 * minute + 60)) * half / 60
            for minute in range(int(until // 60))
        ]
        attempts = sum(map(len, tally.attempts.values())) - 2 * clients
        came = int((BEGIN + seconds) // 60) + 1
        return Waited(
            busiest=max(minutes[came:]), arrival=max(minutes[:came]), passes=sum(halves.values()) / 2 / count,
            attempts=attempts / clients,
        )  # fmt: skip
