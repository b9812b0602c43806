"""Measures how late a logout is after an outage, by the outage's length and kind."""

from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context

from tests.simulator.clients import Behaviour, answers_503, hangs, refuses, steady, well
from tests.simulator.outage import Outage, outage

LENGTHS = (1, 2, 4, 8, 15, 30, 60, 120, 300, 900, 3600)
KINDS: dict[str, tuple[Behaviour, Behaviour]] = {
    "refuses connections": (refuses, well),
    "answers 503": (answers_503, steady(0.25)),
    "does not answer": (hangs, well),
}


def measure_curve(processes: int) -> list[dict[str, float | str]]:
    """Return the lags after outages of all lengths and kinds."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        return list(pool.map(_measure_lag, *zip(*product(KINDS, LENGTHS), strict=True)))


def _measure_lag(kind: str, length: int) -> dict[str, float | str]:
    """Return the seconds from the recovery until the first and until all deferred deliveries are sent. The worst of
    three runs.
    """
    bad, good = KINDS[kind]
    rate = 10.0 if length <= 300 else 2.0
    runs = [outage(Outage(seconds=length, bad=bad, good=good, rate=rate, seed=seed)) for seed in (1, 2, 3)]
    return {
        "kind": kind,
        "outage": length,
        "begins": round(max(run.start for run in runs), 1),
        "last": round(max(run.lag for run in runs), 1),
    }
