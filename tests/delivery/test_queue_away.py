"""While the queue is unreachable, deliveries that need nothing from it go on: deferred ones start when they are due.

If only a bucket takes nothing, or the queue of dead letters, their deliveries wait in a delay queue.
"""

from collections import Counter
from dataclasses import replace

from notifier.delivery.facts import DeadLettered
from notifier.delivery.settlement import DECIDED_AGAIN_SECONDS, UNPARKED_SECONDS
from notifier.model.message import DEAD
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


async def test_deliveries_do_not_wait_in_memory_for_the_queue_of_dead_letters() -> None:
    """Or one client that refuses all would stop the deliveries of all others. Each is decided again when it returns."""
    harness = WorkerHarness(client("refusing"), client("shop"), max_in_flight=8)
    harness.receivers.behaviours["refusing"] = answers(403)
    harness.queue.refusing.add(DEAD)
    async with running(harness):
        for number in range(20):  # more than have room in memory
            harness.event("refusing", sid=str(number), id=str(number))
        await harness.acked(harness.event("shop", id="other"))
        await harness.until(lambda: len(harness.queue.acked) == 21)
        assert [hop_of(queue) for queue, _ in harness.queue.published] == [DECIDED_AGAIN_SECONDS] * 20
        assert not any(isinstance(fact, DeadLettered) for fact in harness.facts)
        assert [(client_id, count) for _, client_id, count, _ in harness.worker.delayed] == [("refusing", 20)]
        harness.queue.refusing.clear()
        await harness.pass_time(DECIDED_AGAIN_SECONDS + 1, step=DECIDED_AGAIN_SECONDS / 2)
    assert [letter["reason"] for letter in harness.dead()] == ["refused"] * 20
    assert sum(isinstance(fact, DeadLettered) for fact in harness.facts) == 20
    assert len({claims["jti"] for _, claims in harness.receivers.posts}) == 41


async def test_malformed_events_do_not_wait_in_memory_for_the_queue_of_dead_letters() -> None:
    """Or a publisher of such would stop the deliveries of all. Nor do events of an unknown issuer."""
    harness = WorkerHarness(client("shop"), max_in_flight=8)
    harness.registry = replace(harness.registry, grace=0.0)
    harness.queue.refusing.add(DEAD)
    async with running(harness):
        for number in range(20):  # more than have room in memory
            harness.take(b"{%d" % number, user_id="idp", message_id=str(number))
            harness.event("shop", iss="https://unknown.example", id=str(number))
        await harness.acked(harness.event("shop", id="other"))
        await harness.until(lambda: len(harness.queue.acked) == 41)
        assert [hop_of(queue) for queue, _ in harness.queue.published] == [DECIDED_AGAIN_SECONDS] * 40
        harness.queue.refusing.clear()
        await harness.pass_time(DECIDED_AGAIN_SECONDS + 1, step=DECIDED_AGAIN_SECONDS / 2)
    assert Counter(letter["reason"] for letter in harness.dead()) == {"malformed_event": 20, "unknown_issuer": 20}
    malformed = [letter for letter in harness.dead() if letter["reason"] == "malformed_event"]
    assert sorted(int(letter["event_id"]) for letter in malformed) == [*range(20)]
    assert {letter["publisher"] for letter in malformed} == {"idp"}
