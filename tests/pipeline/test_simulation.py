"""What one client's trouble costs the others, and what deferrals cost: in simulated time, by the real admission.

Each case runs twice with the same arrivals: once with all clients healthy, once with trouble. Loads are half of what
one simulated CPU bears (3,333 POSTs a second), unless they say otherwise.
"""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from notifier.domain.client import RetryPolicy
from notifier.domain.outcome import DeadReason
from notifier.pipeline.client_standing import Mark
from tests.pipeline.simulation import (
    PASS,
    Behaviour,
    Simulation,
    Tally,
    between,
    black_hole,
    client,
    flapping,
    names,
    slow,
    some,
)

pytestmark = pytest.mark.full

HALF = 1667.0  # deliveries a second
EVENT = 10  # clients in an event


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """So many clients, of which the first `ill` behave so. Measured from `since` on."""

    clients: int
    ill: int
    behaviour: Behaviour
    until: float
    since: float = 0.0
    workers: int = 1


CASES = {
    "one of ten hangs from the start": Case(clients=10, ill=1, behaviour=black_hole, until=15),
    "6 of 20 hang at once": Case(clients=20, ill=6, behaviour=between(5, 1e9, black_hole), until=25, since=5),
    "8 of 50 hang at once": Case(clients=50, ill=8, behaviour=between(5, 1e9, black_hole), until=25, since=5),
    "300 of 1,000 are dead from the start": Case(clients=1000, ill=300, behaviour=black_hole, until=25),
    "300 of 1,000 hang at once": Case(clients=1000, ill=300, behaviour=between(5, 1e9, black_hole), until=25, since=5),
    "7 of 20 answer after 4.5 s": Case(clients=20, ill=7, behaviour=slow, until=20),
    "7 of 20 begin to answer after 4.5 s": Case(clients=20, ill=7, behaviour=between(5, 1e9, slow), until=20, since=5),
    "one flaps every 20 s": Case(clients=10, ill=1, behaviour=flapping(20), until=50),
    "two workers": Case(clients=10, ill=1, behaviour=between(5, 1e9, black_hole), until=20, since=5, workers=2),
}


def _run(case: Case, behaviours: dict[str, Behaviour]) -> Tally:
    simulation = Simulation(map(client, names(case.clients)), behaviours, workers=case.workers)
    simulation.stream(HALF * case.workers / EVENT, case.until, some(names(case.clients), EVENT))
    return simulation.run(case.until)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_at_half_load_the_others_feel_nothing(case: Case) -> None:
    """Half of them and 99 of 100 arrive as fast as when all are well (within 10 %), as many, and none is put off."""
    everybody = names(case.clients)
    well = everybody[case.ill :]
    healthy = _run(case, {})
    troubled = _run(case, dict.fromkeys(everybody[: case.ill], case.behaviour))
    for percent in (50, 99):
        usual = healthy.percentile(well, percent, case.since)
        assert troubled.percentile(well, percent, case.since) < 1.10 * usual
    arrived = [sum(len(tally.arrivals[name]) for name in well) for tally in (healthy, troubled)]
    assert arrived[1] >= 0.999 * arrived[0]
    assert sum(troubled.deferrals[name] for name in well) <= 0.001 * arrived[1]


@pytest.mark.parametrize(("clients", "ill"), [(10, 1), (20, 6), (50, 8), (1000, 300)])
@pytest.mark.parametrize("behaviour", [black_hole, slow], ids=["hang", "slow"])
def test_a_backlog_drains_as_fast(clients: int, ill: int, behaviour: Behaviour) -> None:
    """20,000 deliveries that wait at the start: those for healthy clients arrive at no less than 0.95 of the rate."""
    chance = random.Random(3)
    events = [chance.sample(names(clients), EVENT) for _ in range(2000)]
    last = []
    for behaviours in ({}, dict.fromkeys(names(clients)[:ill], behaviour)):
        simulation = Simulation(map(client, names(clients)), behaviours)
        for event in events:
            simulation.publish(event)
        tally = simulation.run(30.0)
        arrivals = sorted(when for name in names(clients)[ill:] for when in tally.arrivals[name])
        last.append(arrivals[int(0.99 * len(arrivals))])
    assert last[1] <= last[0] / 0.95


