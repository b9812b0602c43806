"""Copies of a delivery: one in flight is sent once, and a requested new attempt is not taken for a copy."""

import asyncio
import math
from typing import Any

import pytest

from notifier.delivery.facts import AlreadyDelivered, EventTaken
from notifier.delivery.pipeline import MAX_COVERAGE_SECONDS, coverage_seconds
from notifier.messages.ledger import MIN_REMEMBERED, HeldMessage, Ledger
from notifier.messages.message_planner import DeliverySteps
from notifier.model.delivery import Delivery
from notifier.model.documents.documents import dump_delivery
from notifier.model.message import Kind, Lane, Message
from notifier.model.session_ended import SessionEnded
from tests.delivery.worker_harness import ISS, PARKED, WorkerHarness, answers, client, running
from tests.support.deliveries import make_delivery

NOW = 1000.0
FOREVER = math.inf
EVENT = SessionEnded(id="e", id_given=True, iss=ISS, sub="s", sid="s", clients=(), ended_at=NOW)
HOP = 2.0  # seconds until the first retry returns, by the default backoff and with the stage's jitter


# ── the rules ───────────────────────────────────────────────────────────────────────────────────────────────────


class Copies:
    """A ledger, its clock, and the deliveries passed to it."""

    def __init__(self, remembered: int = MIN_REMEMBERED) -> None:
        self.now = NOW
        self.started: dict[str, tuple[HeldMessage, Delivery]] = {}
        self.ledger = Ledger(self, lambda _: None, clock=self.clock, monotonic=self.clock, remembered=remembered)

    def clock(self) -> float:
        """The time."""
        return self.now

    def ack(self, message: Message) -> None:
        """The queue takes every ack."""

    def set_aside(self, message: Message) -> None:
        """No message becomes late."""

    def begin(self, delivery_id: str, attempts: int = 0, *, of_event: bool) -> HeldMessage:
        """Take a message, and start its only delivery unless it is a copy. `attempts`: made before."""
        held = self.ledger.take(Message(lane=Lane.EVENTS if of_event else Lane.RETRIES, body=b"", tag=None))
        held.plan = DeliverySteps(steps=iter(()), event=EVENT if of_event else None)
        delivery = make_delivery(
            id=delivery_id, event_id="e", id_given=True, iss=ISS, client_id="shop", sub="s", sid="s", attempts=attempts
        )
        if self.ledger.start_delivery(held, delivery):
            self.started[delivery_id] = held, delivery
        return held

    def starts(self, delivery_id: str, attempts: int = 0, *, of_event: bool) -> bool:
        """Take a message with this delivery, as `begin` does. Return True if it is started and not acked as a copy."""
        held = self.begin(delivery_id, attempts, of_event=of_event)
        assert held.is_acked is (delivery_id not in self.started)
        return not held.is_acked

    def end(self, delivery_id: str, *, covers_copies_until: float | None) -> None:
        """Settle the started delivery."""
        held, delivery = self.started.pop(delivery_id)
        for holder, copy in self.ledger.on_delivery_settled(held, delivery, covers_copies_until=covers_copies_until):
            self.started[delivery_id] = holder, copy


def begun() -> Copies:
    """Return a delivery of an event, in flight."""
    copies = Copies()
    assert copies.starts("d", of_event=True)
    return copies


@pytest.mark.parametrize(
    ("covers_copies_until", "of_same_stage", "of_another"),
    [
        pytest.param(FOREVER, True, True, id="delivered: done"),
        pytest.param(NOW + HOP, True, False, id="deferred: its retry covers the copy, but not itself"),
        pytest.param(None, False, False, id="given up: attempted"),
    ],
)
def test_a_copy_waits_for_the_end(covers_copies_until: float | None, of_same_stage: bool, of_another: bool) -> None:
    """All messages of this delivery wait while it is in flight, its retry included."""
    copies = begun()
    copy = copies.begin("d", 0, of_event=False)
    retry = copies.begin("d", 1, of_event=False)
    assert not copy.is_acked
    assert not retry.is_acked
    copies.end("d", covers_copies_until=covers_copies_until)
    assert (copy.is_acked, retry.is_acked) == (of_same_stage, of_another)
    assert ("d" in copies.started) is not of_another


def test_copy_of_a_delivered_event_is_done() -> None:
    """It stays done as long as it is remembered."""
    copies = begun()
    copies.end("d", covers_copies_until=FOREVER)
    copies.now += 1e6
    assert not copies.starts("d", of_event=True)
    assert not copies.starts("d", 3, of_event=False)


