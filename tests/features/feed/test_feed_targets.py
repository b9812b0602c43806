"""Where outcomes go: the exchange of RabbitMQ, or a table beside the embedded queue's messages."""

import asyncio
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aio_pika
import pytest

from notifier.features.feed.feed_event import dump_feed_event, feed_message
from notifier.model.errors import QueueUnavailable
from notifier.model.notice import ClientChange, ClientNotice, DeliveryResult, FeedNotice, LastAttempt, Notice
from notifier.queues.rabbitmq import feed_target
from notifier.queues.rabbitmq.feed_target import RabbitFeedTarget
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from notifier.queues.sqlite.feed_target import Retention, SqliteFeedTarget

PATIENCE = 60.0  # seconds until a wait is a failure
ISS = "https://id.example.com"
DOCUMENT = Path(__file__).parents[3] / "docs" / "outcomes.md"


def notice_of(number: int, *, at: float = 1_800_000_000.0) -> FeedNotice:
    if number % 10 == 9:
        return ClientNotice(id=f"id-{number}", at=at, state=ClientChange.FAILING, iss=ISS, client_id="shop")
    return Notice(
        id=f"id-{number}",
        at=at,
        fate=DeliveryResult.DELIVERED,
        reason="delivered",
        iss=ISS,
        client_id="shop",
        event_id=f"e{number}",
        propagation=number / 100,
        last_attempt=LastAttempt(number=1, jti=f"id-{number}", status=200, seconds=0.01),
    )


@asynccontextmanager
async def publisher(options: RabbitOptions) -> AsyncIterator[RabbitFeedTarget]:
    made = RabbitFeedTarget(options, feed_message)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_rabbitmq_gets_each_by_its_routing_key(amqp_url: str, bare_prefix: str) -> None:
    """With the headers by which consumers filter, on an exchange that is declared where nobody did before."""
    options = RabbitOptions(urls=(amqp_url,), prefix=bare_prefix)
    async with publisher(options) as sink, await aio_pika.connect(amqp_url) as connection:
        await asyncio.wait_for(sink.wait_until_available(), PATIENCE)
        channel = await connection.channel()
        exchange = await channel.get_exchange(f"{bare_prefix}.outcomes")
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "client.*")
        await queue.bind(exchange, "delivered.#")
        await sink.send([notice_of(number) for number in range(20)])
        async with asyncio.timeout(PATIENCE), queue.iterator(no_ack=True) as messages:
            got = []
            async for message in messages:
                got.append(message)
                if len(got) == 20:
                    break
    assert [message.body for message in got] == [
        dump_feed_event(notice_of(number), f"/notifier/{bare_prefix}") for number in range(20)
    ]
    assert [message.routing_key for message in got[8:10]] == ["delivered.delivered", "client.failing"]
    assert got[0].headers == {"iss": ISS, "client_id": "shop", "event_id": "e0"}
    assert (got[0].content_type, got[0].message_id) == ("application/cloudevents+json", "id-0")


async def test_unreachable_rabbitmq_raises_queue_unavailable() -> None:
    """What would be sent then is for the caller to count."""
    options = RabbitOptions(urls=("amqp://127.0.0.1:1/",))
    async with publisher(options) as sink:
        with pytest.raises(QueueUnavailable):
            await sink.send([notice_of(1)])


