"""The goals of waiting at scale: restarts, crowds that hang, shared buckets, copies, first attempts that fail."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from notifier.model.outcome import Cause
from tests.simulator.case import Case, Finding, seconds
from tests.simulator.clients import (
    OK,
    THROTTLED,
    UNAVAILABLE,
    Behaviour,
    LimitedRate,
    LimitedThreads,
    partly,
    steady,
)
from tests.simulator.releases import release_at_start
from tests.simulator.waiting import (
    Rolling,
    chains,
    copied,
    first_fails,
    hung,
    many,
    neighbour,
    other_clocks,
    outnumbered,
    paused,
    rolling,
    storm,
)


def waiting() -> Iterator[Case]:
    """All of them."""
    yield from _restarts()
    yield from _crowds_hang()
    yield from _storms()
    yield from _copies()
    yield from _first_attempts()
    yield from _outnumbered()
    yield from _clocks()
    yield from _releases()
    yield from _bounds()


def _rolling(name: str, how: Rolling, *, short: bool = False) -> Case:
    def measure(seed: int) -> Finding:
        last = rolling(replace(how, seed=seed))
        return Finding(f"last {seconds(last)}", last <= 30)

    return Case(name=f"restart-{name}", goal="last ≤ 30 s after the first stop", measure=measure, short=short)


def _restarts() -> Iterator[Case]:
    """A paced client with a backlog, behind a dead one in its bucket: while it drains, rests, or after its recovery."""
    for workers in (1, 3):
        for word, at, was_down in (("drains", 22, False), ("rests", 67, True), ("drains-again", 75, True)):
            for unreadable in (False, True):
                name = f"{word}-{workers}-workers" + ("-unreadable" if unreadable else "")
                how = Rolling(at=at, was_down=was_down, workers=workers, unreadable=unreadable)
                yield _rolling(name, how, short=unreadable == was_down and word != "rests")
    yield _neighbour(4000, short=True)
    yield _neighbour(30_000)
    yield _rolling("behind-2000", Rolling(at=22, was_down=False, parked=2000))


def _neighbour(parked: int, *, short: bool = False) -> Case:
    def measure(seed: int) -> Finding:
        last = neighbour(parked, seed)
        return Finding(f"last {seconds(last)} after the first", last <= 1)

    return Case(name=f"neighbour-of-{parked}", goal="last ≤ 1 s after the first", measure=measure, short=short)


def _hung(count: int, workers: int, *, short: bool = False) -> Case:
    def measure(seed: int) -> Finding:
        it = hung(count, workers, seed)
        text = f"p99 {seconds(it.p99)}, longest {seconds(it.longest)}; recovering: last {seconds(it.back)}"
        return Finding(text, it.p99 <= 30)

    return Case(name=f"hung-{count}-{workers}-workers", goal="p99 ≤ 30 s", measure=measure, short=short)


def _crowds_hang() -> Iterator[Case]:
    """So many clients hang. A client that is well, but fails one in four, has its retries in time."""
    for count in (300, 1500, 3000):
        for workers in (1, 3):
            yield _hung(count, workers, short=(count, workers) == (300, 1))


def _storm(name: str, *, short: bool = False, **how: int) -> Case:
    def measure(seed: int) -> Finding:
        it = storm(seed=seed, **how)
        return Finding(
            f"{it.busy:.1f} a second and worker (idle {it.idle:.1f}), delivered within {seconds(it.delivered)}",
            it.busy < 10 and it.delivered < 1,
        )

    return Case(name=f"storm-{name}", goal="moves < 10 a second and worker", measure=measure, short=short)


def _storms() -> Iterator[Case]:
    """Clients get first deliveries through buckets that clients with an open circuit share."""
    yield _storm("2000-in-8", parked=2000, dead=50, firsts=600, buckets=8, short=True)
    yield _storm("20000-in-64", parked=20_000, dead=300, firsts=3000, buckets=64)
    yield _storm("20000-in-64-3-workers", parked=20_000, dead=300, firsts=3000, buckets=64, workers=3)


def _copied(
    name: str, behaviour: Callable[[], Behaviour], rate: float, confirm: float, *, short: bool, **more: object
) -> Case:
    def measure(seed: int) -> Finding:
        it = copied(behaviour(), rate, confirm, seed, **more)
        return Finding(f"{it.twice} of {it.published} delivered twice, {it.left} left", it.twice == it.left == 0)

    return Case(
        name=f"copies-{name}-{confirm * 1e3:g}-ms",
        goal="none delivered twice by one worker",
        measure=measure,
        short=short,
    )


def _copies() -> Iterator[Case]:
    """Each event comes twice, to clients that take a part of it; the broker takes its time to confirm."""
    for confirm in (0.005, 0.1, 0.5):
        half = partial(partly, 0.5, (0.002, UNAVAILABLE), (0.005, OK))
        yield _copied("half-fail", half, 50, confirm, short=confirm == 0.1)
        yield _copied("one-at-a-time", partial(steady, 0.05), 30, confirm, max_concurrent=1, short=confirm == 0.5)
        yield _copied("30/s", partial(LimitedRate, 30, THROTTLED), 45, confirm, short=False)
        yield _copied("4-threads", partial(LimitedThreads, 4, 0.1, UNAVAILABLE), 50, confirm, short=False)
    yield _chains(1)
    yield _chains(3)


def _chains(workers: int) -> Case:
    most = 7 * workers  # about one a minute at each, and the first ones while the rests are short

    def measure(seed: int) -> Finding:
        return Finding(f"{(waits := chains(workers, seed))} retries wait", waits <= most)

    goal = f"at most {most} chains of retries after five minutes"
    return Case(name=f"copies-chains-{workers}-workers", goal=goal, measure=measure, short=True)


def _firsts(rate: float, workers: int, *, short: bool = False) -> Case:
    def measure(seed: int) -> Finding:
        it = first_fails(rate, workers, seed)
        text = f"last {seconds(it.last)}, {it.attempts:.2f} attempts each, {it.rests} rests"
        return Finding(text, it.last <= 7 and it.attempts <= 2.1)

    name = f"firsts-fail-{rate:g}/s-{workers}-workers"
    return Case(name=name, goal="last ≤ 7 s after the last event", measure=measure, short=short)


def _first_attempts() -> Iterator[Case]:
    """Each delivery's first attempt fails."""
    for rate in (20, 40, 80, 150):
        for workers in (1, 2, 3):
            yield _firsts(rate, workers, short=rate in (40, 150) and workers != 2)


