"""Draws worlds at random, and says which promise one breaks: clients, outages, restarts, confirm times and copies.

`python -m tests.simulator.random_worlds SEED COUNT` looks at other worlds than the tests do, and makes what it finds
as small as it can. `python -m tests.simulator.random_worlds 'Plan(…)'` runs one again, as a failure prints it.
"""

import random
import sys
from dataclasses import dataclass

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from notifier.domain.client import RetryPolicy
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
LAST = 110.0  # seconds after the trouble in which the last is told, and the time of its backlog
ENDS = 130.0  # seconds after the last is told in which the copies end too
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
    """A client: its bounds, and its moods with the moments in which they begin."""

    moods: tuple[tuple[float, str], ...]
    max_concurrent: int = 32
    per_second: float | None = None

    def behave(self, now: float, chance: random.Random) -> Step:
        """Do as the mood is."""
        mood = "well"
        for since, other in self.moods:
            mood = other if since <= now < TROUBLE else mood
        return MOODS[mood if now < TROUBLE else "well"](now, chance)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A world. `restarts`: moments, workers and whether it is killed. `unreadable`: from when until when a bucket is."""

    clients: tuple[Person, ...]
    rate: float
    workers: int
    buckets: int
    confirm: float
    again: float | None
    copies: int
    restarts: tuple[tuple[float, int, bool], ...]
    unreadable: tuple[float, float] | None
    seed: int


moments = st.integers(0, int(TROUBLE) - 1).map(float)
people = st.builds(
    Person,
    moods=st.lists(st.tuples(moments, st.sampled_from([*MOODS])), min_size=1, max_size=4).map(
        lambda moods: tuple(sorted(moods))
    ),
    max_concurrent=st.sampled_from((32, 4, 1)),
    per_second=st.sampled_from((None, 10.0)),
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
    seed=st.integers(0, 999),
)


def broken(plan: Plan) -> list[str]:
    """Return the promises that this world breaks."""
    people = {f"c{number}": person for number, person in enumerate(plan.clients)}
    known = [
        client(
            name,
            max_concurrent=person.max_concurrent,
            per_second=person.per_second,
            retry=RetryPolicy(max_delay=MOST_DELAY),
        )
        for name, person in people.items()
    ]
    with World(
        known,
        {name: person.behave for name, person in people.items()},
        workers=plan.workers,
        buckets=plan.buckets,
        confirm=plan.confirm,
        again=plan.again,
        copies=plan.copies,
        seed=plan.seed,
    ) as world:
        names, found = [*people], list[str]()
        world.stream(plan.rate, TROUBLE, lambda chance: chance.sample(names, min(3, len(names))), seed=plan.seed)
        for moment, number, kill in plan.restarts:
            world.at(moment, lambda number=number, kill=kill: world.restart(number % plan.workers, kill=kill))
        if plan.unreadable is not None:
            bucket = world.broker.bucket((ISS, "c0"))
            world.at(plan.unreadable[0], world.broker.unreadable.add, bucket)
            world.at(plan.unreadable[1], world.broker.unreadable.discard, bucket)
        most = 0
        for second in range(1, int(TROUBLE) + 1):
            tally = world.run(second + 0.25)
            most = max(most, *world.broker.waits.values(), 0)
        slowest = max(tally.left_of(name) * (0.1 if person.per_second else 0.01) for name, person in people.items())
        tally = world.run_until_done(TROUBLE + LAST + slowest)
        if tally.left:
            found.append(
                f"{tally.left} are not told {LAST + slowest:.0f} s after the trouble: {sorted(tally.open)[:5]}"
            )
        minutes = 1 if plan.again is None else 1 + int(plan.again // 60)
        chains = plan.workers * minutes + 2 * len(plan.restarts)  # what was written and not acked comes again
        if most > chains:
            found.append(f"{most} retries wait for one delivery at a time, {chains} are allowed")
        world.run(max(world.now + ENDS, TROUBLE + (plan.again or 0)))
        if parked := sum(map(len, world.broker.parked_in.values())):
            found.append(f"{parked} are left in the buckets")
        if unacked := sum(len(consumer.held) for consumer in world.broker.consumers):
            found.append(f"{unacked} are not acked")
        if tally.told_twice:
            found.append(f"{tally.told_twice} are told twice by one worker")
        deliveries = tally.published.total() * (1 if plan.again is None else 1 + plan.copies)
        passes = (world.broker.halves_in.total()) / 2
        if passes > 6 * deliveries + 10 * world.now * plan.workers:
            found.append(f"{passes:.0f} passes for {deliveries} deliveries in {world.now:.0f} s")
        return found


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
        print(broken(eval(sys.argv[1])))
    else:
        search(int(sys.argv[2]), int(sys.argv[1]))
