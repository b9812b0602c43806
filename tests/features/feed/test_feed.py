"""The feed of outcomes for audit systems, and its bounds."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

from notifier.delivery.facts import Attempted, ClientFailing, ClientRecovered, DeadLettered, Deferred
from notifier.features.feed.feed import NOTICE_OVERHEAD_BYTES, Feed
from notifier.features.feed.feed_event import feed_message
from notifier.model.client import Client
from notifier.model.errors import QueueUnavailable
from notifier.model.notice import ClientChange, ClientNotice, DeliveryResult, FeedNotice, Notice
from notifier.model.outcome import Cause, DeadReason, Reason, TransportFailure
from tests.delivery.worker_harness import ISS, WorkerHarness, answers, client, results_in, running


class Target:
    """A target that keeps what it gets. It fails `fails` times, and takes nothing while `open` is clear."""

    max_batch = 16

    def __init__(self, *, fails: int = 0) -> None:
        self.notices: list[FeedNotice] = []
        self.batches: list[int] = []
        self.fails = fails
        self.open = asyncio.Event()
        self.open.set()

    async def run(self) -> None:
        return

    async def wait_until_available(self) -> None:
        await self.open.wait()

    async def send(self, batch: Sequence[FeedNotice]) -> None:
        await self.open.wait()
        if self.fails:
            self.fails -= 1
            raise QueueUnavailable("away")
        self.batches.append(len(batch))
        self.notices += batch


def feed_of(*, include_successes: bool = True, **more: Any) -> Feed:
    numbers = itertools.count()
    return Feed(
        include_successes=include_successes,
        clock=lambda: 1_800_000_000.5,
        new_id=lambda: f"new-{next(numbers)}",
        **more,
    )


async def notices_of(harness: WorkerHarness, *, include_successes: bool = True) -> list[FeedNotice]:
    """Return the notices of all facts of the harness."""
    feed, target = feed_of(include_successes=include_successes), Target()
    for fact in harness.facts:
        feed.observe(fact)
    await feed.flush(target, 5)
    assert feed.dropped_count == 0
    return target.notices


async def mixed() -> WorkerHarness:
    """A worker that notified one client, was refused by another, failed at a third, and had no URI for a fourth."""
    mute = Client(iss=ISS, client_id="mute", backchannel_logout_uri=None)
    harness = WorkerHarness(client("well"), client("refuses"), client("broken"), mute)
    harness.receivers.behaviours["refuses"] = answers(403)
    harness.receivers.behaviours["broken"] = answers(503)
    async with running(harness):
        await harness.prove("broken")
        await harness.acked(
            harness.event("well", "refuses", "broken", "mute", id="e1", ended_at="2027-01-15T08:00:00Z")
        )
    return harness


async def test_every_fate_is_published_with_the_sent_jti() -> None:
    """A client's own log can be matched by it; a skipped client got none."""
    harness = await mixed()
    notices = {one.client_id: one for one in await notices_of(harness) if isinstance(one, Notice)}
    sent = {name: claims["jti"] for name, claims in harness.receivers.posts}
    assert {name: feed_message(one, "").routing_key for name, one in notices.items()} == {
        "well": "delivered.delivered",
        "refuses": "dead.refused",
        "broken": "retrying.server_error",
        "mute": "skipped.no_uri",
    }
    for name in ("well", "refuses", "broken"):
        attempt = notices[name].last_attempt
        assert attempt is not None
        assert (attempt.jti, attempt.number) == (sent[name], 1)
        assert notices[name].id == sent[name]
        assert notices[name].event_id == "e1"
    assert [notices[name].last_attempt.status for name in ("well", "refuses", "broken")] == [200 + 4, 403, 503]  # type: ignore[union-attr]
    assert notices["mute"].last_attempt is None
    assert notices["well"].propagation == 0.0
    assert notices["broken"].next_due is not None


async def test_failures_omits_deliveries_and_skips() -> None:
    """Neither deliveries nor skipped clients are published."""
    notices = await notices_of(await mixed(), include_successes=False)
    assert {one.client_id for one in notices} == {"refuses", "broken"}
    assert all(isinstance(one, Notice) and one.last_attempt is not None for one in notices)


async def test_a_retry_is_published_with_its_own_jti() -> None:
    """R2: each attempt has another, and so has each outcome."""
    harness = WorkerHarness(client("shop"))
    harness.receivers.behaviours["shop"] = answers(503)
    async with running(harness):
        await harness.acked(harness.event("shop", id="e1"))
        del harness.receivers.behaviours["shop"]
        harness.now += 60
        await harness.acked(harness.retake(harness.queue.published[-1][0]))
    notices = [one for one in await notices_of(harness) if isinstance(one, Notice)]
    assert [(one.fate, one.last_attempt and one.last_attempt.number) for one in notices] == [
        (DeliveryResult.RETRYING, 1),
        (DeliveryResult.DELIVERED, 2),
    ]
    assert [one.last_attempt and one.last_attempt.jti for one in notices] == [
        claims["jti"] for _, claims in harness.receivers.posts
    ]
    assert notices[0].delivery_id == notices[1].delivery_id