async def test_an_exchange_that_is_missing_is_waited_for(
    amqp_url: str, bare_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing may be declared (queue.topology: verify), nobody has anything to send meanwhile."""
    monkeypatch.setattr(feed_target, "REOPEN_DELAY_SECONDS", 0.1)
    options = RabbitOptions(urls=(amqp_url,), prefix=bare_prefix, topology="verify")
    async with publisher(options) as sink:
        with pytest.raises(QueueUnavailable):
            await sink.send([notice_of(1)])
        async with await aio_pika.connect(amqp_url) as connection:
            channel = await connection.channel()
            await channel.declare_exchange(f"{bare_prefix}.outcomes", aio_pika.ExchangeType.TOPIC, durable=True)
            await asyncio.wait_for(sink.wait_until_available(), PATIENCE)
            await sink.send([notice_of(1)])


def at_rest() -> float:
    """A clock."""
    return 1_800_000_000.0


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[SqliteQueue]:
    made = SqliteQueue(SqliteOptions(path=tmp_path / "q.db", delay_clock=at_rest))
    await made.open()
    yield made
    await made.close()


def tables(database: sqlite3.Connection) -> set[str]:
    return {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def kept(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [row[0] for row in database.execute("SELECT id FROM outcomes ORDER BY n")]


async def test_the_embedded_queue_keeps_them_in_its_file(queue: SqliteQueue, tmp_path: Path) -> None:
    """Each once, with all that is known of it; a file without outcomes has no such table."""
    with closing(sqlite3.connect(tmp_path / "q.db")) as database:
        assert "outcomes" not in tables(database)
    sink = SqliteFeedTarget(queue, at_rest)
    await sink.send([notice_of(number) for number in range(1000)])
    await sink.send([notice_of(number) for number in range(990, 1010)])
    with closing(sqlite3.connect(tmp_path / "q.db")) as database:
        assert "outcomes" in tables(database)
        database.row_factory = sqlite3.Row
        rows = [dict(row) for row in database.execute("SELECT * FROM outcomes ORDER BY n")]
    assert [row["id"] for row in rows] == [f"id-{number}" for number in range(1010)]
    assert rows[7] == {
        "n": 8, "id": "id-7", "at": 1_800_000_000.0, "fate": "delivered", "reason": "delivered", "iss": ISS,
        "client_id": "shop", "event_id": "e7", "delivery_id": "", "publisher": None, "ended_at": None,
        "propagation": 0.07, "next_due": None, "attempt": 1, "jti": "id-7", "status": 200, "seconds": 0.01,
    }  # fmt: skip
    assert [row["fate"] for row in rows[9:11]] == ["failing", "delivered"]


async def test_the_oldest_are_forgotten_by_number(queue: SqliteQueue, tmp_path: Path) -> None:
    """The file of a small installation does not grow without limit."""
    sink = SqliteFeedTarget(queue, at_rest, Retention(most=100, age=1e9))
    for start in range(0, 500, 50):
        await sink.send([notice_of(number) for number in range(start, start + 50)])
    assert kept(tmp_path / "q.db") == [f"id-{number}" for number in range(400, 500)]


async def test_the_oldest_are_forgotten_by_age(queue: SqliteQueue, tmp_path: Path) -> None:
    """By the time of the notice."""
    sink = SqliteFeedTarget(queue, at_rest, Retention(most=1000, age=60))
    await sink.send([notice_of(number, at=1_800_000_000.0 - number) for number in range(100)])
    assert kept(tmp_path / "q.db") == [f"id-{number}" for number in range(61)]


async def test_a_closed_queue_accepts_no_notice(queue: SqliteQueue) -> None:
    """It raises QueueUnavailable."""
    await queue.close()
    with pytest.raises(QueueUnavailable):
        await SqliteFeedTarget(queue, at_rest).send([notice_of(1)])


async def test_the_query_of_the_document_counts_by_client(queue: SqliteQueue, tmp_path: Path) -> None:
    """Share, p50, p99 and slowest of the last day, worst client first, by the SQL of docs/outcomes.md."""
    now, old = time.time() - 60, time.time() - 90_000
    delivered, dead, retrying = DeliveryResult.DELIVERED, DeliveryResult.DEAD, DeliveryResult.RETRYING
    counted = [
        *(("shop", delivered, now, number / 100) for number in range(1, 101)),
        *(("shop", fate, now, None) for fate in (dead, delivered, retrying, retrying)),
        *(("down", retrying, now, None), ("bad", dead, now, None), ("bad", dead, old, None), ("old", dead, old, None)),
    ]
    notices = [
        Notice(
            id=str(n), at=at, fate=fate, reason="x", iss=ISS, client_id=client, event_id="e", propagation=propagation
        )
        for n, (client, fate, at, propagation) in enumerate(counted)
    ]
    change = ClientNotice(id="turn", at=now, state=ClientChange.FAILING, iss=ISS, client_id="down")
    await SqliteFeedTarget(queue, time.time).send([*notices, change])
    [query] = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    with closing(sqlite3.connect(tmp_path / "q.db")) as database:
        rows = list(database.execute(query))
    assert rows == [
        (ISS, "down", 0, 0, 1, None, None, None, None),
        (ISS, "bad", 0, 1, 0, 0.0, None, None, None),
        (ISS, "shop", 101, 1, 2, pytest.approx(101 / 102), 0.5, 0.99, 1.0),
    ]
