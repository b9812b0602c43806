"""Draws worlds at random and returns the promises that one breaks: outages, reloads, restarts, confirm times, copies.

`python -m tests.simulator.random_worlds SEED COUNT` looks at other worlds than the tests do, and makes what it finds
as small as it can. `python -m tests.simulator.random_worlds 'Plan(…)'` runs one again, as a failure prints it.
"""

import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from notifier.model.client import Client, RetryPolicy
from notifier.model.registry import Registry
from tests.simulator.clients import (
    ISS,
    OK,
    THROTTLED,
    UNAVAILABLE,
    Behaviour,
    Step,
    client,
    crawls,
    hangs,
    partly,
    refuses,
    steady,
    well,
)
from tests.simulator.world import World

TROUBLE = 60.0  # seconds: then every client is well, every bucket can be read, and nothing more is published
MOST_DELAY = 30.0  # seconds between two attempts of a delivery, less a quarter, at most
LAST = 110.0  # seconds after the trouble until the last delivery, and the time of its backlog
ENDS = 130.0  # seconds after the last delivery in which the copies end too
MOODS: dict[str, Behaviour] = {
    "well": well,
    "refuses": refuses,
    "hangs": hangs,
    "crawls": crawls,
    "throttles": steady(0.002, THROTTLED),
    "fails a third": partly(0.33, (0.002, UNAVAILABLE), (0.005, OK)),
    "fails most": partly(0.7, (0.002, UNAVAILABLE), (0.005, OK)),
}


@dataclass(frozen=True, kw_only=True)
class Person:
    """A client: its bounds, and its moods with the moments in which they begin. `brought`: its address, by events."""

    moods: tuple[tuple[float, str], ...]
    max_concurrent: int = 32
    per_second: float | None = None
    brought: bool = False

    def registered(self, name: str) -> Client:
        """Return its registration."""
        retry = RetryPolicy(max_delay=MOST_DELAY)
        made = client(name, max_concurrent=self.max_concurrent, per_second=self.per_second, retry=retry)
        return replace(made, backchannel_logout_uri=None) if self.brought else made

    def behave(self, now: float, chance: random.Random) -> Step:
        """Do as the mood is."""
        mood = "well"
        for since, other in self.moods:
            mood = other if since <= now < TROUBLE else mood
        return MOODS[mood if now < TROUBLE else "well"](now, chance)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What the registry lacks between two moments: an address or an entry of client `number`, an issuer, `inline`.

    Workers reload one `lag` seconds after the other.
    """

    begins: float
    ends: float
    what: str
    number: int = 0
    lag: float = 0.0

    def without(self, registry: Registry, names: Sequence[str]) -> Registry:
        """Return the registry without it."""
        name, clients = names[self.number % len(names)], registry.clients_of(ISS)
        match self.what:
            case "address" if name in clients:
                changed = replace(clients[name], backchannel_logout_uri=None)
                return replace(registry, clients={ISS: {**clients, name: changed}})
            case "entry":
                return replace(registry, clients={ISS: {one: clients[one] for one in clients if one != name}})
            case "issuer":
                return replace(registry, issuers={}, clients={})
            case "inline":
                return replace(registry, inline="deny")
            case _:
                return registry


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A world. `restarts`: when which worker is replaced, and whether it is killed. `unreadable`: for how long.

    `stars`: so many events for all clients are among the others.
    """

    clients: tuple[Person, ...]
    rate: float
    workers: int
    buckets: int
    confirm: float
    again: float | None
    copies: int
    restarts: tuple[tuple[float, int, bool], ...]
    unreadable: tuple[float, float] | None
    losses: tuple[Loss, ...] = ()
    stars: int = 0
    seed: int


moments = st.integers(0, int(TROUBLE) - 1).map(float)
people = st.builds(
    Person,
    moods=st.lists(st.tuples(moments, st.sampled_from([*MOODS])), min_size=1, max_size=4).map(
        lambda moods: tuple(sorted(moods))
    ),
    max_concurrent=st.sampled_from((32, 4, 1)),
    per_second=st.sampled_from((None, 10.0)),
    brought=st.sampled_from((False, False, False, True)),
)
losses = st.builds(
    lambda both, **more: Loss(begins=min(both), ends=max(both), **more),
    st.tuples(moments, moments),
    what=st.sampled_from(("address", "entry", "issuer", "inline")),
    number=st.integers(0, 7),
    lag=st.sampled_from((0.0, 0.5, 5.0)),
)
plans = st.builds(
    Plan,
    clients=st.lists(people, min_size=1, max_size=8).map(tuple),
    rate=st.sampled_from((1.0, 5.0, 20.0)),
    workers=st.integers(1, 3),
    buckets=st.sampled_from((1, 4, 64)),
    confirm=st.sampled_from((0.005, 0.1, 0.5, 2.0)),
    again=st.sampled_from((None, 0.03, 1.0, 50.0)),
    copies=st.integers(1, 3),
    restarts=st.lists(st.tuples(moments, st.integers(0, 2), st.booleans()), max_size=3).map(
        lambda restarts: tuple(sorted(restarts))
    ),
    unreadable=st.none() | st.tuples(moments, moments).map(lambda both: (min(both), max(both))),
    losses=st.lists(losses, max_size=3).map(tuple),
    stars=st.sampled_from((0, 5)),
    seed=st.integers(0, 999),
)


