"""Parked deliveries, by a worker: they return when their client answers, whatever happens to its probe."""

import asyncio
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from notifier.delivery import fetches, settlement
from notifier.delivery.deferrals import OVERDUE_SECONDS
from notifier.delivery.facts import ClientRecovered, ClientServed
from notifier.delivery.fetches import (
    BUSY_SECONDS,
    MAX_ARRIVING,
    MAX_BATCH,
    MAX_IN_FLIGHT,
    MIN_REPEAT_SECONDS,
    RECENT_SECONDS,
    seconds_until_count,
)
from notifier.delivery.ports import ClientReport
from notifier.delivery.scheduler import STARTS_PER_TURN
from notifier.messages import worker
from notifier.messages.selection import GATHER_SECONDS
from notifier.model.documents.documents import dump_delivery, load_delivery
from notifier.model.errors import QueueUnavailable
from notifier.model.message import MIN_SUSPECT_CRASHES, Kind, Lane, Message, MessageDraft
from tests.delivery.worker_harness import ISS, LARGE, PARKED, WorkerHarness, answers, client, running
from tests.support.deliveries import make_delivery

SHOP = f"{ISS} shop"


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker looks at each round of the loop whether something is to be fetched, and not at the start."""
    monkeypatch.setattr(worker, "TICK_SECONDS", 0.0)
    monkeypatch.setattr(fetches, "FIRST_FETCH_SECONDS", 1e6)


@asynccontextmanager
async def down(harness: WorkerHarness, parked: int) -> AsyncIterator[WorkerHarness]:
    """Run a worker whose client `shop` is down, with a probe in flight and so many deliveries in the bucket."""
    harness.receivers.behaviours["shop"] = answers(503)
    async with running(harness):
        await harness.acked(harness.event("shop", id="probe"))
        for number in range(parked):
            await harness.acked(harness.event("shop", id=f"e{number}"))
        assert [queue for queue, _ in harness.queue.published] == ["delay.1s"] + [PARKED] * parked
        del harness.receivers.behaviours["shop"]
        harness.receivers.posts.clear()
        harness.now += 1
        yield harness


def in_bucket(harness: WorkerHarness, count: int, client_id: str = "shop", bucket: str = SHOP, first: int = 0) -> None:
    """Another worker has parked so many deliveries for a client."""
    for number in range(first, first + count):
        delivery = make_delivery(
            id=f"{client_id}-{number}", event_id="e", id_given=True, iss=ISS, client_id=client_id, sub=str(number),
            sid="s", first_taken_at=harness.now, parked=True,
        )  # fmt: skip
        body = dump_delivery(delivery, due=harness.now)
        sent = MessageDraft(kind=Kind.DELIVERY, body=body, message_id=delivery.id)
        harness.queue.buckets.setdefault(bucket, []).append(sent)


def waits(harness: WorkerHarness) -> int:
    """How many deliveries wait in buckets."""
    return sum(map(len, harness.queue.buckets.values()))


async def until(harness: WorkerHarness, condition: Callable[[], bool], step: float = 0.001) -> None:
    """Let time go by, a little in each round of the loop, until the condition holds."""

    def holds() -> bool:
        harness.now += step
        return condition()

    await harness.until(holds)


def slow_fetches(harness: WorkerHarness, seconds: float, *buckets: str) -> Counter[str]:
    """Let fetches from these buckets, or from all, take so long. Returns how many messages each fetches now."""
    fetch, in_flight = harness.queue.fetch, Counter[str]()

    async def slow(bucket: str, most: int) -> list[Message]:
        if buckets and bucket not in buckets:
            return await fetch(bucket, most)
        in_flight[bucket] += most
        found, over_at = await fetch(bucket, most), harness.now + seconds
        await harness.until(lambda: harness.now >= over_at)
        in_flight[bucket] -= most
        return found

    harness.queue.fetch = slow  # type: ignore[method-assign]
    return in_flight


def recovered_elsewhere(harness: WorkerHarness, client_id: str) -> None:
    """Another worker reports that the client has recovered, and that deliveries are parked for it."""
    harness.worker.scheduler.on_peer_report(ClientReport(key=(ISS, client_id), circuit_closed=True, parked=True))


async def rounds(count: int = 200) -> None:
    """Give everybody the chance to do what he should not."""
    for _ in range(count):
        await asyncio.sleep(0)


# ── fetches ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_when_a_client_answers_its_bucket_is_drained() -> None:
    """The probe succeeds, then all parked deliveries are sent, each once. The length of the recovery is reported."""
    async with down(WorkerHarness(client("shop")), 30) as harness:
        harness.retake("delay.1s")
        await harness.until(lambda: len(harness.notified()) == 31)
        await harness.until(lambda: any(isinstance(fact, ClientServed) for fact in harness.facts))
        assert len({claims["jti"] for _, claims in harness.receivers.posts}) == 31
        assert harness.queue.buckets[SHOP] == []
        [recovered] = [fact for fact in harness.facts if isinstance(fact, ClientRecovered)]
        assert recovered.outage == 1
        await harness.until(lambda: len(harness.queue.acked) == 31 + 31)


async def test_a_first_success_fetches_nothing() -> None:
    """A worker that parks has a probe out. Another worker reports a recovery that it has seen, if it knows of parked
    deliveries.
    """
    harness = WorkerHarness(client("shop"))
    in_bucket(harness, 3)
    async with running(harness):
        await harness.acked(harness.event("shop", id="first"))
        await rounds()
        assert harness.queue.fetches == []
        recovered_elsewhere(harness, "shop")
        await harness.until(lambda: len(harness.notified()) == 4)


@pytest.mark.parametrize("given_back", [0, 1], ids=["whole", "whose worker was killed"])
async def test_worker_fetches_from_all_buckets_at_start(monkeypatch: pytest.MonkeyPatch, given_back: int) -> None:
    """An earlier worker may have left deliveries. Those parked during a client's first attempt are fetched by
    another fetch.
    """
    monkeypatch.setattr(fetches, "FIRST_FETCH_SECONDS", 0.001)
    harness = WorkerHarness(client("shop"), client("wiki"))
    harness.queue.given_back = given_back
    in_bucket(harness, 50)
    in_bucket(harness, 50, "wiki", f"{ISS} wiki")
    async with running(harness):
        await until(harness, lambda: len(harness.notified()) == 100)
        await rounds()
    assert len(harness.queue.fetches) <= 2 * (50 / MAX_BATCH + 2)


async def test_a_pass_sees_each_message_once() -> None:
    """A delivery for a client that is down is parked again or becomes its probe. The deliveries behind it are found."""
    harness = WorkerHarness(client("shop"), client("dead"))
    harness.queue.shared = SHOP
    harness.receivers.behaviours["dead"] = answers(503)
    async with down(harness, 0):
        await harness.acked(harness.event("dead", id="probe-of-dead"))
        in_bucket(harness, 100, "dead")
        in_bucket(harness, 5, "shop")
        harness.queue.published.clear()
        harness.receivers.posts.clear()
        harness.now += 1.5
        recovered_elsewhere(harness, "shop")
        await until(harness, lambda: len(harness.notified()) == 5, step=0.0001)
        await rounds(2000)
        assert harness.notified() == ["shop"] * 5
        assert waits(harness) == 99
        assert len(harness.queue.published) < 100 + MAX_BATCH


async def test_many_deliveries_of_others_take_few_fetches() -> None:
    """Of a client that is down, in the same bucket: each fetch is larger than the one before, and all are one pass."""
    harness = WorkerHarness(client("shop"), client("dead"))
    harness.queue.shared = SHOP
    harness.receivers.behaviours["dead"] = answers(503)
    async with down(harness, 0):
        await harness.acked(harness.event("dead", id="probe-of-dead"))
        in_bucket(harness, 1000, "dead")
        in_bucket(harness, 1)
        harness.now += 1.5
        recovered_elsewhere(harness, "shop")
        await until(harness, lambda: "shop" in harness.notified(), step=0.0001)
        assert len(harness.queue.fetches) < 4 + 1000 / MAX_BATCH + 4


async def test_deliveries_of_others_delay_no_other_bucket() -> None:
    """The bounded rate of messages that are parked again is that of fetches which mostly do this."""
    harness = WorkerHarness(client("shop"), client("dead"), client("wiki"))
    harness.queue.bucket = lambda key, **_: SHOP if key[1] in ("shop", "dead") else "other"  # type: ignore[method-assign]
    harness.receivers.behaviours["dead"] = answers(503)
    async with down(harness, 0):
        await harness.acked(harness.event("dead", id="probe-of-dead"))
        await harness.prove("wiki")
        in_bucket(harness, 1000, "dead")
        in_bucket(harness, 5, "wiki", "other")
        harness.now += 1.5
        recovered_elsewhere(harness, "shop")
        await until(harness, lambda: len(harness.queue.published) > 50, step=0.0001)
        await rounds()
        parked_again = len(harness.queue.published)
        recovered_elsewhere(harness, "wiki")
        await harness.until(lambda: harness.notified().count("wiki") == 5)
        assert len(harness.queue.published) == parked_again < 500


async def test_parked_deliveries_return_quickly_if_each_fetch_takes_long() -> None:
    """With 0.1 s for a fetch, over 500 deliveries a second start, nearly in the order in which they were parked."""
    async with down(WorkerHarness(client("shop", max_concurrent=64)), 0) as harness:
        in_bucket(harness, 600)
        slow_fetches(harness, 0.1)
        harness.retake("delay.1s")
        recovered_elsewhere(harness, "shop")
        await until(harness, lambda: len(harness.notified()) > 60)
        began_at = harness.now
        await until(harness, lambda: len(harness.notified()) > 540)
        assert harness.now - began_at < 480 / 500
        numbers = [int(claims["sub"]) for _, claims in harness.receivers.posts if claims["sub"].isdecimal()]
        assert max(abs(number - place) for place, number in enumerate(numbers)) <= STARTS_PER_TURN


async def test_slow_buckets_leave_room_for_others() -> None:
    """A first batch takes half of the free room at most: six buckets that do not answer delay no other client."""
    slow = [f"slow-{number}" for number in range(6)]
    harness = WorkerHarness(client("wiki"), *(client(name, max_concurrent=64) for name in slow), shutdown_grace=0.01)
    async with running(harness):
        for _ in range(64):
            await harness.prove(*slow)
        harness.now += BUSY_SECONDS
        for name in slow:
            in_bucket(harness, 1000, name, f"{ISS} {name}")
        in_bucket(harness, 5, "wiki", f"{ISS} wiki")
        in_flight = slow_fetches(harness, 1e6, *(f"{ISS} {name}" for name in slow))
        for name in slow:
            recovered_elsewhere(harness, name)
        await rounds()
        assert sorted(in_flight.values()) == [8, 16, 32, 64, 64, 64]
        recovered_elsewhere(harness, "wiki")
        await harness.until(lambda: harness.notified().count("wiki") == 5)


async def test_few_messages_arrive_together_beside_other_deliveries() -> None:
    """However many buckets are fetched from: a delivery waits until these are read. One that is silent leaves room."""
    names = [f"back-{number}" for number in range(6)]
    known = [client(name, max_concurrent=64) for name in ("silent", *names)]
    harness = WorkerHarness(client("shop"), client("near"), *known, shutdown_grace=0.01)
    async with running(harness):
        for _ in range(64):
            await harness.prove("silent", *names)
        for name in ("silent", *names):
            in_bucket(harness, 20, name, f"{ISS} {name}")
        in_bucket(harness, 1, "near", f"{ISS} near")
        recovered_elsewhere(harness, "near")  # by which the worker knows how near the broker is
        await harness.until(lambda: harness.notified() == ["near"])
        silent = slow_fetches(harness, 1e6, f"{ISS} silent")
        in_flight = slow_fetches(harness, 0.001, *(f"{ISS} {name}" for name in names))
        most = 0

        def see() -> bool:
            nonlocal most
            most = max(most, sum(in_flight.values()))
            return len(harness.notified()) == 1 + 6 * 20 + 1

        harness.event("shop", id="fresh")
        for name in ("silent", *names):
            recovered_elsewhere(harness, name)
        await until(harness, see, step=0.0001)
        assert 0 < most <= MAX_ARRIVING
        assert silent.total() == MAX_ARRIVING


async def test_clients_are_served_before_what_a_former_worker_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetches from inherited buckets leave half of the room, and none is made from an empty bucket."""
    monkeypatch.setattr(fetches, "FIRST_FETCH_SECONDS", 0.001)
    harness = WorkerHarness(client("shop"), shutdown_grace=0.01)
    inherited = [f"inherited-{number}" for number in range(9)]
    for name in inherited:
        in_bucket(harness, 1000, name, name)
    in_bucket(harness, 0, bucket="empty")
    in_flight = slow_fetches(harness, 1e6, *inherited)
    async with running(harness):
        await harness.until(lambda: sum(in_flight.values()) == MAX_IN_FLIGHT // 2)
        in_bucket(harness, 5)
        recovered_elsewhere(harness, "shop")
        await harness.until(lambda: len(harness.notified()) == 5)
    assert set(harness.queue.fetches) == {*in_flight, SHOP}


async def test_fetched_deliveries_start_if_their_bucket_cannot_be_counted() -> None:
    """They are not forgotten, which would keep them unacked, and the fetch ends."""
    harness = WorkerHarness(client("shop"))
    count_parked, counts = harness.queue.count_parked, list[object]()

    async def fail_twice(buckets: Collection[str] | None = None) -> dict[str, int]:
        counts.append(buckets)
        if len(counts) <= 2:
            raise QueueUnavailable("unreadable")
        return await count_parked(buckets)

    harness.queue.count_parked = fail_twice  # type: ignore[method-assign]
    async with down(harness, 30):
        await harness.acked(harness.retake("delay.1s"))
        await until(harness, lambda: len(harness.notified()) == 31)
        await harness.until(lambda: harness.worker.scheduler.deferrals.state_of((ISS, "shop"))[0] is False)


async def test_delivery_parked_after_its_probe_returned_is_fetched() -> None:
    """Its park is confirmed when the client is up already."""
    async with down(WorkerHarness(client("shop")), 0) as harness:
        harness.now -= 1
        harness.queue.open.clear()
        late = harness.event("shop", id="late")
        await harness.until(lambda: harness.queue.refused == [PARKED])
        harness.now += 1
        harness.retake("delay.1s")
        await harness.until(lambda: harness.notified() == ["shop"])
        harness.queue.open.set()
        await harness.until(lambda: harness.notified() == ["shop", "shop"])
        await harness.acked(late)


# ── large backlogs ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def beside_large(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WorkerHarness]:
    """A worker whose clients `shop` and `dead` share a bucket and are down; 50 deliveries are parked for `dead`."""
    for module in (settlement, fetches):
        monkeypatch.setattr(module, "LARGE_BACKLOG", 20)
    harness = WorkerHarness(client("shop"), client("dead"))
    harness.queue.shared = SHOP
    harness.receivers.behaviours["dead"] = answers(503)
    async with down(harness, 0):
        await harness.acked(harness.event("dead", id="probe-of-dead"))
        for number in range(50):
            await harness.acked(harness.event("dead", id=f"d{number}"))
        await harness.until(lambda: waits(harness) == 50)
        harness.receivers.posts.clear()
        yield harness


def sizes(harness: WorkerHarness) -> list[int]:
    """How many deliveries wait in the shared bucket, and in the large one."""
    return [len(harness.queue.buckets.get(bucket, ())) for bucket in (SHOP, LARGE)]


async def test_large_backlog_delays_only_clients_that_have_one(beside_large: WorkerHarness) -> None:
    """From the limit on, its deliveries are in the large bucket; those before it move there when they are read."""
    assert sizes(beside_large) == [20, 30]
    in_bucket(beside_large, 3)
    beside_large.now += 1.5
    recovered_elsewhere(beside_large, "shop")
    await until(beside_large, lambda: beside_large.notified() == ["shop"] * 3, step=0.0001)
    await until(beside_large, lambda: sizes(beside_large) == [0, 49], step=0.0001)  # one is the next probe
    assert LARGE not in beside_large.queue.fetches


async def test_client_with_a_large_backlog_is_served_from_both_buckets(beside_large: WorkerHarness) -> None:
    """Its recovery ends once both are empty."""
    del beside_large.receivers.behaviours["dead"]
    beside_large.now += 1
    beside_large.retake("delay.1s")

    def served() -> list[ClientServed]:
        return [fact for fact in beside_large.facts if isinstance(fact, ClientServed)]

    await until(beside_large, lambda: bool(served()), step=0.0001)
    assert sizes(beside_large) == [0, 0]
    await until(beside_large, lambda: beside_large.notified() == ["dead"] * 51)
    await rounds()
    assert len(served()) == 1


async def test_large_backlog_of_a_former_worker_moves_when_it_is_read(beside_large: WorkerHarness) -> None:
    """This worker has parked none of it, but counts what it parks again."""
    beside_large.worker.parked.large.clear()
    beside_large.worker.parked.forget_empty(())
    beside_large.worker.parked.forget_empty(())
    in_bucket(beside_large, 50, "dead", first=100)
    beside_large.now += 1.5
    recovered_elsewhere(beside_large, "shop")
    await until(beside_large, lambda: sizes(beside_large) == [19, 80], step=0.0001)


async def test_worker_that_starts_leaves_a_large_backlog_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """It learns from the bucket that the client has one."""
    monkeypatch.setattr(fetches, "FIRST_FETCH_SECONDS", 0.001)
    harness = WorkerHarness(client("dead"))
    harness.receivers.behaviours["dead"] = answers(503)
    in_bucket(harness, 50, "dead", LARGE)
    async with running(harness):
        await until(harness, lambda: len(harness.queue.acked) == 50, step=0.0001)
        assert {name: len(parked) for name, parked in harness.queue.buckets.items()} == {LARGE: 49}


@pytest.mark.parametrize("stops", [False, True])
async def test_large_buckets_are_emptied_while_another_worker_lacks_them(
    beside_large: WorkerHarness, *, stops: bool
) -> None:
    """An update or a rollback: they are emptied into the others, or into delay queues by a worker that stops."""
    beside_large.queue.uses_large, beside_large.others.size = False, 2
    if stops:
        beside_large.worker.stop()
        await until(beside_large, lambda: sizes(beside_large) == [20, 0], step=0.0001)
        return
    await until(beside_large, lambda: sizes(beside_large) == [50, 0], step=0.0001)
    await beside_large.acked(beside_large.event("dead", id="next"))
    assert sizes(beside_large) == [51, 0]


async def test_worker_that_stops_leaves_large_buckets_to_workers_that_have_them(beside_large: WorkerHarness) -> None:
    """They fetch from it, or a worker that starts. Emptying it would delay the stop."""
    beside_large.worker.stop()
    await rounds(2000)
    assert sizes(beside_large) == [20, 30]


# ── probes ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_only_probes_try_a_client_that_is_down() -> None:
    """At most once a second, less and less often, one after the other. No delivery's own backoff is charged."""
    async with down(WorkerHarness(client("shop")), 5) as harness:
        harness.now -= 1
        harness.receivers.behaviours["shop"] = answers(503)
        await harness.pass_time(600)
        assert 15 <= len(harness.notified()) <= 40
        last = {(each := load_delivery(sent.body)).event_id: each for _, sent in harness.queue.published}
        assert {each.progress.backoffs for each in last.values()} == {0}
        assert sorted(each.progress.attempts for each in last.values())[-3] > 2
        del harness.receivers.behaviours["shop"]
        harness.receivers.posts.clear()
        await harness.pass_time(128)
        assert len(harness.notified()) == 6


@pytest.mark.parametrize(("status", "seconds"), [(403, 2.5), (503, 2.5), (503, 5.0)])
async def test_dead_probe_is_replaced(status: int, seconds: float) -> None:
    """Refused, expired with its last attempt, or before it; also if the bucket cannot be read at that moment."""
    harness = WorkerHarness(client("shop"))
    harness.queue.unreadable.add(SHOP)
    async with running(harness):
        harness.receivers.behaviours["shop"] = answers(503)
        await harness.acked(harness.event("shop", id="probe", not_after="2027-01-15T08:00:03Z"))
        for number in range(3):
            await harness.acked(harness.event("shop", id=f"e{number}"))
        harness.receivers.behaviours["shop"] = answers(status)
        harness.now += seconds
        await harness.acked(harness.retake("delay.1s"))
        assert len(harness.dead()) == 1
        await until(harness, lambda: len(harness.queue.fetches) > 1)
        harness.queue.unreadable.clear()
        await until(harness, lambda: waits(harness) < 3)
        await harness.pass_time(10, 0.5)
        if status == 403:
            assert len(harness.dead()) == 4
        else:
            assert len(harness.notified()) > 2


async def test_probe_that_dies_in_a_pause_is_replaced() -> None:
    """The client asked for an hour, and its probe expires in ten seconds."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.receivers.behaviours["shop"] = answers(503, "3600")
        await harness.acked(harness.event("shop", id="probe", not_after="2027-01-15T08:00:10Z"))
        await harness.acked(harness.event("shop", id="next"))
        assert harness.queue.published.pop()[0] == PARKED
        await harness.through_delays(most=12)
        await harness.until(lambda: waits(harness) == 0)
        await harness.settled()
        delayed = [sent.body for queue, sent in harness.queue.published if queue.startswith("delay.")]
        assert any(b'"event_id":"next"' in body for body in delayed)
        assert harness.notified() == ["shop"]


async def test_overdue_probe_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator may have taken it out of its delay queue."""
    for pace in ("FIRST_FETCH_SECONDS", "COUNT_SECONDS"):
        monkeypatch.setattr(fetches, pace, 1e-6)
    async with down(WorkerHarness(client("shop")), 3) as harness:
        harness.now += OVERDUE_SECONDS
        await rounds()
        assert harness.queue.fetches == []
        harness.now += 1
        await harness.until(lambda: len(harness.notified()) == 3)


def test_workers_count_the_buckets_at_the_same_moments() -> None:
    """So they forget an empty bucket together. Otherwise the status shows delivered deliveries as pending meanwhile."""
    assert {now + seconds_until_count(now) for now in (1200.0, 1230.5, 1259.75)} == {1260.0}


# ── failures ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_unreachable_queue_loses_nothing() -> None:
    """The fetch is made again and again."""
    async with down(WorkerHarness(client("shop")), 8) as harness:
        harness.queue.unreadable.add(SHOP)
        await harness.acked(harness.retake("delay.1s"))
        await until(harness, lambda: len(harness.queue.fetches) == 5)
        assert (harness.notified(), waits(harness)) == (["shop"], 8)
        harness.queue.unreadable.clear()
        await until(harness, lambda: len(harness.notified()) == 9)


@pytest.mark.parametrize("countable", [True, False])
async def test_unreadable_bucket_delays_no_other(*, countable: bool) -> None:
    """It is tried less and less often, also if it cannot be counted, and served when it can be read."""
    harness = WorkerHarness(client("shop"), client("wiki"))
    harness.queue.unreadable.add(SHOP)
    count_parked = harness.queue.count_parked

    async def fail(buckets: Collection[str] | None = None) -> dict[str, int]:
        if buckets is not None and SHOP in buckets and harness.queue.unreadable:
            raise QueueUnavailable("uncountable")
        return await count_parked(buckets)

    if not countable:
        harness.queue.count_parked = fail  # type: ignore[method-assign]
    async with down(harness, 3):
        await harness.acked(harness.retake("delay.1s"))
        await harness.acked(harness.event("wiki"))
        for _ in range(10):
            in_bucket(harness, 20, "wiki", f"{ISS} wiki")
            recovered_elsewhere(harness, "wiki")
            await until(harness, lambda: waits(harness) == 3)
            await harness.pass_time(30, 0.5)
        assert harness.queue.fetches.count(SHOP) <= 7 + 300 / 32
        harness.queue.unreadable.clear()
        harness.receivers.posts.clear()
        harness.now += 32
        await harness.until(lambda: harness.notified().count("shop") == 3)


async def test_made_up_clients_use_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their false reports arrive while the bucket is unreadable. Its existing deliveries are sent later."""
    harness = WorkerHarness(client("shop"))
    harness.queue.shared = SHOP
    harness.queue.unreadable.add(SHOP)
    in_bucket(harness, 3)
    async with running(harness):
        tracemalloc.start()
        for number in range(20_000):
            harness.worker.scheduler.on_peer_report(
                ClientReport(key=(ISS, f"made-up-{number}"), circuit_closed=True, parked=True)
            )
            if number % 500 == 0:
                await rounds(20)
        await rounds()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        harness.queue.unreadable.clear()
        await until(harness, lambda: len(harness.notified()) == 3)
    assert held < 1_000_000


async def test_recently_fetched_deliveries_are_fetched_again_after_a_loss() -> None:
    """Unacked messages are in the bucket again, and no probe is out for them. The same holds after a failed fetch."""
    async with down(WorkerHarness(client("shop"), client("wiki")), 1) as harness:
        harness.retake("delay.1s")
        await harness.until(lambda: len(harness.notified()) == 2)
        in_bucket(harness, 3)
        harness.worker.on_lost(Lane.EVENTS)
        await rounds()
        assert len(harness.notified()) == 2
        harness.worker.on_lost(Lane.RETRIES)
        await until(harness, lambda: len(harness.notified()) == 5)
        harness.queue.unreadable.add(f"{ISS} wiki")
        in_bucket(harness, 3, first=3)
        recovered_elsewhere(harness, "wiki")
        await until(harness, lambda: len(harness.notified()) == 8)
        await rounds()
        harness.now += RECENT_SECONDS
        fetches = harness.queue.fetches.count(SHOP)
        harness.worker.on_lost(Lane.RETRIES)
        await rounds()
        assert harness.queue.fetches.count(SHOP) == fetches


async def test_stopping_worker_finishes_its_fetch_only() -> None:
    """Returned to the bucket it would wait for long, because the other workers have found
    the bucket empty meanwhile.
    """
    harness, release = WorkerHarness(client("shop")), asyncio.Event()
    fetch = harness.queue.fetch

    async def slow(bucket: str, most: int) -> list[Message]:
        found = await fetch(bucket, most)
        await release.wait()
        return found

    async with down(harness, 8):
        harness.queue.fetch = slow  # type: ignore[method-assign]
        await harness.acked(harness.retake("delay.1s"))
        await harness.until(lambda: waits(harness) < 8)
        fetching = 8 - waits(harness)
        harness.worker.stop()
        release.set()
    assert harness.notified() == ["shop"] * (1 + fetching)
    assert waits(harness) == 8 - fetching
    assert len(harness.queue.acked) == 10 + fetching


async def test_deliveries_fetched_by_a_killed_worker_are_found() -> None:
    """It is back in the bucket that the others have found empty: they go through it again as there is one less."""
    harness = WorkerHarness(client("shop"))
    harness.others.size = 2
    async with down(harness, 1):
        await harness.acked(harness.retake("delay.1s"))
        await harness.until(lambda: harness.notified() == ["shop"] * 2)
        await rounds()
        in_bucket(harness, 3)
        await rounds()
        assert waits(harness) == 3
        harness.others.size = 1
        await harness.until(lambda: harness.notified() == ["shop"] * 5)


async def test_invented_workers_cause_few_fetches() -> None:
    """At most one repeat a minute, whenever one is gone. What a killed worker had fetched is found a minute later."""
    harness = WorkerHarness(client("shop"))

    async def invent(count: int, seconds: float) -> int:
        former_count = len(harness.queue.fetches)
        for _ in range(count):
            for size in (2, 1):
                harness.others.size = size
                await rounds(20)
            harness.now += seconds
        return len(harness.queue.fetches) - former_count

    async with down(harness, 1):
        await harness.acked(harness.retake("delay.1s"))
        await harness.until(lambda: harness.notified() == ["shop"] * 2)
        assert await invent(10, 1) == 1
        in_bucket(harness, 3)
        harness.now += MIN_REPEAT_SECONDS
        await harness.until(lambda: harness.notified().count("shop") == 5)


async def test_repeats_that_start_nothing_cause_no_others() -> None:
    """While somebody invents workers, the bucket has deliveries of a client with a pause: they are parked again."""
    harness = WorkerHarness(client("shop"), client("wiki"))
    async with down(harness, 1):
        await harness.acked(harness.retake("delay.1s"))
        await harness.until(lambda: harness.notified() == ["shop"] * 2)
        harness.receivers.behaviours["wiki"] = answers(503, retry_after="86400")
        await harness.acked(harness.event("wiki"))
        former_count = len(harness.queue.fetches)
        for minute in range(20):
            in_bucket(harness, 1, "wiki", first=minute)
            for size in (2, 1):
                harness.others.size = size
                await rounds(20)
            harness.now += MIN_REPEAT_SECONDS
        assert len(harness.queue.fetches) - former_count <= RECENT_SECONDS / MIN_REPEAT_SECONDS
        assert harness.notified().count("wiki") == 1


async def test_fetched_suspect_is_handled_as_a_suspect() -> None:
    """It may crash the process: it waits for the others, and runs from a trial."""
    harness = WorkerHarness(client("shop"))
    fetch = harness.queue.fetch

    async def given_back(bucket: str, most: int) -> list[Message]:
        return [replace(one, delivery_count=3) for one in await fetch(bucket, most)]

    harness.queue.fetch = given_back  # type: ignore[method-assign]
    async with down(harness, 1):
        await harness.acked(harness.retake("delay.1s"))
        await harness.until(lambda: waits(harness) == 0)
        await rounds()
        assert harness.notified() == ["shop"]
        harness.now += GATHER_SECONDS
        await until(
            harness, lambda: harness.queue.published[-1][1].headers == {"crashes": str(MIN_SUSPECT_CRASHES)}, step=0.0
        )
        await harness.acked(harness.retake("delay.1s"))
        assert harness.notified() == ["shop", "shop"]
