"""What waits in delay queues for each client, as far as this worker put it off."""

import tracemalloc

from notifier.delivery.delay_counts import DelayCounts
from notifier.delivery.verdict import Defer, RetryAt, WaitsAs
from notifier.model.outcome import Cause

SHOP, MAIL = ("https://i", "shop"), ("https://i", "mail")


def test_each_counts_until_it_may_be_due() -> None:
    """A queue may bring a retry an eighth early, and a deferral after the power of two below."""
    now = 1000.0
    counts = DelayCounts(lambda: now)
    counts.put_off(SHOP, RetryAt(due=1080.0))
    counts.put_off(SHOP, RetryAt(due=1010.0, rounding="up"))
    counts.put_off(SHOP, Defer(due=1050.0, cause=Cause.CIRCUIT, waits_as=WaitsAs.PROBE))
    counts.put_off(MAIL, Defer(due=1007.0, cause=Cause.UNKNOWN))
    assert [*counts] == [(*SHOP, 3, 1010.0), (*MAIL, 1, 1004.0)]
    now = 1010.0
    assert [*counts] == [(*SHOP, 2, 1044.0)]
    counts.forget(SHOP)
    assert [*counts] == []


def test_what_comes_back_and_is_put_off_anew_counts_once() -> None:
    """Deliveries of a client that is down go round within seconds: told twice for a second each time, 66 were 109."""
    now = 1000.4
    counts = DelayCounts(lambda: now)
    counts.put_off(SHOP, RetryAt(due=1001.8, rounding="up"))
    now = 1001.9
    counts.put_off(SHOP, RetryAt(due=1003.5, rounding="up"))
    assert [*counts] == [(*SHOP, 1, 1003.5)]


def test_what_is_due_is_forgotten_though_nobody_asks() -> None:
    """A worker of which no status is ever wanted keeps no second of the past."""
    now = 1000.0
    counts = DelayCounts(lambda: now)
    tracemalloc.start(1)
    try:
        for _ in range(10_000):
            now += 1
            counts.put_off(SHOP, RetryAt(due=now + 80))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100_000
