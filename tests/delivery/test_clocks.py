"""The wall clock jumps an hour in either direction: deliveries are neither lost, nor all released at once, nor late.

Values shared between workers or machines use the wall clock: due times, ages, `not_after`, `iat`. All others use the
monotonic clock. Where a rule has an unavoidable effect, the test's docstring names it.
"""

import json
import math
from typing import Any

import pytest

from notifier.delivery.admission import PAUSED_SECONDS, verdict_without_attempt
from notifier.delivery.facts import Attempted, LogoutDelivered
from notifier.delivery.verdict import Dead, Defer, record_deferral
from notifier.model.client import RetryPolicy
from notifier.model.documents.documents import load_delivery
from notifier.model.outcome import HttpResponse, TransportResult
from notifier.model.registry import Registry
from notifier.model.request import Request
from notifier.queues.rabbitmq.delays import split_into_hops
from tests.delivery.worker_harness import ISS, PARKED, WorkerHarness, answers, client, hop_of, running
from tests.support.deliveries import make_delivery

HOUR = 3600.0
JUMPS = pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forwards", "backwards"])
NOW = 1_800_000_000.0


async def failed_once(harness: WorkerHarness, **members: Any) -> None:
    """Let the delivery of event `e1` to `shop` fail once, so that its retry is pending."""
    await harness.prove("shop")
    harness.receivers.behaviours["shop"] = answers(503)
    await harness.acked(harness.event("shop", id="e1", **members))
    del harness.receivers.behaviours["shop"]


# ── deferred deliveries ────────────────────────────────────────────────────────────────────────────────────────


@JUMPS
async def test_pending_retry_is_neither_lost_nor_late(jump: float) -> None:
    """It is attempted after its delays at the latest, and not before the current delay has passed."""
    slow = RetryPolicy(base=45.0, jitter=0.0)
    async with running(WorkerHarness(client("shop", retry=slow))) as harness:
        await failed_once(harness)
        path = split_into_hops(45.0)
        assert hop_of(harness.queue.published[-1][0]) == path[0] == 32
        harness.jumped = jump
        looks = await harness.through_delays(most=45.0)
        assert looks[-1] == (path[0] if jump > 0 else sum(path))
        assert harness.notified() == ["shop", "shop"]
        assert harness.dead() == []


@JUMPS
async def test_next_retry_is_computed_from_the_new_time(jump: float) -> None:
    """Its delay follows the backoff, whatever the clock showed before."""
    async with running(WorkerHarness(client("shop", retry=RetryPolicy(base=45.0, factor=1.0, jitter=0.0)))) as harness:
        await failed_once(harness)
        harness.jumped = jump
        await harness.prove("shop")  # this failure belongs to the delivery, not to an outage of the client
        harness.receivers.behaviours["shop"] = answers(503)
        await harness.through_delays(most=45.0)
        body = harness.queue.published[-1][1].body
        schedule = json.loads(body)["schedule"]
        assert schedule["due"] == harness.now + jump + 45.0
        assert (hop_of(harness.queue.published[-1][0]), *schedule["hops"]) == split_into_hops(45.0)


@JUMPS
async def test_running_attempt_ages_by_its_duration(jump: float) -> None:
    """With the jump, it would seem an hour long, and a delivery without `sid` would expire after one attempt."""

    async def jumps(_request: Request) -> TransportResult:
        harness.now += 2.0
        harness.jumped = jump
        return HttpResponse(status=503)

    async with running(WorkerHarness(client("shop", retry=RetryPolicy(base=8.0, jitter=0.0)))) as harness:
        await harness.prove("shop")
        harness.receivers.behaviours["shop"] = jumps
        await harness.acked(harness.event("shop", sid=None))
        assert harness.dead() == []
        assert harness.queue.published[-1][0] == "delay.8s"
        delivery = load_delivery(harness.queue.published[-1][1].body)
        assert delivery.progress.first_attempt_at == harness.now + jump - 2.0
        [fact] = [fact for fact in harness.facts if isinstance(fact, Attempted)]
        assert fact.seconds == 2.0


# ── ages ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_max_age_survives_the_jump() -> None:
    """A delivery with `sid` is retried for a day; a jump forwards expires it only in its last hour."""
    async with running(WorkerHarness(client("shop"))) as harness:
        await failed_once(harness)
        harness.jumped = HOUR
        await harness.through_delays(most=2.0)
        assert harness.notified() == ["shop", "shop"]


