"""While the queue is unreachable, deliveries that need nothing from it go on: deferred ones start when they are due.

If only a bucket takes nothing, its deliveries wait in a delay queue; if no delay queue does, in a bucket. Dead letters
wait in a delay queue, too.
"""

from collections import Counter

from notifier.delivery.settlement import UNPARKED_SECONDS
from notifier.model.client import RetryPolicy
from notifier.model.message import DEAD
from notifier.queues.rabbitmq.delays import DEAD_LETTER_SECONDS, DELAY_QUEUES
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


async def test_retries_wait_as_long_in_the_neighbours_of_their_delay_queue() -> None:
    """None stays in memory, and each returns when it is due, through shorter delay queues."""
    harness = WorkerHarness(client("shop", retry=RetryPolicy(base=16.0)))
    harness.queue.refusing.add("delay.16s")
    async with running(harness):
        await harness.prove("shop")
        harness.receivers.behaviours["shop"] = answers(503)
        await harness.acked(harness.event("shop"))
        harness.receivers.posts.clear()
        harness.receivers.behaviours.clear()
        assert await harness.through_delays(16.0) == [8.0, 16.0]
    assert [queue for queue, _ in harness.queue.published] == ["delay.8s", "delay.8s"]


async def test_deliveries_do_not_wait_in_memory_for_delay_queues() -> None:
    """If none takes them, they wait in the bucket of their client, and others go on. If that is full, in memory."""
    harness = WorkerHarness(client("down"), client("shop"), max_in_flight=8)
    harness.receivers.behaviours["down"] = answers(503)
    bucket = harness.queue.bucket((ISS, "down"))
    harness.queue.refusing.update(DELAY_QUEUES)
    async with running(harness):
        for number in range(40):
            await harness.acked(harness.event("down", sid=str(number), id=str(number)))
        await harness.acked(harness.event("shop"))
        assert len(harness.queue.buckets[bucket]) == 40
        harness.queue.refusing.add(bucket)
        late = harness.event("down", id="late")
        await harness.acked(harness.event("shop"))
        assert late not in harness.queue.acked
        harness.queue.refusing.remove("delay.16s")
        await harness.acked(late)
    assert harness.queue.published[-1][0] == "delay.16s"


async def test_dead_letters_do_not_wait_in_memory_for_their_queue() -> None:
    """They wait in a delay queue, again and again, and arrive as they were once theirs takes them."""
    harness = WorkerHarness(client("gone"), client("shop"), max_in_flight=8)
    harness.receivers.behaviours["gone"] = answers(403)
    harness.queue.refusing.add(DEAD)
    async with running(harness):
        for number in range(20):
            await harness.acked(harness.event("gone", id=str(number)))
            await harness.acked(harness.take(b"{}", message_id=f"unreadable-{number}"))
        await harness.acked(harness.event("shop"))
        await harness.pass_time(DEAD_LETTER_SECONDS + 1)
        waiting = {queue for queue, _ in harness.queue.published}
        assert (waiting, harness.dead()) == ({f"delay.{DEAD_LETTER_SECONDS}s"}, [])
        first = [message for _, message in harness.queue.published[:40]]
        harness.queue.refusing.clear()
        await harness.pass_time(DEAD_LETTER_SECONDS + 1)
    arrived = [message for queue, message in harness.queue.published if queue == DEAD]
    assert sorted(arrived, key=str) == sorted(first, key=str)
    assert len({message.message_id for message in arrived}) == len(arrived) == 40
    assert Counter(letter["reason"] for letter in harness.dead()) == {"refused": 20, "malformed_event": 20}
