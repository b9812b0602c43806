"""Parked deliveries, by a worker: they come back when their client answers, and whatever happens to their leash."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from notifier.domain.delivery import Delivery
from notifier.domain.documents import dump_delivery
from notifier.domain.errors import QueueUnavailable
from notifier.domain.message import Kind, Lane, Message, Outgoing
from notifier.pipeline import fetching
from notifier.pipeline.facts import ClientRecovered, ClientServed
from notifier.pipeline.gate import INSIST
from notifier.pipeline.selection import GATHER
from tests.pipeline.stage import ISS, PARKED, Stage, answers, client, running

SHOP = f"{ISS} shop"


@asynccontextmanager
async def down(stage: Stage, parked: int) -> AsyncIterator[Stage]:
    """A worker whose client `shop` rests, with a leash on its way and so many deliveries in the bucket."""
    stage.receivers.behaviours["shop"] = answers(503)
    async with running(stage):
        await stage.acked(stage.event("shop", id="leash"))
        for number in range(parked):
            await stage.acked(stage.event("shop", id=f"e{number}"))
        assert [queue for queue, _ in stage.queue.published] == ["delay.1s"] + [PARKED] * parked
        stage.receivers.behaviours.clear()
        stage.receivers.posts.clear()
        stage.now += 1
        yield stage


def in_bucket(stage: Stage, count: int, client_id: str = "shop", bucket: str = SHOP) -> None:
    """Another worker has parked so many deliveries for a client."""
    for number in range(count):
        delivery = Delivery(
            id=f"{client_id}-{number}", event_id="e", id_given=True, iss=ISS, client_id=client_id, sub="s", sid="s",
            first_taken_at=stage.now, parked=True,
        )  # fmt: skip
        body = dump_delivery(delivery, due=stage.now)
        sent = Outgoing(kind=Kind.DELIVERY, body=body, message_id=delivery.id)
        stage.queue.buckets.setdefault(bucket, []).append(sent)


def in_delay_queues(stage: Stage) -> int:
    """How many messages were published to delay queues."""
    return sum(queue.startswith("delay.") for queue, _ in stage.queue.published)


async def fails_until_it_rests(stage: Stage) -> None:
    """`shop` goes down once more, and is well again when it is tried next. What it was told is forgotten."""
    stage.receivers.behaviours["shop"] = answers(503)
    for number in itertools.count():
        if any(client_id == "shop" for _, client_id, _ in stage.worker.circuits):
            break
        await stage.acked(stage.event("shop", id=f"fails {number}"))
    del stage.receivers.behaviours["shop"]
    stage.receivers.posts.clear()


def away(stage: Stage, faults: int) -> None:
    """The queue is away for so many fetches."""
    fetch, fetches = stage.queue.fetch, itertools.count()

    async def broken(bucket: str, most: int) -> list[Message]:
        if next(fetches) < faults:
            raise QueueUnavailable("away")
        return await fetch(bucket, most)

    stage.queue.fetch = broken  # type: ignore[method-assign]


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at buckets all the time."""
    for pace in ("WATCH_EVERY", "FIRST_AUDIT", "AUDIT_EVERY", "AWAY"):
        monkeypatch.setattr(fetching, pace, 0.001)


async def test_when_a_client_answers_its_bucket_is_drained() -> None:
    """Its leash tries it, then all that waited is told, each once. How long that took is told."""
    async with down(Stage(client("shop")), 30) as stage:
        stage.retake("delay.1s")
        await stage.until(lambda: bool(stage.told()))
        await stage.until(lambda: len(stage.told()) == 31)
        await stage.until(lambda: any(isinstance(fact, ClientServed) for fact in stage.facts))
        assert len({claims["jti"] for _, claims in stage.receivers.posts}) == 31
        assert stage.queue.buckets[SHOP] == []
        [recovered] = [fact for fact in stage.facts if isinstance(fact, ClientRecovered)]
        assert recovered.outage == 1
        await stage.until(lambda: len(stage.queue.acked) == 31 + 31)


async def test_a_first_success_drains_what_another_worker_has_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    """This worker knows nothing of the client, and no leash is on its way."""
    monkeypatch.setattr(fetching, "FIRST_AUDIT", 1e6)
    stage = Stage(client("shop"))
    in_bucket(stage, 3)
    async with running(stage):
        await stage.acked(stage.event("shop", id="first"))
        await stage.until(lambda: len(stage.receivers.posts) == 4)
        assert not in_delay_queues(stage)