def _outnumbered() -> Iterator[Case]:
    """More come than a client takes, and some are parked for it."""
    for rate in (11, 15, 30):
        for workers in (1, 3):

            def measure(seed: int, rate: float = rate, workers: int = workers) -> Finding:
                last = outnumbered(rate, workers, seed)
                return Finding(f"last {seconds(last)}", last <= 120)

            name, goal = (
                f"outnumbered-{rate}/s-{workers}-workers",
                "40 parked ones are delivered meanwhile: last ≤ 120 s",
            )
            yield Case(name=name, goal=goal, measure=measure, short=(rate, workers) == (15, 1))


def _clocks() -> Iterator[Case]:
    """Workers whose clocks differ from those of the workers before."""
    for ahead in (-3600, -120, 0, 3600):
        for workers in (1, 3):

            def measure(seed: int, ahead: int = ahead, workers: int = workers) -> Finding:
                last = other_clocks(ahead, workers, seed)
                return Finding(f"last {seconds(last)}", last <= 30)

            name, goal = f"clock-{ahead}-{workers}-workers", "last ≤ 30 s with a pause of 20 s"
            yield Case(name=name, goal=goal, measure=measure, random=False, short=True)


def _releases() -> Iterator[Case]:
    """The cause of deferrals ends while the workers are replaced, together or one after the other."""
    for cause, workers, gap in (
        (Cause.PAUSED, 1, 0),
        (Cause.PAUSED, 3, 0),
        (Cause.PAUSED, 3, 5),
        (Cause.SIGNING, 3, 0),
    ):

        def measure(seed: int, cause: Cause = cause, workers: int = workers, gap: int = gap) -> Finding:
            last = release_at_start(cause, workers, gap, seed)
            return Finding(f"last {seconds(last)}", last <= 10)

        name = f"release-{cause}-{workers}-workers" + ("-rolling" if gap else "")
        yield Case(name=name, goal="last ≤ 10 s after the last start", measure=measure, seeds=10, short=True)


def _bounds() -> Iterator[Case]:
    """More clients than a worker remembers."""

    def paused_ones(seed: int) -> Finding:
        left = paused(25_000, seed)
        return Finding(f"{left} of 1 left", left == 0)

    def told_ones(seed: int) -> Finding:
        left = many(25_000, 300, 3000, seed)
        return Finding(f"{left} of 25000 left", left == 0)

    yield Case(name="bounds-25000-paused", goal="goes on", measure=paused_ones)
    yield Case(name="bounds-25000-delivered-beside-3000-parked", goal="lives", measure=told_ones)
