"""What the embedded queue keeps of parked messages beyond the contract: due times, kills, speed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from notifier.model.errors import QueueUnavailable
from notifier.model.message import PARKED, Lane
from notifier.queues.queue_port import BucketQueues
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from notifier.queues.sqlite.file import open_file
from notifier.queues.sqlite.lanes import MAX_TAKEN_PER_ROUND, Lanes
from notifier.queues.sqlite.rows import LONGEST_DELAY, NewRow
from notifier.queues.sqlite.store import MAX_DUE_PER_ROUND, Store
from tests.contract.queues import Inbox, names, outgoing
from tests.queues.sqlite.test_sqlite_queue import child, facts, full_disk

SHOP, WIKI = ("https://id.example.com", "shop"), ("https://id.example.com", "wiki")
HOUR = 3600.0


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the queue is."""
    return tmp_path / "queue.db"


@contextlib.asynccontextmanager
async def worker(file: Path, clock: Clock | None = None) -> AsyncIterator[tuple[SqliteQueue, Inbox]]:
    """A worker at the file."""
    options = SqliteOptions(path=file) if clock is None else SqliteOptions(path=file, clock=clock, delay_clock=clock)
    queue, inbox = SqliteQueue(options), Inbox()
    await queue.open()
    await queue.consume(inbox)
    yield queue, inbox
    await queue.close()


async def park(queue: BucketQueues, until: float, *messages: str, client: tuple[str, str] = SHOP) -> str:
    """Park messages at the same time, in their order. Returns the bucket."""
    bucket = queue.bucket(client)
    await asyncio.gather(*(queue.park(bucket, outgoing(name), until=until) for name in messages))
    return bucket


def test_a_bucket_is_one_clients() -> None:
    """Whatever text issuer and client are, no two clients share it."""
    queue = SqliteQueue(SqliteOptions(path=Path("unused")))
    odd = [("a", "bc"), ("ab", "c"), ('a", "b', "c"), ("a", 'b", "c'), ("a\0b", "c"), ("a", "\0b")]
    assert len({queue.bucket(client) for client in odd}) == len(odd)


async def test_parked_comes_back_by_itself(file: Path) -> None:
    """As a retry, exactly when it was to, however long that was."""
    clock = Clock()
    async with worker(file, clock) as (queue, inbox):
        await park(queue, clock.now + 30 * HOUR, "late")
        bucket = await park(queue, clock.now + 100, "soon")
        clock.now += 99.9
        assert await queue.count_parked() == {bucket: 2}
        clock.now += 0.1
        assert names([await inbox.next()]) == ["soon"]
        assert await queue.count_parked() == {bucket: 1}
        assert {name: depth.ready for name, depth in (await queue.depths()).items() if depth.ready} == {PARKED: 1}


async def test_held_message_does_not_return_when_due(file: Path) -> None:
    """Its time passes while it is attempted, and it is not given out twice; the others come, and the thread sleeps."""
    clock = Clock()
    async with worker(file, clock) as (queue, inbox):
        bucket = await park(queue, clock.now + 100, *"abc")
        a, _ = await queue.fetch(bucket, 2)
        clock.now += 200
        assert names([await inbox.next()]) == ["c"]
        queue.ack(a)
        await queue.publish_later(outgoing("behind"), due=clock.now + 1)
        clock.now += 1
        assert names([await inbox.next()]) == ["behind"]
        assert inbox.empty()
        assert (await queue.count_parked(), await queue.fetch(bucket, 1)) == ({}, [])


async def test_start_wakes_parked_messages(file: Path) -> None:
    """A fresh worker knows nothing of its clients: each is asked again soon, in the order in which they were parked."""
    sent = [f"m-{number}" for number in range(3 * MAX_DUE_PER_ROUND)]
    async with worker(file) as (queue, _):
        for number, client in enumerate((SHOP, WIKI, SHOP)):
            some = sent[number * MAX_DUE_PER_ROUND : (number + 1) * MAX_DUE_PER_ROUND]
            await park(queue, 9e9, *some, client=client)
        held = await queue.fetch(queue.bucket(SHOP), 1)
    queue = SqliteQueue(SqliteOptions(path=file))
    inbox = Inbox(queue.ack)
    await queue.open()
    assert (await queue.depths())[PARKED].ready == len(sent)
    await queue.consume(inbox)
    bucket = await park(queue, 9e9, "parked after the start")
    taken = await inbox.some(len(sent))
    assert names(taken) == sent
    assert {message.message_id for message in taken if message.delivery_count} == set(names(held))
    assert await queue.count_parked() == {bucket: 1}
    await queue.close()


async def test_fetch_while_parked_messages_wake(file: Path) -> None:
    """It comes once: out of the bucket or as a retry."""
    sent = {f"m-{number}" for number in range(8 * MAX_DUE_PER_ROUND)}
    async with worker(file) as (queue, _):
        bucket = await park(queue, 9e9, *sent)
    async with worker(file) as (queue, _):
        inbox = Inbox(queue.ack)
        await queue.consume(inbox)
        fetched = list(await queue.fetch(bucket, 600))
        while batch := await queue.fetch(bucket, 600):
            fetched += batch
        for message in fetched:
            queue.ack(message)
        rest = names(await inbox.some(len(sent) - len(fetched)))
        assert inbox.empty()
    assert len(rest) + len(fetched) == len({*rest, *names(fetched)}) == len(sent)


async def test_a_kill_with_fetched_messages(file: Path) -> None:
    """After SIGKILL, all parked and unacked messages return, oldest first. Acked ones do not."""
    async with child("park", file) as process:
        reported = facts(process)
        assert [await anext(reported) for _ in range(3)] == [("fetched", "0"), ("fetched", "1"), ("acked", "1")]
    async with worker(file) as (queue, inbox):
        assert names(await inbox.some(4)) == ["0", "2", "3", "4"]
        assert await queue.count_parked() == {}


