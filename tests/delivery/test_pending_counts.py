"""The deliveries that wait in buckets and delay queues, as far as workers count them."""

import json
import tracemalloc

from notifier.delivery.settlement import LARGE_BACKLOG, BucketCounts, DelayCounts
from notifier.model.documents.documents import load_due
from tests.delivery.worker_harness import ISS, LARGE, MemoryQueue, WorkerHarness, client, running

SHOP, MAIL, WIKI = (("https://i", client_id) for client_id in ("shop", "mail", "wiki"))
BUCKETS = {SHOP: "7", MAIL: "7", WIKI: "8"}


class Buckets(MemoryQueue):
    """A queue with two buckets and a large one."""

    def bucket(self, key: tuple[str, str], *, large: bool = False) -> str:
        return LARGE if large else BUCKETS[key]


def test_pending_count_is_the_sum_over_workers() -> None:
    """Whoever parks adds, and whoever gets it back takes off."""
    one, other = BucketCounts(Buckets(float)), BucketCounts(Buckets(float))
    for _ in range(5):
        one.add(SHOP, +1)
    for _ in range(3):
        other.add(SHOP, -1)
    assert [*one, *other] == [(*SHOP, 5), (*SHOP, -3)]
    one.add(SHOP, -1)
    one.add(SHOP, -1)
    assert sum(count for _, _, count in (*one, *other)) == 0


def test_a_bucket_that_was_empty_twice_holds_nothing() -> None:
    """Then what a worker counted that is gone no longer distorts the sum. One that was empty once may be filled now."""
    counts = BucketCounts(Buckets(float))
    for key in BUCKETS:
        counts.add(key, +1)
    counts.forget_empty({"7", "8"})
    counts.forget_empty({"7"})
    assert [*counts] == [(*SHOP, 1), (*MAIL, 1), (*WIKI, 1)]
    counts.forget_empty({"7"})
    assert [*counts] == [(*SHOP, 1), (*MAIL, 1)]


def test_a_large_backlog_of_all_workers_goes_into_the_large_bucket() -> None:
    """Each of four workers has probably parked as many. That is so until the large bucket is empty."""
    counts = BucketCounts(Buckets(float))
    for _ in range(LARGE_BACKLOG // 4 - 1):
        counts.add(SHOP, +1, 4)
    assert counts.buckets_of(SHOP) == ("7",)
    counts.add(SHOP, +1, 4)
    assert (counts.next_bucket(SHOP), counts.buckets_of(SHOP)) == (LARGE, ("7", LARGE))
    assert counts.next_bucket(MAIL) == "7"
    counts.forget_empty({LARGE})
    counts.forget_empty({LARGE})
    assert (len([*counts]), counts.next_bucket(SHOP)) == (1, LARGE)
    counts.forget_empty({"7"})
    assert counts.next_bucket(SHOP) == "7"


def test_each_counts_until_it_may_be_due() -> None:
    """A delivery whose wait is rounded down may return an eighth early."""
    now = 1000.0
    counts = DelayCounts(lambda: now)
    counts.add(SHOP, 1080.0, "down")
    counts.add(SHOP, 1010.0, "up")
    counts.add(SHOP, 1050.0, "down")
    counts.add(MAIL, 1004.0, "up")
    assert [*counts] == [(*SHOP, 3, 1010.0), (*MAIL, 1, 1004.0)]
    now = 1010.0
    assert [*counts] == [(*SHOP, 2, 1044.0)]
    counts.forget(SHOP)
    assert [*counts] == []


async def test_status_and_lists_state_the_same_next_attempt_of_a_deferral() -> None:
    """Of a paused and of an unknown client, also if the publish takes 0.2 s: the count lost half of a paused wait."""
    async with running(WorkerHarness(client("shop", paused=True))) as harness:
        harness.queue.open.clear()
        message = harness.event("shop", "nobody")
        await harness.until(lambda: len(harness.queue.refused) == 2)
        harness.now += 0.2
        harness.queue.open.set()
        await harness.acked(message)
        counted = {(iss, client_id): due for iss, client_id, _, due in harness.worker.delayed}
        bodies = [sent.body for _, sent in harness.queue.published]
    listed = {(ISS, json.loads(body)["delivery"]["client_id"]): load_due(body) or 0.0 for body in bodies}
    assert {key: round(due) for key, due in listed.items()} == {key: round(due) for key, due in counted.items()}


def test_repeated_deferral_counts_once() -> None:
    """Deliveries of a client that is down return within seconds: counted twice for a second each time, 66 were 109."""
    now = 1000.4
    counts = DelayCounts(lambda: now)
    counts.add(SHOP, 1001.8, "up")
    now = 1001.9
    counts.add(SHOP, 1003.5, "up")
    assert [*counts] == [(*SHOP, 1, 1003.5)]


def test_due_deliveries_are_removed_without_a_read() -> None:
    """A worker of which no status is ever wanted keeps no second of the past."""
    now = 1000.0
    counts = DelayCounts(lambda: now)
    tracemalloc.start(1)
    try:
        for _ in range(10_000):
            now += 1
            counts.add(SHOP, now + 80, "down")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100_000
