"""While the queue is unreachable, deliveries that need nothing from it go on: deferred ones start when they are due."""

from tests.delivery.worker_harness import WorkerHarness, answers, client, running


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