async def test_a_delivery_without_sid_expires_in_a_jump_forwards() -> None:
    """Unavoidable: it may really have waited that long while no worker ran, and after `sub_only_max_age` (10 min) it
    would end a later session. An operator may replay it.
    """
    async with running(WorkerHarness(client("shop"))) as harness:
        await failed_once(harness, sid=None)
        harness.jumped = HOUR
        await harness.through_delays(most=2.0)
        assert [dead_letter["reason"] for dead_letter in harness.dead()] == ["expired"]


@pytest.mark.parametrize("sid", ["s1", None])
@pytest.mark.parametrize("parked", [True, False])
async def test_a_clock_a_day_ahead_ends_no_young_delivery_with_sid(sid: str | None, *, parked: bool) -> None:
    """It has waited for seconds, so it gets an attempt before it expires. Without `sid` it expires: it may be old."""
    async with running(WorkerHarness(client("shop"))) as harness:
        await harness.prove("shop")
        harness.receivers.behaviours["shop"] = answers(503, "60")
        await harness.acked(harness.event("shop", id="e1"))
        if parked:
            await harness.acked(harness.event("shop", id="e2", sid=sid))
            assert harness.queue.published[-1][0] == PARKED
        else:
            harness.receivers.behaviours["shop"] = answers(503)
            harness.now += 61.0
            await harness.acked(harness.event("shop", id="e2", sid=sid))
        del harness.receivers.behaviours["shop"]
        reported = len(harness.notified())
        harness.now, harness.jumped = harness.now + 61.0, 25 * HOUR
        if parked:
            await harness.acked(harness.event("shop", id="e3"))
            await harness.until(lambda: not any(harness.queue.buckets.values()))
        else:
            await harness.acked(harness.retake(harness.queue.published[-1][0]))
        await harness.settled()
        assert [dead_letter["event_id"] for dead_letter in harness.dead()] == ([] if sid else ["e2"])
        assert len(harness.notified()) == reported + parked + (sid is not None)


async def test_the_attempt_of_a_clock_ahead_is_the_last_one() -> None:
    """If it fails, the delivery expires, since the clock may be right."""
    async with running(WorkerHarness(client("shop"))) as harness:
        await failed_once(harness)
        harness.receivers.behaviours["shop"] = answers(503)
        harness.jumped = 25 * HOUR
        await harness.through_delays(most=2.0)
        await harness.until(lambda: bool(harness.dead()))
        assert [dead_letter["attempts"] for dead_letter in harness.dead()] == [2]


async def test_a_young_delivery_waits_for_its_attempt_while_the_clock_is_ahead() -> None:
    """Its client asked for a minute. The clock alone does not expire the delivery; its recorded waits do."""
    async with running(WorkerHarness(client("shop", retry=RetryPolicy(max_age=50.0)))) as harness:
        harness.receivers.behaviours["shop"] = answers(503, "3600")
        await harness.acked(harness.event("shop", id="e1"))
        await harness.acked(harness.event("shop", id="e2"))
        harness.jumped = 25 * HOUR
        looks = await harness.through_delays(most=60.0)
        assert looks[-1] >= 40.0
        assert [dead_letter["event_id"] for dead_letter in harness.dead()] == ["e2"]


@pytest.mark.parametrize("parked", [True, False])
async def test_a_delivery_without_sid_is_never_late_after_a_clock_was_set_back(*, parked: bool) -> None:
    """Its recorded waits are the minimum of its age. The age of a delivery parked meanwhile is unknown."""
    policy = RetryPolicy(base=100.0, factor=1.0, jitter=0.0, sub_only_max_age=300.0)
    async with running(WorkerHarness(client("shop", retry=policy))) as harness:
        harness.jumped = HOUR
        await harness.prove("shop")
        harness.receivers.behaviours["shop"] = answers(503, "200" if parked else None)
        began = harness.now
        await harness.acked(harness.event("shop", id="e1", sid=None))
        if parked:
            await harness.acked(harness.event("shop", id="e2", sid=None))
            assert harness.queue.published[-1][0] == PARKED
            harness.now, harness.jumped = harness.now + 250.0, 0.0
            del harness.receivers.behaviours["shop"]
            await harness.acked(harness.event("shop", id="e3"))
            await harness.until(lambda: bool(harness.dead()))
        else:
            harness.now, harness.jumped = harness.now + 1.0, 0.0
            while not harness.dead():
                await harness.prove("shop")
                harness.receivers.behaviours["shop"] = answers(503)
                await harness.through_delays(most=200.0)
            assert harness.now - began < 350.0
        [dead_letter] = harness.dead()
        assert "without sid" in dead_letter["text"]


