"""A disk that is really full below the embedded queue: each caller gets the same error at once."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from notifier.model.errors import QueueUnavailable
from notifier.model.message import DEAD, Lane
from notifier.model.registry import Registry
from notifier.operators.doctor.doctor import Severity
from notifier.operators.doctor.doctor_queue import examine_queue
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from notifier.queues.sqlite.file import MIN_FREE_BYTES
from tests.contract.queues import Inbox, names, outgoing
from tests.support.small_disk import filled, small_disk
from tests.system.waiting import until

PATIENCE = 20.0


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """Where the queue is: on a disk of 12 MiB."""
    with small_disk(tmp_path / "disk", mib=12) as disk:
        yield disk / "queue.db"


@contextlib.asynccontextmanager
async def opened(file: Path) -> AsyncIterator[SqliteQueue]:
    """The queue of one process."""
    queue = SqliteQueue(SqliteOptions(path=file))
    await queue.open()
    try:
        yield queue
    finally:
        await queue.close()


async def until_told(queue: SqliteQueue, reported: Callable[[str | None], bool]) -> str | None:
    """Wait for a text in `status`, without a publish."""

    async def problem() -> str | None:
        assert queue.status().blocked == (queue.status().problem is not None)
        return queue.status().problem

    return await until(problem, reported, PATIENCE)


def text(file: Path) -> str:
    """Return the error that all callers get."""
    return f"the disk of the queue file {file} is full (less than 2 MiB is free); make room there"


async def publish_on_and_on(queue: SqliteQueue, published: list[str]) -> None:
    """Until it is refused."""
    while True:
        await queue.publish(Lane.EVENTS, outgoing("backlog", body=bytes(50_000)))
        published.append("backlog")


async def test_full_disk_is_reported_before_the_first_refusal(file: Path) -> None:
    """The worker, a publisher beside it, `notifier status` and the doctor. Acks go on."""
    async with opened(file) as queue:
        inbox = Inbox()
        await queue.consume(inbox)
        await queue.publish(Lane.EVENTS, outgoing("held"))
        held = await inbox.next()
        with filled(file.parent):
            assert await until_told(queue, lambda problem: problem is not None) == text(file)
            for size in (1, 100_000):
                with pytest.raises(QueueUnavailable) as refused:
                    await queue.publish(Lane.RETRIES, outgoing("no room", body=bytes(size)))
                assert str(refused.value) == text(file)
            async with opened(file) as beside:
                with pytest.raises(QueueUnavailable) as refused:
                    await beside.send_event(Lane.EVENTS, b"{}", message_id="no room")
                assert str(refused.value) == text(file)
            overview = await SqliteQueue(SqliteOptions(path=file)).read_overview(0.1)
            assert (overview.blocked, overview.depths[Lane.EVENTS].consumers) == (text(file), 1)
            [finding] = await examine_queue(SqliteQueue(SqliteOptions(path=file)), str(file), Registry())
            assert (finding.level, finding.text) == (Severity.FAILED, text(file))
            queue.ack(held)
            await until(queue.depths, lambda depths: depths[Lane.EVENTS].ready == 0, PATIENCE)
        await until_told(queue, lambda problem: problem is None)
        await queue.publish(Lane.EVENTS, outgoing("room"))
        assert names([await inbox.next()]) == ["room"]
        assert (await SqliteQueue(SqliteOptions(path=file)).read_overview(0.1)).blocked == ""
        [finding] = await examine_queue(SqliteQueue(SqliteOptions(path=file)), str(file), Registry())
        assert finding.level is Severity.OK


async def test_message_acked_on_a_full_disk_does_not_return(file: Path) -> None:
    """The remaining space is reserved for acks: thousands succeed while publishers try again and again."""
    async with opened(file) as queue:
        inbox = Inbox()
        await asyncio.gather(*(queue.publish(Lane.EVENTS, outgoing(str(number))) for number in range(3000)))
        await queue.consume(inbox)
        with filled(file.parent):
            await until_told(queue, lambda problem: problem is not None)
            for _ in range(3000):
                queue.ack(await inbox.next())
                with contextlib.suppress(QueueUnavailable):
                    if inbox.empty():
                        await queue.publish(Lane.RETRIES, outgoing("again"))
    with contextlib.closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT count(*) FROM messages WHERE queue = 'events'").fetchone() == (0,)


async def test_free_pages_of_the_file_count_as_room(file: Path) -> None:
    """The file does not shrink. A backlog that filled the disk, and is gone, blocks nobody."""
    async with opened(file) as queue:
        inbox, backlog = Inbox(), list[str]()
        with pytest.raises(QueueUnavailable) as refused:
            await publish_on_and_on(queue, backlog)
        assert str(refused.value) == text(file)
        await queue.consume(inbox)
        for message in await inbox.some(len(backlog)):
            queue.ack(message)
        await until_told(queue, lambda problem: problem is None)
        for number in range(100):
            await queue.publish(DEAD, outgoing(str(number), body=bytes(1000)))
        [finding] = await examine_queue(SqliteQueue(SqliteOptions(path=file)), str(file), Registry())
        assert finding.level is Severity.OK


async def test_full_disk_without_a_worker_is_reported(file: Path) -> None:
    """Without a worker SQLite cannot even read: it wants 32 KiB for its own book-keeping."""
    async with opened(file) as queue:
        await queue.publish(Lane.EVENTS, outgoing("a"))
    with filled(file.parent):
        queue = SqliteQueue(SqliteOptions(path=file))
        with pytest.raises(QueueUnavailable) as refused:
            await queue.read_overview(0.1)
        assert str(refused.value) == text(file)
        [finding] = await examine_queue(queue, str(file), Registry())
        assert (finding.level, finding.text) == (Severity.FAILED, text(file))
    assert (await queue.read_overview(0.1)).depths[Lane.EVENTS].ready == 1


async def test_feed_leaves_the_last_room_to_acks(file: Path) -> None:
    """Its notices wait in memory until there is room."""
    async with opened(file) as queue:
        await queue.consume(Inbox())
        target = queue.feed_target(lambda notice, source: pytest.fail(f"{notice} {source}"))
        with filled(file.parent):
            await until_told(queue, lambda problem: problem is not None)
            waiting = asyncio.ensure_future(target.wait_until_available())
            assert (await asyncio.wait([waiting], timeout=1.0))[1] == {waiting}
        await asyncio.wait_for(waiting, PATIENCE)


def test_the_largest_event_fits_into_the_room() -> None:
    """Once as a message, and once in the log."""
    assert MIN_FREE_BYTES >= 4 * 128 * 1024