async def test_while_it_is_down_its_leash_alone_tries_it() -> None:
    """At most once a second, less and less often, and none of it is charged to the delivery's own backoff."""
    async with down(Stage(client("shop")), 5) as stage:
        stage.receivers.behaviours["shop"] = answers(503)
        began, body = stage.now, b""
        while stage.now < began + 600:
            queue, sent = next(one for one in reversed(stage.queue.published) if one[0] != PARKED)
            body = sent.body
            stage.queue.published.clear()
            stage.now += int(queue.removeprefix("delay.").removesuffix("s"))
            taken = stage.take(sent.body, lane=Lane.RETRIES, kind=sent.kind, message_id=sent.message_id)
            await stage.acked(taken)
            await stage.until(lambda: any(queue != PARKED for queue, _ in stage.queue.published))
        assert 15 <= len(stage.told()) <= 40
        assert b'"backoffs":0' in body
        assert sum(map(len, stage.queue.buckets.values())) == 5


async def test_what_is_parked_after_its_leash_came_is_fetched() -> None:
    """Its park is confirmed when the client is up already, or when the leash has expired."""
    async with down(Stage(client("shop")), 0) as stage:
        stage.now -= 1
        stage.queue.open.clear()
        late = stage.event("shop", id="late")
        await stage.until(lambda: stage.queue.refused == [PARKED])
        stage.now += 1
        stage.retake("delay.1s")
        await stage.until(lambda: stage.told() == ["shop"])
        stage.queue.open.set()
        await stage.until(lambda: stage.told() == ["shop", "shop"])
        await stage.acked(late)