async def test_a_deferred_attempt_is_not_attached_to_later_fates() -> None:
    """While an issuer's key is unpublished each 400 is a deferral: no attempt counts, and none is remembered."""
    attempted = next(fact for fact in (await mixed()).facts if type(fact) is Attempted)
    delivery = attempted.delivery
    who: dict[str, Any] = {
        "iss": delivery.iss,
        "client_id": delivery.client_id,
        "event_id": delivery.event_id,
        "delivery": delivery,
    }
    feed, target = feed_of(), Target()
    feed.observe(attempted)
    feed.observe(Deferred(cause=Cause.SIGNING, due=1_800_000_009.0, **who))
    feed.observe(DeadLettered(reason=DeadReason.EXPIRED, text="too late", **who))
    await feed.flush(target, 5)
    assert [one.last_attempt for one in target.notices if isinstance(one, Notice)] == [None]


async def test_a_malformed_event_is_published() -> None:
    """Without a client, since none is known."""
    harness = WorkerHarness()
    async with running(harness):
        await harness.acked(harness.take(b"{"))
    (notices,) = await notices_of(harness)
    assert feed_message(notices, "").routing_key == "dead.malformed_event"
    assert notices.client_id == ""


async def test_a_client_change_is_published_once() -> None:
    """A client that fails again and again causes one notice when it goes down, and one when it recovers."""
    harness = WorkerHarness(client("shop"))
    refused = TransportFailure(reason=Reason.CONNECT, ambiguous=False, text="refused")
    harness.receivers.behaviours["shop"] = results_in(refused)
    async with running(harness):
        for number in range(40):
            await harness.acked(harness.event("shop", id=f"e{number}"))
            harness.now += 1
        del harness.receivers.behaviours["shop"]
        for number in range(40, 80):
            harness.now += 30
            await harness.acked(harness.event("shop", id=f"e{number}"))
    changes = [fact for fact in harness.facts if isinstance(fact, ClientFailing | ClientRecovered)]
    notices = [one for one in await notices_of(harness, include_successes=False) if isinstance(one, ClientNotice)]
    assert [one.state for one in notices] == [ClientChange.FAILING, ClientChange.RECOVERED]
    assert len(changes) == 2
    assert [feed_message(one, "").routing_key for one in notices] == ["client.failing", "client.recovered"]
    assert len({one.id for one in notices}) == 2


async def test_notices_beyond_the_buffer_are_dropped_and_counted() -> None:
    """While the target takes nothing the buffer fills to its limit, and goes on from there when the target is back."""
    feed, target = feed_of(max_bytes=10 * (NOTICE_OVERHEAD_BYTES + 20)), Target()
    changed = ClientFailing(iss="1234567890", client_id="1234567890", next_try=0.0)
    target.open.clear()
    task = asyncio.create_task(feed.run(target))
    for _ in range(25):
        feed.observe(changed)
    assert feed.dropped_count == 15
    target.open.set()
    async with asyncio.timeout(20):
        while len(target.notices) < 10:  # noqa: ASYNC110  a round of the loop is not a wait
            await asyncio.sleep(0)
    for _ in range(5):
        feed.observe(changed)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await feed.flush(target, 20)
    assert len(target.notices) == 15
    assert feed.dropped_count == 15


async def test_a_lost_batch_is_counted() -> None:
    """It is not sent again, since nobody knows what of it arrived; the next is."""
    feed, target = feed_of(), Target(fails=1)
    for _ in range(20):
        feed.observe(ClientFailing(iss=ISS, client_id="shop", next_try=0.0))
    await feed.flush(target, 20)
    assert feed.dropped_count == 16
    assert target.batches == [4]


async def test_a_failing_target_is_counted() -> None:
    """An internal error in it is counted like any loss."""

    class Broken(Target):
        async def send(self, batch: Sequence[FeedNotice]) -> None:
            raise ZeroDivisionError

    feed = feed_of()
    feed.observe(ClientFailing(iss=ISS, client_id="shop", next_try=0.0))
    await feed.flush(Broken(), 20)
    assert feed.dropped_count == 1


async def test_a_flush_is_bounded() -> None:
    """What a target does not take in time is dropped and counted."""
    feed, target = feed_of(), Target()
    target.open.clear()
    for _ in range(20):
        feed.observe(ClientFailing(iss=ISS, client_id="shop", next_try=0.0))
    await feed.flush(target, 0)
    assert feed.dropped_count == 20