def test_a_flood_for_one_healthy_client_runs_at_full_speed() -> None:
    """10,000 deliveries, answers in 5 ms: as fast as the CPU makes them, and not one is put off."""
    simulation = Simulation([client("c0")])
    for _ in range(10_000):
        simulation.publish(["c0"])
    tally = simulation.run(60.0, drained=True)
    assert not tally.deferrals
    assert tally.last(["c0"]) < 10_000 * 300e-6 * 1.02


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_client_s_cap_is_its_total(workers: int) -> None:
    """Shared out over the workers; and a flood is over soon all the same."""
    simulation = Simulation([client("c0", max_concurrent=7)], workers=workers)
    for _ in range(3000):
        simulation.publish(["c0"])
    tally = simulation.run(600.0, drained=True)
    assert simulation.left == 0
    assert tally.most_running["c0"] <= 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """What became of `count` deliveries for a client that was dead while they came, and then recovered."""

    count: int
    tally: Tally
    recovered: float
    filled: float
    passes_while_dead: float
    busiest: float  # share of the CPU that passes took, in the busiest minute after all had come

    @property
    def arrivals(self) -> list[float]:
        return [when for when in self.tally.arrivals["dead"] if when >= self.recovered]


def _wait_for_a_dead_client(
    count: int, *, recovered: float, filled: float, behaviour: Behaviour = black_hole, workers: int = 1, cap: int = 32
) -> Waited:
    ill = {"dead": between(2, recovered, behaviour)}
    simulation = Simulation([client("dead", max_concurrent=cap)], ill, workers=workers)
    for number in range(20):
        simulation.at(0.05 * number, simulation.publish, ["dead"])
    simulation.run(2.0)
    simulation.stream((count / (filled - 2.0)), filled, lambda _chance: ["dead"])
    simulation.mark_from = recovered
    tally = simulation.run(filled)
    busiest = 0.0
    while simulation.now < recovered:
        before = tally.pass_seconds
        simulation.run(min(recovered, simulation.now + 60.0))
        busiest = max(busiest, (tally.pass_seconds - before) / 60.0)
    while_dead = tally.pass_seconds / PASS / count
    simulation.run(recovered + 4000.0, drained=True)
    assert simulation.left == 0
    return Waited(
        count=count, tally=tally, recovered=recovered, filled=filled, passes_while_dead=while_dead, busiest=busiest
    )


def _refused(_now: float, _chance: random.Random) -> tuple[float, Mark]:
    return 0.001, Mark.DOWN


@pytest.mark.parametrize(
    ("count", "recovered", "workers", "behaviour"),
    [
        (30_000, 665.0, 1, black_hole),
        (20_000, 1865.0, 1, black_hole),
        (20_000, 305.0, 1, _refused),
        (20_000, 665.0, 2, black_hole),
        (300, 665.0, 1, black_hole),
    ],
)
def test_what_waits_for_a_dead_client_is_cheap_and_arrives(
    count: int, recovered: float, workers: int, behaviour: Behaviour
) -> None:
    """Under 10 % of the CPU while it is dead. From its recovery on all arrive, at its cap, in under 3 passes each."""
    waited = _wait_for_a_dead_client(
        count, recovered=recovered, filled=120.0, workers=workers, behaviour=behaviour, cap=8
    )
    assert waited.busiest < 0.10 * workers
    assert waited.passes_while_dead < 3 + (recovered / 60) ** 0.5
    assert waited.tally.most_running["dead"] <= 8
    late = [passes for passes, when in zip(waited.tally.late_passes["dead"], waited.tally.arrivals["dead"], strict=True)
            if when >= recovered]  # fmt: skip
    assert sum(late) / len(late) < 3
    a_second = Counter(int(when) for when in waited.arrivals)
    assert max(a_second.values()) <= 8 / 0.003  # its cap, by its quickest answers
    assert waited.tally.last(["dead"]) - recovered < 2048 + 64


