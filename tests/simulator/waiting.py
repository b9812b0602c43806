"""Measures how well deliveries wait: over restarts, beside crowds that hang, in shared buckets, and with copies."""

import math
import random
from dataclasses import dataclass

from notifier.model.client import RetryPolicy
from notifier.model.outcome import HttpResponse
from tests.simulator.clients import OK, UNAVAILABLE, Behaviour, Step, between, client, names, refuses, steady
from tests.simulator.world import World, quantile


@dataclass(frozen=True, kw_only=True)
class Rolling:
    """Workers are replaced one after the other from `at` on, while a client with a rate of 10 a second drains.

    It is down from 5 to 65 s if `was_down`. A dead client owns the oldest messages of its bucket. With `unreadable`
    another bucket, full of others' messages, cannot be read.
    """

    at: float
    was_down: bool
    parked: int = 400
    waiting: int = 200
    workers: int = 1
    unreadable: bool = False
    seed: int = 1


def rolling(how: Rolling) -> float:
    """Return the seconds from the first stop until the last pending delivery is sent."""
    behaviours = {"dead": between(5, math.inf, refuses)}
    if how.was_down:
        behaviours["paced"] = between(5, 65, refuses)
    known = [client("dead"), client("paced", per_second=10)]
    with World(known, behaviours, buckets=1, workers=how.workers, seed=how.seed) as world:
        if how.unreadable:
            world.broker.add_unreadable("parked-99")
        for second in range(4):
            world.at(second + 0.5, world.publish, ["dead"])
            if how.was_down:
                world.at(second + 0.6, world.publish, ["paced"])
        for number in range(how.parked):
            world.at(7 + 5 * number / how.parked, world.publish, ["dead"])
        for number in range(how.waiting):
            world.at(15 + 0.02 * number, world.publish, ["paced"])
        world.run(how.at)
        for number in range(how.workers):
            world.restart(number)
            world.run(how.at + 8 * (number + 1))
        while world.tally.left_of("paced") and world.now < 2600:
            world.run(world.now + 5)
        left = world.tally.left_of("paced")
        return math.inf if left else max(one.answered for one in world.tally.delivered["paced"]) - how.at


def neighbour(parked: int, seed: int = 1) -> float:
    """A client recovers, with twenty deliveries behind so many of a client that stays down, in the same bucket.

    Return the seconds from its first delivery to its last.
    """
    behaviours = {"dead": between(5, math.inf, refuses), "back": between(5, 90, refuses)}
    with World(map(client, behaviours), behaviours, buckets=1, seed=seed) as world:
        for number in range(4):
            world.at(number + 0.5, world.publish, ["dead", "back"])
        for number in range(parked):
            world.at(6 + 60 * number / parked, world.publish, ["dead"])
        for number in range(20):
            world.at(70 + number, world.publish, ["back"])
        world.run(90)
        while world.tally.left_of("back") and world.now < 600:
            world.run(world.now + 5)
        answered = [one.answered for one in world.tally.delivered["back"] if one.answered > 90]
        return math.inf if world.tally.left_of("back") else max(answered) - min(answered)


@dataclass(frozen=True, kw_only=True)
class Hung:
    """Lateness, in seconds, for a client that fails each fourth; `back`: the last delivery of a recovering client."""

    p99: float
    longest: float
    back: float


def hung(count: int, workers: int, seed: int = 1) -> Hung:
    """So many clients hang."""
    dead = names(count)
    turn = iter(range(1_000_000))

    def flaky(_now: float, _chance: random.Random) -> Step:
        return 0.003, UNAVAILABLE if next(turn) % 4 == 3 else OK

    behaviours: dict[str, Behaviour] = dict.fromkeys(dead, steady(math.inf))
    behaviours |= {"flaky": flaky, "back": between(5, 605, steady(math.inf))}
    with World(map(client, [*dead, "flaky", "back"]), behaviours, workers=workers, seed=seed) as world:
        for number in range(2 * count):
            world.at(1 + 30 * number / count, world.publish, [dead[number % count]])
        for second in range(4):
            world.at(second + 0.5, world.publish, ["back"])
        for second in range(5):
            world.at(second + 6, world.publish, ["back"])
        world.at(299, world.stream, 2, 700, lambda _chance: ["flaky"])
        tally = world.run(900)
        late = [one.answered - one.born for one in tally.delivered["flaky"] if 300 < one.born < 700]
        late += [math.inf] * tally.left_of("flaky")
        back = [one.answered - 605 for one in tally.delivered["back"] if one.answered > 605]
        return Hung(p99=quantile(late, 0.99), longest=max(late), back=max(back, default=math.inf))


@dataclass(frozen=True, kw_only=True)
class Storm:
    """Passes a second and worker, while idle and while clients are notified for the first time."""

    idle: float
    busy: float
    delivered: float  # seconds within which these were delivered


def storm(*, parked: int, dead: int, firsts: int, buckets: int, workers: int = 1, seed: int = 1) -> Storm:
    """Send first deliveries to healthy clients beside deliveries parked for dead clients in all buckets."""
    down, others = [f"dead{number}" for number in range(dead)], names(firsts)
    behaviours = dict.fromkeys(down, between(5, math.inf, refuses))
    with World(map(client, [*down, *others]), behaviours, buckets=buckets, workers=workers, seed=seed) as world:
        for number in range(2 * dead):
            world.at(0.1 + 2 * number / dead, world.publish, [down[number % dead]])
        for number in range(parked):
            world.at(6 + 60 * number / parked, world.publish, [down[number % dead]])
        world.run(130)
        before = world.broker.halves_in.total()
        world.run(190)
        idle = world.broker.halves_in.total() - before
        order = iter(others)
        world.stream(firsts / 60, 250, lambda _chance: [next(order, others[0])])
        world.run(250)
        busy = world.broker.halves_in.total() - before - idle
        late = [one.answered - one.born for name in others for one in world.tally.delivered[name]]
        return Storm(idle=idle / 120 / workers, busy=busy / 120 / workers, delivered=max(late))


