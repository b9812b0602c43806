"""`notifier collect` takes outcomes from a real broker into a file, each once, whoever dies on the way."""

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aio_pika

from notifier.features.feed.feed_event import feed_message
from notifier.model.fate import Fate, Notice
from notifier.queues.rabbitmq.feed_target import RabbitFeedTarget
from notifier.queues.rabbitmq.options import RabbitOptions
from tests.system.command import environment, notifier
from tests.system.loaded_program import begun
from tests.system.waiting import until

PATIENCE = 60.0
ISS = "https://id.example.com"


def told(number: int, *, client_id: str = "shop") -> Notice:
    return Notice(
        id=f"id-{number}",
        at=1_800_000_000.0 + number,
        fate=Fate.DELIVERED,
        reason="delivered",
        iss=ISS,
        client_id=client_id,
        event_id=f"e{number}",
        propagation=0.25,
    )


@asynccontextmanager
async def exchange(amqp_url: str, prefix: str) -> AsyncIterator[RabbitFeedTarget]:
    """As a worker publishes to it."""
    sink = RabbitFeedTarget(RabbitOptions(urls=(amqp_url,), prefix=prefix), feed_message)
    task = asyncio.create_task(sink.run())
    try:
        await asyncio.wait_for(sink.available(), PATIENCE)
        yield sink
    finally:
        task.cancel()
        await asyncio.wait({task})


def settings(amqp_url: str, prefix: str) -> dict[str, str]:
    return {"NOTIFIER_QUEUE__URL": amqp_url, "NOTIFIER_QUEUE__PREFIX": prefix}


def kept(path: Path) -> list[str]:
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=PATIENCE)) as database:
        found = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'outcomes'").fetchone()[0]
        return [row[0] for row in database.execute("SELECT id FROM outcomes ORDER BY n")] if found else []


async def until_kept(path: Path, count: int) -> None:
    async def ask() -> int:
        return len(await asyncio.to_thread(kept, path))

    await until(ask, lambda found: found == count, PATIENCE)


async def test_what_waits_is_drained_and_kept_once(amqp_url: str, prefix: str, tmp_path: Path) -> None:
    """From its first run on the queue keeps what comes while nobody collects; a copy is known by its id."""
    collect = ("collect", "--drain", "--json")
    more = settings(amqp_url, prefix)
    first = await asyncio.to_thread(notifier, *collect, cwd=tmp_path, settings=more)
    assert (first.returncode, json.loads(first.stdout)["collected"]) == (0, 0)
    async with exchange(amqp_url, prefix) as sink:
        await sink.send([told(number) for number in range(300)])
        await sink.send([told(number) for number in range(290, 310)])
        async with await aio_pika.connect(amqp_url) as connection:
            channel = await connection.channel()
            others = await channel.get_exchange(f"{prefix}.outcomes")
            await others.publish(aio_pika.Message(b"not ours"), "any", mandatory=False)

            async def waiting() -> int:
                queue = await channel.declare_queue(f"{prefix}.collected", passive=True)
                return queue.declaration_result.message_count or 0

            await until(waiting, lambda count: count == 321, PATIENCE)
    second = await asyncio.to_thread(notifier, *collect, cwd=tmp_path, settings=more)
    assert second.returncode == 0
    assert json.loads(second.stdout) == {"collected": 310, "again": 10, "unreadable": 1, "file": "outcomes.db"}
    assert kept(tmp_path / "outcomes.db") == [f"id-{number}" for number in range(310)]
    assert (tmp_path / "outcomes.db").stat().st_mode & 0o077 == 0
    third = await asyncio.to_thread(notifier, "collect", "--drain", cwd=tmp_path, settings=more)
    assert third.stdout == "0 outcomes collected into outcomes.db\n"


async def test_a_collector_ends_cleanly_and_the_next_goes_on(amqp_url: str, prefix: str, tmp_path: Path) -> None:
    """One is killed, one ended by SIGTERM: what they had kept is kept once, and nothing is missed."""
    path, count = tmp_path / "outcomes.db", 0
    async with exchange(amqp_url, prefix) as sink:
        for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 0)):
            with begun(["collect"], cwd=tmp_path, env=environment(settings(amqp_url, prefix))) as (process, out):
                if not count:
                    await until_queue(amqp_url, prefix)
                await sink.send([told(one) for one in range(count, count + 50)])
                count += 50
                await until_kept(path, count)
                os.kill(process.pid or 0, number)
                said = await asyncio.to_thread(out.read)
            errors = (tmp_path / "errors").read_text()
            assert process.exitcode == code, errors
            if code == 0:
                assert ("collected into outcomes.db" in said, errors) == (True, "")
    assert kept(path) == [f"id-{number}" for number in range(100)]


async def until_queue(amqp_url: str, prefix: str) -> None:
    """Wait until the collector has bound its queue: what is told before is gone."""
    async with await aio_pika.connect(amqp_url) as connection:

        async def consumed() -> int:
            channel = await connection.channel()
            try:
                queue = await channel.declare_queue(f"{prefix}.collected", passive=True)
            except aio_pika.exceptions.ChannelNotFoundEntity:
                return 0
            else:
                return queue.declaration_result.consumer_count or 0
            finally:
                await channel.close()

        await until(consumed, lambda count: count == 1, PATIENCE)
