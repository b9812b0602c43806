"""While the queue is unreachable, deliveries that need nothing from it go on: deferred ones start when they are due.

If only a bucket takes nothing, its deliveries wait in a delay queue.
"""

from notifier.delivery.settlement import UNPARKED_SECONDS
from tests.delivery.worker_harness import ISS, PARKED, WorkerHarness, answers, client, hop_of, running


async def test_rate_limited_deliveries_start_while_the_queue_is_down() -> None:
    """More deliveries come than the client's rate permits; they start at that rate. A retry waits, because it counts an
    attempt.

    It came due meanwhile, so it returns as soon as possible.
    """
    harness = WorkerHarness(client("shop", per_second=20), client("down"))
    harness.receivers.behaviours["down"] = answers(503)
    harness.now += 1  # a worker that starts has no token but one
    async with running(harness):
        harness.queue.open.clear()
        harness.event("down", id="down")
        for number in range(40):
            harness.event("shop", sid=str(number), id=str(number))
        await harness.until(lambda: harness.notified().count("shop") == 20)
        harness.now += 10
        await harness.until(lambda: harness.notified().count("shop") == 40)
        assert (harness.notified().count("down"), harness.queue.published) == (1, [])
        harness.queue.open.set()
        await harness.until(lambda: len(harness.queue.acked) == 41)
    assert [queue for queue, _ in harness.queue.published] == ["delay.1s"]


async def test_deliveries_do_not_wait_in_memory_for_their_bucket() -> None:
    """They are acked once they are in a delay queue, and parked when they return and the bucket takes them.

    They count as parked meanwhile. After the recovery each is delivered once.
    """
    harness = WorkerHarness(client("down"))
    harness.receivers.behaviours["down"] = answers(503)
    bucket = harness.queue.bucket((ISS, "down"))
    harness.queue.refusing.add(bucket)
    async with running(harness):
        for number in range(20):
            await harness.acked(harness.event("down", sid=str(number), id=str(number)))
        unparked = [queue for queue, _ in harness.queue.published if hop_of(queue) == UNPARKED_SECONDS]
        assert len(unparked) > 10
        assert [*harness.worker.parked] == [(ISS, "down", len(unparked))]
        harness.queue.refusing.clear()
        await harness.pass_time(UNPARKED_SECONDS + 1)
        assert len(harness.queue.buckets[bucket]) > 10  # all but probes
        harness.receivers.behaviours["down"] = answers(204)
        accepted_from = len(harness.receivers.posts)
        await harness.pass_time(120)
    accepted = [claims["sid"] for _, claims in harness.receivers.posts[accepted_from:]]
    assert sorted(accepted, key=int) == [str(number) for number in range(20)]
    assert PARKED in dict(harness.queue.published)