@pytest.mark.parametrize("recovered", [20.0, 75.0, 200.0, 500.0])
@pytest.mark.parametrize("count", [5, 2000])
def test_a_recovery_is_noticed_by_the_next_probe(recovered: float, count: int) -> None:
    """While deliveries wait, one of them is the probe and comes on time: the circuit closes within the open time."""
    waited = _wait_for_a_dead_client(count, recovered=recovered, filled=12.0)
    closed = [moment for moment, _, change in waited.tally.circuit_changes if change == "closed"]
    opened = [moment for moment, _, change in waited.tally.circuit_changes if change == "opened"]
    if not closed:
        assert not opened  # with so few it never opened
        return
    ends, until = [opened[-1]], 30.0
    while ends[-1] < recovered:
        ends.append(ends[-1] + until + 5.0 + 4.0)  # a probe's deadline, and what its coming may be late by
        until = min(900.0, 2 * until)
    assert recovered <= closed[-1] <= ends[-1]


def _brakes(_now: float, _chance: random.Random) -> tuple[float, Mark]:
    return 0.005, Mark.BRAKED


def _brakes_late(_now: float, _chance: random.Random) -> tuple[float, Mark]:
    return 5.0, Mark.BRAKED


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A client to which almost nothing finds a way in, for good: by it and by how it is registered.

    `most` attempts a day are what its circuit, its pauses, its rate or its one slot let pass.
    """

    behaviour: Behaviour
    most: int
    never: int = 0  # deliveries of 600, at the least, that are never attempted
    registered: Mapping[str, object] = field(default_factory=dict)
    asks_for: float | None = None


DAY = 86_400.0
CLOSED = {
    "an open circuit": Closed(behaviour=_refused, most=110, never=500),
    "a pause by Retry-After": Closed(behaviour=_brakes, most=110, never=500, asks_for=3600.0),
    "a rate of one a minute": Closed(behaviour=_brakes, most=1440, never=400, registered={"per_second": 1 / 60}),
    "the want of a slot": Closed(behaviour=_brakes_late, most=17_280, registered={"max_concurrent": 1}),
}


@pytest.mark.parametrize("closed", CLOSED.values(), ids=CLOSED.keys())
def test_what_never_finds_a_way_in_expires(closed: Closed) -> None:
    """None is left after a day, attempted or not, and each says why; no flood of last attempts comes at the end."""
    never_in = client("c0", retry=RetryPolicy(max_age=DAY), **closed.registered)
    simulation = Simulation([never_in], {"c0": closed.behaviour}, tick=1.0, asks_for=closed.asks_for)
    for _ in range(600):
        simulation.publish(["c0"])
    before = simulation.run(DAY - 60.0).attempts["c0"]
    tally = simulation.run(3 * DAY, drained=True)
    assert tally.attempts["c0"] - before <= 2 + closed.most / 720  # in the two minutes of their end
    assert (simulation.left, len(tally.dead)) == (0, 600)
    assert {verdict.reason for _, _, verdict in tally.dead} == {DeadReason.EXPIRED}
    for when, delivery, verdict in tally.dead:
        assert when <= DAY + 60.0
        assert verdict.text.startswith("given up after" if delivery.attempts else "never attempted in 864")
        assert not delivery.waited_for or ", put off for " in verdict.text
    assert sum(not delivery.attempts for _, delivery, _ in tally.dead) >= closed.never
    assert tally.attempts["c0"] <= closed.most


def test_a_slow_rate_lets_all_in_before_they_expire() -> None:
    """One a minute, and 600 that wait: the last is told within 16 hours, and none expires."""
    simulation = Simulation([client("c0", per_second=1 / 60)], tick=1.0)
    for _ in range(600):
        simulation.publish(["c0"])
    tally = simulation.run(3 * DAY, drained=True)
    assert (len(tally.arrivals["c0"]), tally.dead) == (600, [])
    assert tally.last(["c0"]) < 16 * 3600
