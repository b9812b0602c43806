"""The goals of partial failure, of an instance that hangs, and of overload: a client that half works."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from statistics import mean, median

from notifier.model.client import RetryPolicy
from tests.simulator.case import Case, Finding, consecutive, seconds
from tests.simulator.clients import (
    NEVER,
    OK,
    SILENT,
    THROTTLED,
    UNAVAILABLE,
    Behaviour,
    LimitedRate,
    LimitedThreads,
    Step,
    every_third,
    partly,
)
from tests.simulator.partly import SETTLED, Partly, ideally, served

THREADS = 0.7  # of the pace of a client with four threads: requests are refused while all are busy, however even


def _partial(
    name: str, how: Partly, *, runs: int = 1, roomy: bool = False, seeds: int = 1, short: bool = False
) -> Case:
    """At least 0.8 of the pace of an ideal sender; p95 as its, if the slots suffice.

    A draw is the mean pace and the median p95 of as many runs, since the ideal is random, too.
    """

    def measure(seed: int) -> Finding:
        worlds = [replace(how, seed=world) for world in consecutive(runs, seed)]
        each = [(served(world), ideally(world)) for world in worlds]
        pace = mean(it.done / best.done for it, best in each)
        p95, p95_best = (median(one[which].p95 for one in each) for which in (0, 1))
        text = f"pace {pace:.2f}, p95 {seconds(p95)} (ideal {seconds(p95_best)})"
        return Finding(text, pace >= 0.8 and (not roomy or p95 <= 1.1 * p95_best + 1.0))

    goal = "pace ≥ 0.8 of ideal" + (", p95 ≤ 1.1 × ideal + 1 s" if roomy else "")
    return Case(name=f"partial-{name}", goal=goal, measure=measure, seeds=seeds, short=short)


def _mixed(share: float, bad: Step = (0.25, UNAVAILABLE), good: Step = (0.25, OK)) -> Callable[[], Behaviour]:
    return lambda: partly(share, bad, good)


def _flapping() -> Behaviour:
    """Down for four seconds, well for four."""
    return lambda now, _chance: (0.005, UNAVAILABLE if now % 8 < 4 else OK)


def _late_by_flapping(seed: int) -> Finding:
    """At 10 a second. It is not taken for overloaded."""
    it = served(Partly(behaviour=_flapping, rate=10, seconds=120, seed=seed))
    return Finding(f"p95 {seconds(it.p95)}, last {seconds(it.last)}", it.p95 <= 12 and it.last <= 8)


def partial_failure() -> Iterator[Case]:
    """A share of the answers fails, at the usual length."""
    for share in (0.1, 0.33, 0.5, 0.7):
        for rate in (2, 8, 30, 100):
            for most in (1, 4, 32):
                how = Partly(behaviour=_mixed(share), rate=rate, max_concurrent=most, after=240)
                roomy = rate / (1 - share) * 0.25 <= 0.9 * most and share < 0.7  # at 0.7 the p95 waits for hours
                name = f"{share}-{rate}/s-max{most}"
                if (rate, most) in {(8, 4), (30, 32)}:
                    yield _partial(name, replace(how, after=0), short=True)  # the pace alone
                else:
                    yield _partial(name, how, runs=5 if roomy else 1, roomy=roomy)
    yield Case(name="partial-flaps-10/s", goal="p95 ≤ 12 s, last ≤ 8 s", measure=_late_by_flapping, seeds=5, short=True)
    brisk = RetryPolicy(base=1, max_delay=10)
    for name, bad, good in (
        ("503", (0.25, UNAVAILABLE), (0.25, OK)),
        ("502-at-once", (0.002, UNAVAILABLE), (0.05, OK)),
    ):
        yield _partial(
            f"third-{name}",
            Partly(behaviour=partial(every_third, bad, good), rate=30, seconds=25, retry=brisk),
            runs=5, roomy=True,
        )  # fmt: skip
    for workers in (2, 3):
        for share in (0.33, 0.7):
            yield _partial(
                f"{share}-{workers}-workers",
                Partly(behaviour=_mixed(share), rate=30, workers=workers, after=0),
                seeds=6,
                short=(workers, share) == (3, 0.33),
            )


def _instance(
    name: str, share: float = 1 / 3, runs: int = 3, goal: float = 0.8, *, short: bool = False, **how: float
) -> Case:
    """0.8 of what its slots allow, while nobody else wants those of the silent. A draw is the mean of as many runs."""
    base = Partly(behaviour=_mixed(share, (NEVER, SILENT), (0.05, OK)), seconds=126, after=0, **how)  # type: ignore[arg-type]
    length = share * base.timeout + (1 - share) * 0.05
    possible = base.max_concurrent / length * (1 - share) * 110

    def measure(seed: int) -> Finding:
        worlds = (replace(base, backlog=round(1.4 * possible), seed=world) for world in consecutive(runs, seed))
        of_slots = mean(served(world).settled for world in worlds) / possible
        return Finding(f"{of_slots:.2f} of its slots", of_slots >= goal)

    return Case(name=f"instance-{name}", goal=f"≥ {goal} of its slots", measure=measure, short=short)


def _instance_at_4(workers: int, seed: int) -> Finding:
    """4 a second, every third hangs until 2 s. A draw is the median of five runs, since the ideal is random, too."""
    how = Partly(
        behaviour=partial(every_third, (NEVER, SILENT), (0.05, OK)), rate=4, seconds=25, timeout=2.0, workers=workers,
        retry=RetryPolicy(base=1, max_delay=10),
    )  # fmt: skip
    worlds = consecutive(5, seed, first=0)
    each = [(served(one), ideally(one)) for one in (replace(how, seed=world) for world in worlds)]
    p95, last = median(it.p95 for it, _ in each), median(it.last for it, _ in each)
    p95_best, last_best = median(best.p95 for _, best in each), median(best.last for _, best in each)
    text = f"p95 {seconds(p95)} (ideal {seconds(p95_best)}), last {seconds(last)} ({seconds(last_best)})"
    return Finding(text, p95 <= 1.1 * p95_best + 1 and last <= 1.2 * last_best + 1)


def instance_hangs() -> Iterator[Case]:
    """One of several instances of a client hangs."""
    yield _instance("max32", runs=1)
    yield _instance("max8-short", runs=1, short=True, max_concurrent=8)
    yield _instance("max32-timeout-2", timeout=2.0)
    yield _instance("max8", max_concurrent=8)
    yield _instance("max1", max_concurrent=1)
    yield _instance("one-of-ten", 0.1)
    yield _instance("one-of-two", 0.5)
    yield _instance("2-workers", workers=2)
    yield _instance("3-workers", workers=3)
    yield _instance("beside-10-dead", beside=10)
    yield _instance("beside-300-dead", goal=0.3, runs=1, beside=300)  # they share the suspects' slots
    for workers in (1, 2, 3):
        yield Case(
            name="instance-4/s" + (f"-{workers}-workers" if workers > 1 else ""),
            goal="p95 ≤ 1.1 × ideal + 1 s, last ≤ 1.2 × ideal + 1 s",
            measure=partial(_instance_at_4, workers),
            short=workers == 1,
        )


# ── overload ──


def _overload(
    name: str,
    how: Partly,
    pace: float,
    most: float,
    least: float,
    runs: int = 1,
    *,
    random: bool = True,
    short: bool = False,
) -> Case:
    """The client accepts so many a second and refuses the rest: few failed attempts, and its whole pace is used.

    A draw is the mean of as many runs.
    """
    possible = min(pace, how.rate or pace) * (how.seconds - SETTLED)

    def measure(seed: int) -> Finding:
        each = [served(replace(how, seed=world)) for world in consecutive(runs, seed)]
        tries, used = mean(it.tries for it in each), mean(it.settled for it in each) / possible
        return Finding(f"{tries:.2f} attempts a success, {used:.2f} of its pace", tries <= most and used >= least)

    goal = f"attempts ≤ {most:g}, pace ≥ {least:g}"
    return Case(name=f"overload-{name}", goal=goal, measure=measure, random=random, short=short)


def _each_seed(name: str, how: Partly, pace: float) -> Case:
    """Several workers before it: each run alone."""

    def measure(seed: int) -> Finding:
        it = served(replace(how, seed=seed))
        used = it.settled / pace / (how.seconds - SETTLED)
        return Finding(f"{it.tries:.2f} attempts a success, {used:.2f} of its pace", it.tries <= 2 and used >= 0.8)

    return Case(name=f"overload-each-{name}", goal="attempts ≤ 2, pace ≥ 0.8", measure=measure, seeds=6)


def overload() -> Iterator[Case]:
    """Two kinds of clients that take less than is wanted, and two refusals."""
    for word, refusal in (("503", UNAVAILABLE), ("429", THROTTLED)):
        kinds: tuple[tuple[str, Callable[[], Behaviour], float, float], ...] = (
            ("20/s", partial(LimitedRate, 20, refusal), 20, 0.9),
            ("4-threads", partial(LimitedThreads, 4, 0.1, refusal), 40, THREADS),
        )
        for kind, behaviour, pace, least in kinds:
            base = Partly(behaviour=behaviour, seconds=120, after=0, backlog=4800)
            several = min(0.8, least)
            yield _overload(f"{kind}-{word}", base, pace, 1.5, least, 2)
            brief = replace(base, seconds=60, backlog=70 * int(pace))
            yield _overload(f"{kind}-{word}-short", brief, pace, 1.5, least, short=word == "503")
            calm = replace(base, rate=0.8 * pace, backlog=0)
            draws = kind != "20/s"  # at an even 16 a second no attempt fails, so no random number is drawn
            yield _overload(f"{kind}-{word}-at-0.8", calm, pace, 1.5, 0.9, random=draws)
            for workers in (2, 3):
                shared = replace(base, workers=workers)
                name = f"{kind}-{word}-{workers}-workers"
                yield _overload(name, shared, pace, 2.2, several, 3)
                if word == "503":
                    yield _each_seed(name, replace(brief, workers=workers), pace)
                if (workers, word, kind) == (3, "503", "20/s"):
                    yield _overload(f"{name}-short", replace(brief, workers=3), pace, 2.2, several, short=True)
