"""What 100,000 clients that wait take of a worker's memory: little is kept of each."""

import tracemalloc
from collections.abc import Callable

import pytest

from notifier.delivery.client_state import Admission
from notifier.delivery.settlement import DelayCounts
from notifier.model.outcome import Failed, Reason
from tests.delivery.scheduler_harness import SchedulerHarness

CLIENTS = 2000
THROTTLED = Failed(reason=Reason.THROTTLED, status=429, retry_after=3600.0)


def kept(make: Callable[[], object]) -> int:
    """Bytes of what this makes, and keeps."""
    tracemalloc.start(1)
    try:
        before, _ = tracemalloc.get_traced_memory()
        made = make()
        after, _ = tracemalloc.get_traced_memory()
        del made
        return after - before
    finally:
        tracemalloc.stop()


def pauses(number: int, harness: SchedulerHarness) -> None:
    """One delivery for the client is answered by a pause, while another waits in memory."""
    name = f"c{number}"
    harness.now += 0.01
    harness.ask(name)
    assert harness.ask(name) is Admission.WAIT
    harness.end(name, THROTTLED)
    harness.running.clear()
    for _ in harness.tick():
        pass
    harness.facts.clear()
    harness.reports.clear()


@pytest.mark.full
def test_a_client_that_is_paused_takes_1000_bytes() -> None:
    """Also if a second delivery waited in memory for the end of the first."""

    def many() -> SchedulerHarness:
        harness = SchedulerHarness()
        for number in range(CLIENTS):
            pauses(number, harness)
        return harness

    assert kept(many) <= 1000 * CLIENTS


def test_a_client_with_a_delivery_in_a_delay_queue_takes_little() -> None:
    """However many wait, their moments are few."""

    def many() -> DelayCounts:
        counts = DelayCounts(lambda: 1000.0)
        for number in range(CLIENTS):
            counts.add(("https://i", f"c{number}"), 1300.0 + number % 60, "down")
        return counts

    assert kept(many) <= 200 * CLIENTS