def test_pending_retry_covers_its_copy() -> None:
    """An event sent again is a copy until the retry may have returned. The retry itself is attempted, as is a replayed
    dead letter.
    """
    copies = begun()
    copies.end("d", covers_copies_until=NOW + HOP)
    copies.now = NOW + HOP - 0.01
    assert not copies.starts("d", of_event=True)
    assert copies.starts("d", of_event=False)
    copies.end("d", covers_copies_until=NOW + HOP)
    copies.now = NOW + HOP
    assert copies.starts("d", of_event=True)


def test_event_may_be_sent_again_after_its_dead_letter() -> None:
    """An event sent again after its dead letter requests another attempt, immediately."""
    copies = begun()
    copies.end("d", covers_copies_until=NOW + HOP)
    assert copies.starts("d", 1, of_event=False)
    copies.end("d", covers_copies_until=None)
    assert copies.starts("d", of_event=True)


def test_memory_is_bounded() -> None:
    """At least the limit and at most twice as many are remembered. A copy of a forgotten
    one is sent again, harmlessly.
    """
    copies = Copies(remembered=2)
    for name in "abcde":
        assert copies.starts(name, of_event=True)
        copies.end(name, covers_copies_until=FOREVER)
    assert [copies.starts(name, of_event=True) for name in "edcba"] == [False, False, False, True, True]


def test_dead_letter_ends_the_coverage_of_copies() -> None:
    """An event sent again after its dead letter requests another attempt."""
    copies = Copies(remembered=2)
    for name, until in (("a", NOW + HOP), ("b", FOREVER), ("a", None)):
        assert copies.starts(name, of_event=False)
        copies.end(name, covers_copies_until=until)
    assert copies.starts("a", of_event=True)
    assert not copies.starts("b", of_event=True)


@pytest.mark.parametrize(("wait", "seconds"), [(0.2, 1), (2.4, 2), (45, 32), (3600, MAX_COVERAGE_SECONDS)])
def test_deferral_covers_copies_until_its_first_delay_ends(wait: float, seconds: float) -> None:
    """After that delay another worker can fetch it and give it up. After a minute it covers no copy in any case."""
    assert coverage_seconds(wait) == seconds


# ── by a worker ─────────────────────────────────────────────────────────────────────────────────────────────────


def results(harness: WorkerHarness) -> list[str]:
    """Return the result of each event."""
    return [fact.result for fact in harness.facts if isinstance(fact, EventTaken)]


async def put_off(harness: WorkerHarness) -> None:
    """Let the only attempt of event `e` fail, so that its retry is pending."""
    await harness.prove("shop")
    harness.receivers.behaviours["shop"] = answers(503)
    await harness.acked(harness.event("shop", id="e"))
    assert harness.queue.published[-1][0] == "delay.2s"
    del harness.receivers.behaviours["shop"]


async def test_an_event_sent_again_is_done_while_its_retry_waits() -> None:
    """It is attempted later, because another worker may have given up the retry."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.others.size = 2
        await put_off(harness)
        harness.now += HOP - 0.1
        await harness.acked(harness.event("shop", id="e"))
        assert (harness.notified(), results(harness)) == (["shop"], ["accepted", "duplicate"])
        harness.now += 0.1
        await harness.acked(harness.event("shop", id="e"))
        assert (harness.notified(), results(harness)[2:]) == (["shop", "shop"], ["accepted"])
        await harness.acked(harness.retake("delay.2s"))
        assert harness.notified() == ["shop", "shop"]


async def test_wrong_entries_do_not_count_as_deliveries() -> None:
    """Together they are one dead letter. An event sent again is a duplicate if each of its deliveries is."""
    async with running(WorkerHarness(client("shop"))) as harness:
        for _ in range(2):
            await harness.acked(harness.event("shop", 7, id="e"))
        taken = [fact for fact in harness.facts if isinstance(fact, EventTaken)]
        assert [(fact.result, fact.deliveries) for fact in taken] == [("accepted", 1), ("duplicate", 1)]
        assert harness.notified() == ["shop"]


async def test_copy_during_an_unconfirmed_park_is_delivered_once() -> None:
    """Its client is down. After the recovery it receives each logout once."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.receivers.behaviours["shop"] = answers(503)
        await harness.acked(harness.event("shop", id="probe"))
        harness.queue.open.clear()
        for _ in range(2):
            harness.event("shop", id="e", sid="e")
            await harness.until(lambda: harness.queue.refused == [PARKED])
        harness.queue.open.set()
        await harness.settled()
        assert results(harness) == ["accepted", "accepted", "duplicate"]
        del harness.receivers.behaviours["shop"]
        harness.now += 1
        harness.retake("delay.1s")
        await harness.until(lambda: len(harness.notified()) == 3)
        await harness.settled()
        assert [claims["sid"] for _, claims in harness.receivers.posts] == ["s1", "s1", "e"]


