"""Measures how a client is served that half works, beside what an ideal sender would do."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from notifier.delivery.facts import ClientFailing
from notifier.model.client import RetryPolicy
from tests.simulator import ideal
from tests.simulator.clients import Behaviour, between, client, hangs
from tests.simulator.world import RepairReport, World, quantile

SETTLED = 16.0  # seconds after which the beginning is over


@dataclass(frozen=True, kw_only=True)
class Partly:
    """Deliveries at an even `rate` for `seconds`, and a `backlog` at the beginning, for a client that half works.

    `behaviour` makes a new one for each run. `beside` clients are dead meanwhile.
    """

    behaviour: Callable[[], Behaviour]
    rate: float = 0.0
    backlog: int = 0
    seconds: float = 60.0
    after: float = 60.0
    beside: int = 0
    workers: int = 1
    max_concurrent: int = 32
    timeout: float = 5.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class EffectiveClients:
    """The deliveries sent under load, those of them after the start, and the delays of all."""

    done: int
    settled: int
    p95: float
    last: float
    tries: float
    rests: int = 0


def served(how: Partly) -> EffectiveClients:
    """Have the product serve it."""
    dead = [f"dead{number}" for number in range(how.beside)]
    known = client("x", max_concurrent=how.max_concurrent, timeout=how.timeout, retry=how.retry)
    behaviours = {"x": how.behaviour()} | dict.fromkeys(dead, between(5, math.inf, hangs))
    with World([known, *map(client, dead)], behaviours, workers=how.workers, seed=how.seed) as world:
        begin = 0.0
        if dead:
            begin = 6.0
            world.stream(200, how.seconds, lambda chance: [chance.choice(dead)])
            world.stream(5, begin, lambda _: ["x"])
            world.run(begin)
        for _ in range(how.backlog):
            world.publish(["x"])
        if how.rate:
            world.stream(how.rate, how.seconds, lambda _: ["x"], evenly=True)
        tally = world.run(how.seconds)
        attempts = len(tally.attempts["x"])
        tally = world.run(how.seconds + how.after)
        rests = sum(isinstance(change, ClientFailing) and change.client_id == "x" for change in tally.changes)
        return _served(tally.delivered["x"], tally.published["x"], attempts, how.seconds, rests)


def ideally(how: Partly) -> EffectiveClients:
    """Have an ideal sender serve it."""
    known = client("x", max_concurrent=how.max_concurrent, timeout=how.timeout, retry=how.retry)
    births = [0.0] * how.backlog + [(number + 1) / how.rate for number in range(int(how.rate * how.seconds) - 1)]
    delivered = ideal.send(known, how.behaviour(), births, how.seconds + how.after, how.seed)
    return _served(delivered, len(births), 0, how.seconds, 0)


def _served(delivered: list[RepairReport], count: int, attempts: int, seconds: float, rests: int) -> EffectiveClients:
    in_time = [one for one in delivered if one.answered <= seconds]
    waits = [one.answered - one.born for one in delivered] + [math.inf] * (count - len(delivered))
    return EffectiveClients(
        done=len(in_time),
        settled=sum(one.answered >= SETTLED for one in in_time),
        p95=quantile(waits, 0.95),
        last=max(one.answered for one in delivered) - seconds if len(delivered) == count else math.inf,
        tries=attempts / max(1, len(in_time)),
        rests=rests,
    )
