"""What must hold whatever the clients do: limits, ends, and that nothing is left."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import pytest

from notifier.model.client import RetryPolicy
from notifier.model.outcome import DeadReason, HttpResponse
from tests.simulator.broker import Costs
from tests.simulator.clients import THROTTLED, UNAVAILABLE, Behaviour, between, client, names, refuses, steady
from tests.simulator.world import World


def test_a_flood_for_one_healthy_client_runs_at_full_speed() -> None:
    """3,000 deliveries, answers in 5 ms: as fast as the core makes them."""
    with World([client("x", max_concurrent=64)]) as world:
        for _ in range(3000):
            world.publish(["x"])
        costs = Costs()
        world.run(3000 * (costs.take + costs.post + costs.answer) * 1.1)
        assert world.tally.left == 0


@pytest.mark.parametrize("workers", [1, 3])
def test_concurrency_limit_holds_over_all_workers(workers: int) -> None:
    """Shared out over the workers; and a flood is over soon all the same."""
    with World([client("x", max_concurrent=7)], {"x": steady(0.05)}, workers=workers) as world:
        for _ in range(1000):
            world.publish(["x"])
        world.run_until_done(1000 * 0.05 / 7 * 2)
        assert world.tally.left == 0
        assert world.tally.most_running["x"] <= 7


def test_rate_limit_holds_and_all_arrive() -> None:
    """10 a second, and 300 that wait at the start: no second has more than its tokens, and the last comes in 31 s."""
    with World([client("x", per_second=10)]) as world:
        for _ in range(300):
            world.publish(["x"])
        tally = world.run_until_done(60)
        assert tally.left == 0
        began = sorted(tally.attempts["x"])
        assert all(later - earlier >= 0.99 for earlier, later in zip(began, began[20:], strict=False))
        assert began[-1] <= 31


def test_rate_limit_holds_while_workers_start_and_stop() -> None:
    """Six start two seconds apart, and two are replaced. In any five seconds at most a fifth more than the tokens."""
    with World([client("x", per_second=10)], announces=True) as world:
        for _ in range(600):
            world.publish(["x"])
        for moment in (2, 4, 6, 8, 10):
            world.at(moment, world.add_worker)
        for number, kill in enumerate((False, True)):
            world.at(20 + 5 * number, partial(world.restart, number, kill=kill))
        tally = world.run_until_done(120)
        assert tally.left == 0
        began = sorted(tally.attempts["x"])
        assert all(later - earlier >= 5 for earlier, later in zip(began, began[60:], strict=False))
        assert began[-1] <= 80


@pytest.mark.full
def test_clients_sharing_a_bucket_keep_separate_probes() -> None:
    """Twenty in one bucket are down for half an hour. Each is probed as if alone, and one recovers and is served.

    Its passes find only deliveries of the others, so their 570 deliveries are not fetched again and again.
    """
    everyone, end = names(20), 1805.0
    behaviours = {name: between(5, end if name == "c0" else math.inf, refuses) for name in everyone}
    with World(map(client, everyone), behaviours, buckets=1) as world:
        for second in range(30):
            for name in everyone:
                world.at(second + 0.01, world.publish, [name])
        tally = world.run(end)
        assert min(sum(began > 60 for began in tally.attempts[name]) for name in everyone) >= 25
        before = world.broker.halves_in.total()
        world.run(end + 65)
        assert len(tally.delivered["c0"]) == 30
        assert len(tally.delivered["c1"]) < 30
        passes = (world.broker.halves_in.total() - before) / 2
        assert passes < 5000, f"{passes:.0f} passes in the 65 s after the recovery"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A client to which almost nothing finds a way in, for good. `most` attempts are let pass in twenty minutes."""

    behaviour: Behaviour
    most: int
    registered: Mapping[str, object] = field(default_factory=dict)


CLOSED = {
    "it is down": Closed(behaviour=refuses, most=40),
    "a pause by Retry-After": Closed(behaviour=steady(0.005, HttpResponse(status=429, retry_after="600")), most=4),
    "a rate of one a minute": Closed(behaviour=steady(0.005, THROTTLED), most=25, registered={"per_second": 1 / 60}),
    "the want of a slot": Closed(behaviour=steady(4.9, UNAVAILABLE), most=40, registered={"max_concurrent": 1}),
}


@pytest.mark.parametrize("closed", CLOSED.values(), ids=CLOSED.keys())
def test_delivery_that_is_never_admitted_expires(closed: Closed) -> None:
    """None is left after its age and the longest time in a bucket, attempted or not. No flood comes at the end."""
    age = 1200.0
    never_in = client("x", retry=RetryPolicy(max_age=age), **closed.registered)
    with World([never_in], {"x": closed.behaviour}) as world:
        for _ in range(60):
            world.publish(["x"])
        before = len(world.run(age - 60).attempts["x"])
        tally = world.run_until_done(age + 1100)
        assert (tally.left, len(tally.dead_letters)) == (0, 60)
        assert {fact.reason for _, fact in tally.dead_letters} == {DeadReason.EXPIRED}
        assert len(tally.attempts["x"]) - before <= 2 + closed.most / 20
        assert len(tally.attempts["x"]) <= closed.most
