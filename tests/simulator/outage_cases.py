"""The goals of recovery, politeness and cost: a client that is down, and its pending deliveries."""

import math
from collections.abc import Iterator
from dataclasses import replace

from tests.simulator.case import Case, Finding, seconds
from tests.simulator.clients import THROTTLED, Behaviour, answers_503, hangs, refuses, steady
from tests.simulator.outage import Outage, outage, restart, wait

NEW = 1.5  # seconds: the latest of those published after the first success
SOON_AFTER = 1.0  # of those published from 5 s after the recovery
HUNG = 11.0  # of both, if the client hung: an attempt takes 5 s to fail
BACKOFF = 2.0  # of a failure before the circuit opened: its own backoff counts
RESTARTED = 5.0  # of 1,300 pending deliveries of an overloaded client, which accepts all after a restart
BACKLOG = 64  # a second: half of the pace of a client that answers after 0.25 s


def _recovery(name: str, how: Outage, *, backoff: float = BACKOFF, short: bool = False) -> Case:
    """Delivery starts within half of the outage and 3 s, at the client's pace. New deliveries start at once."""
    allowed = how.allowed + how.slowly

    def measure(seed: int) -> Finding:
        it = outage(replace(how, seed=seed))
        text = f"begins {seconds(it.start)}, last {seconds(it.lag)}, new {seconds(it.fresh)}, later {seconds(it.later)}"
        drained = how.count / BACKLOG
        new = it.fresh <= NEW and it.later <= SOON_AFTER
        if how.bad is hangs:
            new = max(it.fresh, it.later) <= HUNG
        if how.slowly:
            return Finding(text, it.start <= allowed and it.lag < math.inf)
        return Finding(text, it.start <= allowed and it.lag <= allowed + backoff + drained and new)

    return Case(name=f"recovery-{name}", goal=f"begins ≤ {allowed:g} s, new ≤ 1 s", measure=measure, short=short)


def _restart(workers: int, *, short: bool) -> Case:
    """The rate that the client accepted before the outage does not slow down its pending deliveries."""

    def measure(seed: int) -> Finding:
        first, last = restart(workers, seed)
        return Finding(f"first {seconds(first)}, last {seconds(last)}", last <= first + RESTARTED)

    name = f"recovery-restarted-{workers}-workers"
    return Case(name=name, goal=f"last ≤ {RESTARTED:g} s after the first", measure=measure, seeds=6, short=short)


def recovery() -> Iterator[Case]:
    """A client that was down for so long."""
    kinds: dict[str, Outage] = {
        "refuses": Outage(seconds=0, bad=refuses),
        "503": Outage(seconds=0, bad=answers_503, good=steady(0.25)),
        "hangs": Outage(seconds=0, bad=hangs),
        "429": Outage(seconds=0, bad=steady(0.005, THROTTLED)),
    }
    for kind, how in kinds.items():
        for length in (1, 2, 4, 8, 15, 30, 45, 120, 300, 900, 3600):
            rate = 10.0 if length <= 300 else 2.0
            for workers in (1, 2, 3):
                short = (workers, length) in {(1, 4), (1, 45), (3, 45)}
                name = f"{kind}-{length}" + (f"-{workers}-workers" if workers > 1 else "")
                watched = 60.0 if short else 150.0
                this = replace(how, seconds=length, rate=rate, workers=workers, watched=watched)
                yield _recovery(name, this, short=short)
    for length in (4, 45, 3600):
        for kind, bad in (("", refuses), ("-hangs", hangs)):
            for workers in (1, 3):
                name = f"alone{kind}-{length}" + (f"-{workers}-workers" if workers > 1 else "")
                how = Outage(seconds=length, bad=bad, waiting=1, after=0, workers=workers)
                yield _recovery(name, how, short=length == 45)
    yield _recovery("many-60", Outage(seconds=60, bad=refuses, waiting=10_000, beside=0.5))
    for moment in (0.5, 1, 2, 3):  # too short for it to be taken for down
        for rate in (10.0, 30.0):
            how = Outage(seconds=moment, bad=answers_503, rate=rate, after=rate, watched=30.0)
            yield _recovery(f"moment-{moment:g}-{rate:g}", how, backoff=3 * BACKOFF, short=moment == 1)
    for workers in (1, 3):
        yield _restart(workers, short=workers == 3)
    for slowly in (10, 30, 60, 120):
        yield _recovery(
            f"slowly-{slowly}",
            Outage(seconds=45, bad=refuses, slowly=slowly, after=10, watched=slowly + 30.0),
            short=slowly == 10,
        )


# ── politeness, cost ──


def _polite(name: str, how: Outage, most: int, *, short: bool = False) -> Case:
    """A long outage: probes a second and worker, attempts at one delivery, charged ones."""

    def measure(seed: int) -> Finding:
        it = outage(replace(how, seed=seed))
        text = f"{it.probes} probes, ≤ {it.most_a_second} a second; {it.failed} attempts at one, charged {it.charged}"
        return Finding(text, it.most_a_second <= how.workers and it.failed <= most and it.charged == 0)

    return Case(
        name=f"polite-{name}",
        goal=f"≤ 1 a second and worker, attempts ≤ {most}, charged 0",
        measure=measure,
        short=short,
    )


def politeness() -> Iterator[Case]:
    """A dead client is probed seldom, and its deliveries take turns."""
    hour = Outage(seconds=3600, bad=refuses, rate=2)
    yield _polite("refuses", hour, 20)
    yield _polite("hangs", replace(hour, bad=hangs), 20)
    yield _polite("10/s", replace(hour, rate=10), 20)
    yield _polite("3-workers", replace(hour, workers=3), 20)
    for waiting, within, most in ((1, math.inf, (80, 36)), (10, 60.0, (20, 14))):
        waits = replace(hour, waiting=waiting, within=within)
        yield _polite(f"{waiting}-wait", waits, most[0])
        yield _polite(f"{waiting}-wait-20-min", replace(waits, seconds=1200, watched=60.0), most[1], short=True)
    yield _polite("10-wait-hang", replace(hour, waiting=10, within=60, bad=hangs), 20)


def _cost(
    name: str, clients: int, each: int, behaviour: Behaviour, *, until: float = 3600.0, short: bool = False
) -> Case:
    """The core's share for passes, in the busiest minute after all came; and in that in which buckets expire."""

    def measure(seed: int) -> Finding:
        it = wait(clients, each, behaviour, until=until, seed=seed)
        text = (
            f"{it.busiest:.3f} of a core (arrival {it.arrival:.3f}), {it.passes:.2f} passes, {it.attempts:.0f} attempts"
        )
        scale = clients * each / 100_000
        return Finding(text, it.busiest <= 0.2 * scale and it.passes <= 3 + until / 1024)

    return Case(
        name=f"cost-{name}", goal="≤ 0.1 of a core for 100,000, 0.2 if a TTL returns them", measure=measure, short=short
    )


def cost() -> Iterator[Case]:
    """So many wait for clients that are down."""
    for kind, behaviour in (("refuse", refuses), ("hang", hangs)):
        yield _cost(f"1x100000-{kind}", 1, 100_000, behaviour)
        yield _cost(f"1000x100-{kind}", 1000, 100, behaviour)
    yield _cost("1x2500-short", 1, 2500, refuses, until=1200, short=True)