def broken(plan: Plan) -> list[str]:
    """Return the promises that this world breaks."""
    people = {f"c{number}": person for number, person in enumerate(plan.clients)}
    names = [*people]
    with World(
        [person.registered(name) for name, person in people.items()],
        {name: person.behave for name, person in people.items()},
        workers=plan.workers, buckets=plan.buckets, confirm=plan.confirm, again=plan.again, copies=plan.copies,
        seed=plan.seed,
    ) as world:  # fmt: skip
        _lose(plan, world, names)
        world.stream(plan.rate, TROUBLE, lambda chance: chance.sample(names, min(3, len(names))), seed=plan.seed)
        for moment, number, kill in plan.restarts:
            world.at(moment, partial(world.restart, number % plan.workers, kill=kill))
        begins, ends = plan.unreadable or (0.0, 0.0)
        if begins < ends:  # two timers of one moment may run in any order
            bucket = world.broker.bucket((ISS, names[0]))
            world.at(begins, world.broker.unreadable.add, bucket)
            world.at(ends, world.broker.unreadable.discard, bucket)
        tally, waits = world.tally, 0
        for second in range(1, int(TROUBLE) + 1):
            world.run(second + 0.25)
            waits = max(waits, *world.broker.waits.values(), 0)
        turns = 1 + plan.copies if plan.losses and plan.again is not None else 1  # copies wait in line, too
        most = LAST + turns * max(
            tally.left_of(name) * (0.1 if one.per_second else 0.01) for name, one in people.items()
        )
        world.run_until_done(TROUBLE + most)
        late = sorted(tally.open)
        world.run(world.now + ENDS)
        return [*_promises(plan, world, late, most), *_cost(plan, world, waits)]


def _lose(plan: Plan, world: World, names: Sequence[str]) -> None:
    """Have the registry lose what it is to lose, and get it back; and publish the events for all clients."""
    world.brought = {name for name, person in zip(names, plan.clients, strict=True) if person.brought}
    whole = world.registered = replace(world.registered, inline="allow")

    def reload(moment: float, lag: float) -> None:
        registry = whole
        for loss in plan.losses:
            if loss.begins <= moment < loss.ends:
                registry = loss.without(registry, names)
        world.reload(registry, lag)

    for loss in plan.losses:
        for moment in (loss.begins, loss.ends):
            world.at(moment, reload, moment, loss.lag)
    everybody = [name for name in names if name not in world.brought]
    for number in range(plan.stars if everybody else 0):
        world.at(TROUBLE * (number + 0.5) / plan.stars, partial(world.publish, everybody, star=True))


def _promises(plan: Plan, world: World, late: list[tuple[str, str]], most: float) -> Iterator[str]:
    """Nothing is lost or late, or sent twice by one worker."""
    if late:
        yield f"{len(late)} are not delivered {most:.0f} s after the trouble, such as {late[:3]}"
    if parked := sum(map(len, world.broker.parked_in.values())):
        yield f"{parked} are left in the buckets"
    if unacked := sum(len(consumer.held) for consumer in world.broker.consumers):
        yield f"{unacked} are not acked"
    # A worker that begins while addresses of events do not count gives those deliveries other ids than before.
    renamed = plan.restarts and any(loss.what == "inline" for loss in plan.losses)
    if world.tally.delivered_twice and not renamed:
        yield f"{world.tally.delivered_twice} are delivered twice by one worker"


def _cost(plan: Plan, world: World, waits: int) -> Iterator[str]:
    """Copies make few chains of retries, and the broker has little to do."""
    # Each worker makes one a minute, for its own state alone. Unacked messages return.
    each = 1 if plan.workers == 1 else 1 + math.ceil((plan.again or 0) / 60)
    chains = plan.workers * each + 2 * len(plan.restarts)
    if plan.losses and plan.again is not None:  # an unknown client's deliveries wait for longer than that minute
        chains += plan.workers * plan.copies
    if waits > chains:
        yield f"{waits} retries wait for one delivery at a time, {chains} are allowed"
    deliveries = world.tally.published.total() * (1 if plan.again is None else 1 + plan.copies)
    of_each = 8 if plan.losses else 6
    passes, allowed = world.broker.halves_in.total() / 2, of_each * deliveries + 10 * world.now * plan.workers
    if passes > allowed:
        yield f"{passes:.0f} passes in {world.now:.0f} s, {allowed:.0f} are allowed"


def search(count: int, number: int) -> None:
    """Look at `count` worlds."""

    @seed(number)
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(plan=plans)
    def keeps_its_promises(plan: Plan) -> None:
        assert not (found := broken(plan)), found

    keeps_its_promises()


if __name__ == "__main__":
    if len(sys.argv) == 2:
        sys.stdout.write(f"{broken(eval(sys.argv[1])) or 'all promises are kept'}\n")
    else:
        search(int(sys.argv[2]), int(sys.argv[1]))