async def test_a_first_attempt_is_made_however_late() -> None:
    """A jump forwards expires no untried delivery, with or without `sid`."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.jumped = HOUR
        await harness.acked(harness.event("shop", sid=None, ended_at="2027-01-15T08:00:00Z"))
        assert harness.notified() == ["shop"]


async def test_not_after_is_what_the_clock_says() -> None:
    """Unavoidable: the publisher sets this moment. A jump backwards permits an attempt that was too late before."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.event("shop", not_after="2027-01-15T08:10:00Z")  # ten minutes from now
        await harness.until(lambda: len(harness.queue.acked) == 1)
        harness.jumped = HOUR
        await harness.acked(harness.event("shop", not_after="2027-01-15T08:10:00Z"))
        assert [dead_letter["reason"] for dead_letter in harness.dead()] == ["expired"]
        harness.jumped = -HOUR
        await harness.acked(harness.event("shop", not_after="2027-01-15T07:10:00Z"))
        assert harness.notified() == ["shop", "shop"]


@JUMPS
@pytest.mark.parametrize("unknown", ["client", "issuer"])
async def test_grace_of_an_unknown_name_keeps_its_length(unknown: str, jump: float) -> None:
    """Its recorded checks give its waiting time: five minutes, plus or minus the error of the last one."""
    async with running(WorkerHarness(client("shop"))) as harness:
        named: dict[str, Any] = {"iss": "https://new.example"} if unknown == "issuer" else {}
        await harness.acked(harness.event("nobody", id="e1", **named))
        harness.jumped = jump
        looks = await harness.through_delays(most=450.0)
        assert looks[-1] >= 250
        assert [dead_letter["reason"] for dead_letter in harness.dead()] == [f"unknown_{unknown}"]


@JUMPS
async def test_a_paused_delivery_is_credited_with_the_pause_alone(jump: float) -> None:
    """The jump is not credited: `uncounted_seconds` is the sum of its deferrals."""
    delivery = make_delivery(
        id="d", event_id="e", id_given=True, iss=ISS, client_id="shop", sub="a", sid="s", first_taken_at=NOW
    )
    paused = client("shop", paused=True)
    now = NOW
    for count in range(1, 4):
        verdict = verdict_without_attempt(delivery, paused, paused, Registry(), now)
        assert isinstance(verdict, Defer)
        delivery = record_deferral(delivery, verdict, paused.retry, now)
        assert delivery.progress.uncounted_seconds == count * PAUSED_SECONDS
        now += PAUSED_SECONDS + (jump if count == 1 else 0.0)


# ── reported values ────────────────────────────────────────────────────────────────────────────────────────────


@JUMPS
async def test_each_token_is_dated_when_it_is_made(jump: float) -> None:
    """Neither the event's end nor the delivery's start is used, so a corrected clock gives correct tokens."""
    async with running(WorkerHarness(client("shop"))) as harness:
        await failed_once(harness)
        harness.jumped, harness.now = jump, harness.now + 0.75
        await harness.through_delays(most=2.0)
        [_, (_, claims)] = harness.receivers.posts
        assert claims["iat"] == math.floor(harness.now + jump) <= harness.now + jump


@JUMPS
async def test_propagation_is_never_negative(jump: float) -> None:
    """An event that ended before the clock stepped back has an end in the future."""
    async with running(WorkerHarness(client("shop"))) as harness:
        await failed_once(harness, ended_at="2027-01-15T07:59:59Z")
        harness.jumped = jump
        await harness.through_delays(most=2.0)
        [fact] = [fact for fact in harness.facts if isinstance(fact, LogoutDelivered)]
        assert fact.propagation == (HOUR + 3 if jump > 0 else 0.0)


def test_a_verdict_before_its_time_is_none() -> None:
    """A clock set back before the first attempt makes no age negative: the delivery is attempted."""
    delivery = make_delivery(
        id="d", event_id="e", id_given=True, iss=ISS, client_id="shop", sub="a", sid="s", first_taken_at=NOW
    )
    found = verdict_without_attempt(delivery, client("shop"), client("shop"), Registry(), NOW - HOUR)
    assert not isinstance(found, Dead)
    assert found is None