async def test_a_cancelled_fetch(file: Path) -> None:
    """Its messages are fetched by the next fetch, in order, or return when they are due."""
    clock = Clock()
    async with worker(file, clock) as (queue, inbox):
        bucket = await park(queue, clock.now + 100, *"abc")
        for begun in (False, True):
            fetching = asyncio.ensure_future(queue.fetch(bucket, 2))
            if begun:
                await asyncio.sleep(0)
            assert fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
        assert names(await queue.fetch(bucket, 1)) == ["a"]
        clock.now += 100
        assert names(await inbox.some(2)) == ["b", "c"]
        assert inbox.empty()


async def test_only_the_worker_fetches(file: Path) -> None:
    """An observer beside it would hand a message out a second time."""
    async with worker(file) as (queue, _):
        bucket = await park(queue, 9e9, "a")
        observer = SqliteQueue(SqliteOptions(path=file))
        await observer.open()
        with pytest.raises(QueueUnavailable, match="consumed"):
            await observer.fetch(bucket, 1)
        assert await observer.count_parked() == {bucket: 1}
        await observer.close()


async def test_an_ack_that_waits_for_room_on_the_disk(file: Path) -> None:
    """The message is still there, and is not fetched again meanwhile."""
    async with worker(file) as (queue, _):
        bucket = await park(queue, 9e9, *"ab")
        [a] = await queue.fetch(bucket, 1)
        with full_disk(at=0):
            queue.ack(a)
            with pytest.raises(QueueUnavailable):
                await park(queue, 9e9, "no room")
            with pytest.raises(QueueUnavailable):
                await queue.fetch(bucket, 1)
        await queue.wait_until_available()
        await park(queue, 9e9, "c")
        assert names(await queue.fetch(bucket, 10)) == ["b", "c"]


def filled(file: Path, rows: int) -> Store:
    """A file with so many parked rows of one client, and one of another."""
    store = Store.open(file)
    row = NewRow(LONGEST_DELAY, None, None, "m", "{}", 0.0, 9e9, b"x" * 900, "shop")
    with store.transaction():
        store.insert([row] * rows)
        store.insert([row._replace(parked="wiki")])
    return store


def test_a_backlog_comes_in_rounds(file: Path) -> None:
    """512 of what is due are moved in a transaction, and 128 of a lane taken: the thread serves others in between."""
    store, lanes = filled(file, 600), Lanes({Lane.RETRIES: 10_000})
    fresh = NewRow(Lane.EVENTS, None, None, "fresh", "{}", 0.0, None, b"")
    moved, taken = list[int](), list[int]()
    for _ in range(2):
        with store.transaction():
            store.move_due(1e10, [])
        moved.append(len(store.read(Lane.RETRIES, 0, 10_000)))
    with store.transaction():
        store.insert([fresh])
    while limits := lanes.count_takeable():
        with store.transaction():
            pages = lanes.take(store, limits)
        lanes.on_committed(pages, limits)
        taken.append(len(pages.get(Lane.RETRIES, [])))
        assert len(taken) > 1 or [message.message_id for _, message in pages[Lane.EVENTS]] == ["fresh"]
    store.close()
    assert (MAX_DUE_PER_ROUND, moved) == (512, [512, 601])
    assert (MAX_TAKEN_PER_ROUND, taken) == (128, [128] * 4 + [89])


@contextlib.contextmanager
def steps(store: Store, allowed: int) -> Iterator[None]:
    """Inside, SQLite's machine makes at most so many thousand steps in a statement."""
    count = 0

    def stop() -> bool:
        nonlocal count
        count += 1
        return count > allowed

    store.database.set_progress_handler(stop, 1000)
    yield
    store.database.set_progress_handler(None, 1000)


def test_many_parked_cost_the_others_nothing(file: Path) -> None:
    """To fetch, to take, to move what is due and to look when something is: all without a step over parked rows."""
    store = filled(file, 20_000)
    with steps(store, 2):
        assert len(store.read_parked("shop", range(1, 20), 4)) == 4
        assert len(store.read_parked("wiki", (), 4)) == 1
        assert store.read(Lane.RETRIES, 0, 128) == []
        with store.transaction():
            store.move_due(1.0, [5])
            store.delete([7])
        assert store.read_next_due([1]) == 9e9
        assert store.count_parked(["wiki"]) == {"wiki": 1}
    store.close()


def test_no_statement_reads_the_whole_table(file: Path) -> None:
    """Each goes by an index: those of every turn, and those of status and start, which may read a whole index."""
    seen: list[str] = []
    store = filled(file, 3)
    store.database.set_trace_callback(seen.append)
    with store.transaction():
        store.wake([1])
        store.count_return([2])
        store.move_due(1.0, [2])
        store.take_to(Lane.RETRIES, 5)
    store.read_parked("shop", [2], 4)
    store.count_parked()
    store.count_parked(["shop"])
    store.read_parked_ids()
    store.read_next_due([2])
    store.depths(consumed=True)
    store.read_oldest()
    store.close()
    with contextlib.closing(open_file(file)) as database:
        plans = {
            sql: [str(step[3]) for step in database.execute(f"EXPLAIN QUERY PLAN {sql}")]
            for sql in seen
            if not sql.startswith(("BEGIN", "COMMIT", "--"))
        }
    assert len(plans) > 10
    scans = [(sql, step) for sql, plan in plans.items() for step in plan if step in {"SCAN messages", "SCAN m"}]
    assert scans == []