async def test_retry_that_returns_before_its_confirm_is_attempted() -> None:
    """It is attempted after the confirm, so that the only durable copy is not acked with
    the message that scheduled it.
    """
    harness, confirm = WorkerHarness(client("shop")), asyncio.Event()
    publish_later = harness.queue.publish_later

    async def confirmed_late(*args: Any, **more: Any) -> None:
        await publish_later(*args, **more)
        await confirm.wait()

    async with running(harness):
        await harness.prove("shop")
        harness.receivers.behaviours["shop"] = answers(503)
        harness.queue.publish_later = confirmed_late  # type: ignore[method-assign]
        event = harness.event("shop", id="e")
        await harness.until(lambda: len(harness.queue.published) == 1)
        del harness.receivers.behaviours["shop"]
        harness.now += HOP
        retry = harness.retake("delay.2s")
        await harness.acked(harness.event("shop", id="other", sid="other"))
        assert event not in harness.queue.acked
        confirm.set()
        await harness.acked(retry)
        assert event in harness.queue.acked
        assert [claims["sid"] for _, claims in harness.receivers.posts] == ["s1", "other", "s1"]


async def test_redelivered_message_is_delivered_once() -> None:
    """After a loss of the connection: the copy is done when the retry of the first is confirmed."""
    async with running(WorkerHarness(client("shop"))) as harness:
        await harness.prove("shop")
        harness.receivers.behaviours["shop"] = answers(503)
        harness.queue.open.clear()
        harness.event("shop", id="e")
        await harness.until(lambda: harness.queue.refused == ["delay.2s"])
        harness.worker.on_lost(Lane.EVENTS)
        harness.event("shop", id="e", delivery_count=1)
        await harness.until(lambda: harness.worker.ledger.unsettled_by_queue()["events"].messages == 1)
        harness.queue.open.set()
        await harness.until(lambda: len(harness.queue.acked) == 2)
        assert harness.notified() == ["shop"]
        assert len(harness.queue.published) == 1


async def test_an_event_sent_again_after_its_dead_letter_is_attempted() -> None:
    """Also if the dead letter is visible before this worker has its confirm."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.receivers.behaviours["shop"] = answers(403)
        harness.queue.open.clear()
        harness.event("shop", id="e")
        await harness.until(lambda: harness.queue.refused == ["dead"])
        harness.receivers.behaviours.clear()
        again = harness.event("shop", id="e")
        harness.queue.open.set()
        await harness.acked(again)
        assert harness.notified() == ["shop", "shop"]
        assert len(harness.dead()) == 1


async def test_dead_letter_replayed_within_a_minute_is_attempted() -> None:
    """Another worker gave it up while this worker still expected its retry."""
    async with running(WorkerHarness(client("shop"))) as harness:
        await put_off(harness)
        (_, sent) = harness.queue.published[-1]
        delivery = Delivery(
            id=str(sent.message_id), event_id="e", id_given=True, iss=ISS, client_id="shop", sub="alice", sid="s1"
        )
        harness.now += 1
        body = dump_delivery(delivery, due=harness.now)
        await harness.acked(harness.take(body, lane=Lane.RETRIES, kind=Kind.DELIVERY, message_id=delivery.id))
        assert harness.notified() == ["shop", "shop"]


async def test_known_delivery_is_reported_as_already_delivered() -> None:
    """A retry that returns after the delivery is reported as delivered to the caller that waits for its end."""
    async with running(WorkerHarness(client("shop"))) as harness:
        await put_off(harness)
        harness.now += HOP
        for _ in range(2):
            await harness.acked(harness.retake("delay.2s"))
        assert harness.notified() == ["shop", "shop"]
        [override] = [fact for fact in harness.facts if isinstance(fact, AlreadyDelivered)]
        assert override.delivery.client_id == "shop"
        await harness.acked(harness.event("shop", id="e"))
        taken = [fact for fact in harness.facts if isinstance(fact, EventTaken)]
        assert [(fact.result, fact.copies) for fact in taken] == [("accepted", 0), ("duplicate", 1)]


@pytest.mark.parametrize("workers", [1, 2])
async def test_parked_delivery_covers_copies_for_a_minute(workers: int) -> None:
    """It does so regardless of the next probe: without other workers nothing else can have fetched it."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.others.size = workers
        harness.receivers.behaviours["shop"] = answers(503, "5")
        await harness.acked(harness.event("shop", id="e1"))
        await harness.acked(harness.event("shop", id="e2"))
        assert harness.queue.published[-1][0] == PARKED
        harness.now += 50.0
        reported = len(harness.notified())
        await harness.acked(harness.event("shop", id="e2"))
        assert len(harness.notified()) == reported + (workers > 1)
