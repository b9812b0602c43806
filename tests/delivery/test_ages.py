"""Ages, by a worker: an undeliverable event expires after its maximum age, attempted or not."""

from dataclasses import replace
from typing import Any

import pytest

from notifier.delivery.facts import Deferred
from notifier.model.client import RetryPolicy
from notifier.model.delivery import Delivery
from notifier.model.documents.documents import load_delivery
from notifier.model.outcome import Cause
from notifier.model.registry import ENDLESS_SECONDS
from tests.delivery.worker_harness import ISS, PARKED, WorkerHarness, answers, client, running

HOUR = 3600.0


async def waits(harness: WorkerHarness, **members: Any) -> Delivery:
    """Let `shop` request a pause, and return the delivery of a second event as the queue has it."""
    harness.receivers.behaviours["shop"] = answers(503, "3600")
    await harness.acked(harness.event("shop", id="first"))
    await harness.acked(harness.event("shop", id="second", **members))
    return load_delivery(harness.queue.published[-1][1].body)


async def test_unattempted_delivery_expires() -> None:
    """It is checked just before its limit, and a dead letter just after it, with the cause of its deferral.

    With less than a minute left it is not parked: nothing would expire it there.
    """
    async with running(WorkerHarness(client("shop", retry=RetryPolicy(max_age=50.0)))) as harness:
        began = harness.now
        waiting = await waits(harness)
        assert (waiting.progress.attempts, waiting.progress.first_taken_at, waiting.progress.waited_for) == (
            0,
            began,
            (Cause.RETRY_AFTER,),
        )
        looks = await harness.through_delays(most=60.0)
        [dead_letter] = harness.dead()
    assert harness.notified() == ["shop"]
    assert [48 < look <= 50 for look in looks[-2:]] == [True, False]
    assert (looks[-1] <= 52, len(looks) <= 16) == (True, True)
    assert dead_letter["reason"] == "expired"
    assert dead_letter["text"].startswith("never attempted in 5")
    assert "deferred for retry_after: older than max_age (50 s)" in dead_letter["text"]


async def test_delivery_without_sid_is_never_sent_late() -> None:
    """Not even by a first attempt: it would end a session that the user has started since."""
    async with running(WorkerHarness(client("shop"))) as harness:
        await waits(harness, sid=None)
        assert harness.queue.published[-1][0] == PARKED
        del harness.receivers.behaviours["shop"]
        harness.now += HOUR
        await harness.acked(harness.event("shop", id="third"))
        await harness.until(lambda: bool(harness.dead()))
        [dead_letter] = harness.dead()
    assert harness.notified() == ["shop", "shop"]
    assert dead_letter["event_id"] == "second"
    assert "sub_only_max_age (600 s)" in dead_letter["text"]


async def test_last_attempt_is_made_if_the_client_admits_it() -> None:
    """The client asked for a pause of an hour. The delivery expires a second later, and a check just before finds the
    client ready.
    """
    async with running(WorkerHarness(client("shop", retry=RetryPolicy(max_age=HOUR + 2, max_delay=HOUR)))) as harness:
        harness.receivers.behaviours["shop"] = answers(503, "3600")
        await harness.acked(harness.event("shop", id="first"))
        del harness.receivers.behaviours["shop"]
        await harness.through_delays(most=HOUR + 10)
        assert harness.dead() == []
    assert harness.notified() == ["shop", "shop"]


async def test_age_continues_while_the_queue_is_unreachable() -> None:
    """A delivery that waits in memory, because the queue accepts no deferral, keeps its
    age when it is offered again.
    """
    async with running(WorkerHarness(client("shop", per_second=0.001, retry=RetryPolicy(max_age=2.0)))) as harness:
        await harness.acked(harness.event("shop", id="first"))
        harness.queue.open.clear()
        harness.event("shop", id="second")
        await harness.until(lambda: bool(harness.queue.refused))
        assert harness.queue.refused == ["delay.1s"]
        harness.now += 3.0
        await harness.until(lambda: "dead" in harness.queue.refused)
        harness.queue.open.set()
        await harness.until(lambda: len(harness.queue.acked) == 2)
        [dead_letter] = harness.dead()
    assert dead_letter["text"] == "never attempted in 3 s, deferred for rate: older than max_age (2 s)"
    assert [fact for fact in harness.facts if isinstance(fact, Deferred)] == []


@pytest.mark.parametrize(("sid", "limit"), [("s1", "max_age (5 s)"), (None, "sub_only_max_age (4 s)")])
async def test_age_of_an_unknown_client_stops_for_max_paused_at_most(sid: str | None, limit: str) -> None:
    """Also while a registry source, which may have the client, does not answer. The issuer's limits apply."""
    own = client("", retry=RetryPolicy(max_age=5.0, sub_only_max_age=4.0, max_paused=10.0))
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.registry = replace(harness.registry, grace=ENDLESS_SECONDS, unregistered_at={ISS: own})
        await harness.acked(harness.event("nobody", id="e1", sid=sid))
        looks = await harness.through_delays(most=60.0)
        [dead_letter] = harness.dead()
    assert looks == [2.0, 6.0, 14.0, 30.0]
    assert dead_letter["reason"] == "expired"
    assert dead_letter["text"].startswith("never attempted in 30 s, deferred for unknown, 10 s of it through no fault")
    assert limit in dead_letter["text"]


async def test_an_event_of_an_unknown_issuer_waits_for_a_day_at_most() -> None:
    """Also while a registry source does not answer: no source has issuers."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.registry = replace(harness.registry, grace=ENDLESS_SECONDS)
        await harness.acked(harness.event("shop", iss="https://new.example"))
        looks = await harness.through_delays(most=90_000.0)
        [dead_letter] = harness.dead()
    assert dead_letter["reason"] == "unknown_issuer"
    assert looks[-1] > 86_000.0