@pytest.mark.parametrize(("status", "seconds"), [(403, 2.5), (503, 2.5), (503, 5.0)])
async def test_a_leash_that_dies_is_followed_by_another(
    status: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, expired with its last attempt, or before it. The queue is away at that moment, too."""
    hurry(monkeypatch)
    monkeypatch.setattr(fetching, "AUDIT_EVERY", 1e6)
    stage = Stage(client("shop"))
    away(stage, 2)
    async with running(stage):
        stage.receivers.behaviours["shop"] = answers(503)
        await stage.acked(stage.event("shop", id="leash", not_after="2027-01-15T08:00:03Z"))
        for number in range(3):
            await stage.acked(stage.event("shop", id=f"e{number}"))
        stage.receivers.behaviours["shop"] = answers(status)
        stage.now += seconds
        delayed = in_delay_queues(stage)
        await stage.acked(stage.retake("delay.1s"))
        assert len(stage.dead()) == 1
        if status == 403:
            await stage.until(lambda: len(stage.dead()) == 4)
        else:
            await stage.until(lambda: in_delay_queues(stage) > delayed or len(stage.told()) > 2)


async def test_a_leash_that_dies_in_a_pause_is_followed_by_another() -> None:
    """The client asked for an hour, and its leash has ten seconds to live."""
    async with running(Stage(client("shop"))) as stage:
        stage.receivers.behaviours["shop"] = answers(503, "3600")
        await stage.acked(stage.event("shop", id="leash", not_after="2027-01-15T08:00:10Z"))
        await stage.acked(stage.event("shop", id="next"))
        assert stage.queue.published.pop()[0] == PARKED
        await stage.through_delays(most=12)
        delayed = [sent.body for queue, sent in stage.queue.published if queue.startswith("delay.")]
        assert any(b'"event_id":"next"' in body for body in delayed)
        assert (stage.told(), stage.queue.buckets[SHOP]) == (["shop"], [])


@pytest.mark.parametrize(
    ("before", "needed", "given_back"),
    [
        pytest.param(0, 1, 0, id="at the start at its first look"),
        pytest.param(1, 2, 0, id="later at its second look"),
        pytest.param(0, 1, INSIST, id="whose deliveries a worker had fetched that was killed"),
    ],
)
async def test_the_audit_finds_a_bucket_that_nobody_looks_after(
    monkeypatch: pytest.MonkeyPatch, before: int, needed: int, given_back: int
) -> None:
    """Later, what it sees first may be on its way out. All of the bucket is served then, not one a look."""
    stage = Stage(client("shop"))
    stage.queue.given_back = given_back
    looks = 0
    parked = stage.queue.parked

    async def counted(buckets: object = None) -> dict[str, int]:
        nonlocal looks
        looks += 1
        return await parked(buckets)  # type: ignore[arg-type]

    monkeypatch.setattr(stage.queue, "parked", counted)
    hurry(monkeypatch)
    async with running(stage):
        await stage.until(lambda: looks == before)
        in_bucket(stage, 50)
        await stage.until(lambda: bool(stage.told()))
        monkeypatch.setattr(fetching, "AUDIT_EVERY", 1e6)
        assert looks >= before + needed
        await stage.until(lambda: len(stage.told()) == 50)
    assert looks < before + 50  # each of which may be late on a slow machine


async def test_other_workers_deliveries_are_found_soon_after_a_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """They park until their own rest ends."""
    hurry(monkeypatch)
    async with down(Stage(client("shop")), 0) as stage:
        stage.retake("delay.1s")
        await stage.until(lambda: any(isinstance(fact, ClientServed) for fact in stage.facts))
        in_bucket(stage, 3)
        await stage.until(lambda: len(stage.told()) == 4)


async def test_other_clients_of_a_bucket_do_not_make_it_go_round_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies there for a client that is down is looked at once, and what lies behind it is found."""
    stage = Stage(client("shop"), client("dead"))
    monkeypatch.setattr(stage.queue, "bucket", lambda _key: SHOP)
    stage.receivers.behaviours["dead"] = answers(503)
    async with down(stage, 0):
        stage.receivers.behaviours["dead"] = answers(503)
        await stage.acked(stage.event("dead", id="leash of the dead"))
        in_bucket(stage, 100, "dead")
        in_bucket(stage, 5, "shop")
        stage.receivers.posts.clear()
        await stage.acked(stage.event("shop", id="fresh"))
        await stage.until(lambda: stage.told().count("shop") == 6)
        before = -1
        while before != (before := len(stage.queue.published)):
            for _ in range(200):
                await asyncio.sleep(0)
        assert len(stage.queue.buckets[SHOP]) == 100
        assert len(stage.queue.published) < 400
        assert stage.told().count("dead") == 0
        await fails_until_it_rests(stage)
        in_bucket(stage, 10, "shop")  # of which five are told already
        stage.now += 1
        await stage.acked(stage.event("shop", id="fresh again"))
        await stage.until(lambda: stage.told().count("shop") == 6)


async def test_a_queue_that_is_away_while_fetching_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fetch is made again."""
    hurry(monkeypatch)
    monkeypatch.setattr(fetching, "AUDIT_EVERY", 1e6)
    stage = Stage(client("shop"))
    away(stage, 3)
    async with down(stage, 8):
        stage.retake("delay.1s")
        await stage.until(lambda: len(stage.told()) == 9)


async def test_a_worker_that_stops_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it fetched last goes back to the queue when its connection closes."""
    hurry(monkeypatch)
    stage = Stage(client("shop"), shutdown_grace=0.1)
    async with down(stage, 8):
        release = asyncio.Event()
        fetch = stage.queue.fetch

        async def slow(bucket: str, most: int) -> list[Message]:
            await release.wait()
            return await fetch(bucket, most)

        stage.queue.fetch = slow  # type: ignore[method-assign]
        await stage.acked(stage.retake("delay.1s"))
        for _ in range(20):
            await asyncio.sleep(0)
        stage.worker.stop()
        release.set()
    assert stage.told() == ["shop"]
    assert len(stage.queue.acked) == 10
    assert len(stage.queue.buckets[SHOP]) >= 8 - 4


async def test_a_suspect_goes_the_suspects_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be what kills the process: it waits for the others, and is tried in a small group."""
    stage = Stage(client("shop"))
    fetch = stage.queue.fetch

    async def given_back(bucket: str, most: int) -> list[Message]:
        found = await fetch(bucket, most)
        return [replace(one, delivery_count=3) for one in found]

    monkeypatch.setattr(stage.queue, "fetch", given_back)
    async with down(stage, 1):
        await stage.acked(stage.retake("delay.1s"))
        await stage.until(lambda: stage.queue.buckets[SHOP] == [])
        for _ in range(50):
            await asyncio.sleep(0)
        assert stage.told() == ["shop"]
        stage.now += GATHER
        await stage.until(lambda: stage.told() == ["shop", "shop"])