@dataclass(frozen=True, kw_only=True)
class Copied:
    """The results of events that were published twice."""

    published: int
    twice: int  # delivered twice by the one worker
    left: int


def copied(behaviour: Behaviour, rate: float, confirm: float, seed: int = 1, **registered: object) -> Copied:
    """Each event comes a second time within a second."""
    known = client("x", retry=RetryPolicy(max_delay=30), **registered)
    with World([known], {"x": behaviour}, confirm=confirm, again=1.0, seed=seed) as world:
        world.stream(rate, 20, lambda _chance: ["x"])
        world.run(20)
        tally = world.run_until_done(400)
        world.run(world.now + 130)  # copies come late too
        return Copied(published=tally.published["x"], twice=tally.delivered_twice, left=tally.left)


def chains(workers: int, seed: int = 1) -> int:
    """A publisher sends one event 60 times in five minutes, for a dead client. Return how many retries then wait."""
    with World([client("x")], {"x": refuses}, workers=workers, again=300.0, copies=60, seed=seed) as world:
        world.at(10, world.publish, ["x"])
        world.run(311)
        return max(world.broker.waits.values())


class FirstFails(World):
    """The first attempt at each delivery fails, and any other succeeds."""

    tried: set[tuple[str, str]]

    def behave(self, name: str, event_id: str) -> Step:
        """See the class."""
        first = (event_id, name) not in self.tried
        self.tried.add((event_id, name))
        return 0.005, UNAVAILABLE if first else OK


@dataclass(frozen=True, kw_only=True)
class Firsts:
    """How late the last was, in seconds after the last event, and what it cost."""

    last: float
    attempts: float  # for each delivery
    rests: int


def first_fails(rate: float, workers: int = 1, seed: int = 1) -> Firsts:
    """So many a second come for 20 s."""
    world = FirstFails([client("x")], workers=workers, seed=seed)
    world.tried = set()
    with world:
        world.stream(rate, 20, lambda _chance: ["x"], evenly=True)
        world.run(20)
        tally = world.run_until_done(900)
        last = math.inf if tally.left else max(one.answered for one in tally.delivered["x"]) - 20
        attempts = len(tally.attempts["x"]) / tally.published["x"]
        return Firsts(last=last, attempts=attempts, rests=tally.rests_of("x"))


def outnumbered(rate: float, workers: int = 1, seed: int = 1) -> float:
    """A client that takes ten a second of each worker is down for 10 s. Then `rate` come, for 120 s.

    Return the seconds from its end until the last earlier event is delivered.
    """
    known, behaviours = client("x", max_concurrent=workers), {"x": between(0, 10, refuses, steady(0.1))}
    with World([known], behaviours, workers=workers, seed=seed) as world:
        world.stream(4, 10, lambda _chance: ["x"], evenly=True)
        before = world.run(10).published["x"]
        world.stream(workers * rate, 130, lambda _chance: ["x"])
        delivered = [one.answered for one in world.run(130).delivered["x"] if one.born < 10]
        return max(delivered) - 10 if len(delivered) == before else math.inf


def paused(count: int, seed: int = 1) -> int:
    """So many clients ask for a pause of ten minutes. Return what is then left of another one's."""
    everyone, asks = names(count), HttpResponse(status=429, retry_after="600")
    behaviours: dict[str, Behaviour] = dict.fromkeys(everyone, between(0, 300, steady(0.005, asks)))
    with World(map(client, [*everyone, "other"]), behaviours, seed=seed) as world:
        for number in range(0, count, 50):
            world.at(60 * number / count, world.publish, everyone[number : number + 50])
        world.run(70)
        world.publish(["other"])
        return world.run(75).left_of("other")


def other_clocks(ahead: float, workers: int, seed: int = 1) -> float:
    """A client requests a pause of 20 s. Then workers replace the others whose clocks are ahead by so many seconds.

    Return the seconds from the first event until the last delivery.
    """
    asks = HttpResponse(status=429, retry_after="20")
    with World([client("x")], {"x": between(0, 15, steady(0.005, asks))}, workers=workers, seed=seed) as world:
        for number in range(60):
            world.at(1 + number / 20, world.publish, ["x"])
        world.run(5)
        world.clock_ahead = ahead
        for number in range(workers):
            world.restart(number)
        tally = world.run_until_done(8000)
        return math.inf if tally.left else max(one.answered for one in tally.delivered["x"]) - 1


def many(delivered: int, dead: int, parked: int, seed: int = 1) -> int:
    """Send so many once while so many are parked for others. Return the pending deliveries of healthy clients."""
    down, others = [f"dead{number}" for number in range(dead)], names(delivered)
    behaviours = dict.fromkeys(down, between(5, math.inf, refuses))
    with World(map(client, [*down, *others]), behaviours, seed=seed) as world:
        for number in range(2 * dead):
            world.at(0.1 + 2 * number / dead, world.publish, [down[number % dead]])
        for number in range(parked):
            world.at(6 + 30 * number / parked, world.publish, [down[number % dead]])
        order = iter(range(0, delivered, 10))
        world.at(40, world.stream, 50, 41 + delivered / 500, lambda _chance: others[(at := next(order, 0)) : at + 10])
        tally = world.run(60 + delivered / 500)
        return sum(tally.left_of(name) for name in others)
