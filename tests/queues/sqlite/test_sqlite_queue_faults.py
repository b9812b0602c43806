"""The embedded queue after a fault of the disk, of an unreadable row, or of its thread."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from notifier.model.errors import QueueError, QueueUnavailable
from notifier.model.message import Lane
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from tests.contract.queues import Inbox, delay, names, outgoing
from tests.queues.sqlite.test_sqlite_queue import full_disk
from tests.system.site import Site
from tests.system.worker_process import worker

WAL_HEADER, WAL_FRAME = 32, 4096 + 24  # bytes of the write-ahead log; a frame is one page


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the queue is."""
    return tmp_path / "queue.db"


def write_row(file: Path, *, kind: str | None, headers: str = "{}") -> None:
    """Write an event past the adapter, as another release might."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute(
            "INSERT INTO messages (queue, kind, message_id, headers, published_at, body) VALUES (?, ?, ?, ?, ?, ?)",
            ("events", kind, "foreign", headers, 0.0, b"{}"),
        )


@pytest.mark.parametrize("frames", [0, 16])
async def test_delivery_due_on_a_full_disk_is_taken_later(file: Path, frames: int) -> None:
    """A retry that comes due between two turns that fail is taken in the first that succeeds, and frees its room.

    Without a frame left, no turn succeeds until there is room; with some, the retry's does and the publish's does not.
    """
    now = 1_000_000.0
    queue = SqliteQueue(SqliteOptions(path=file, prefetch={Lane.RETRIES: 1}, delay_clock=lambda: now))
    inbox = Inbox()
    await queue.open()
    await queue.consume(inbox)
    await delay(queue, 1, outgoing("first"))
    await delay(queue, 2, outgoing("second"))
    with full_disk(at=file.with_name("queue.db-wal").stat().st_size + frames * WAL_FRAME):
        for _ in range(2):
            with pytest.raises(QueueUnavailable):
                await queue.publish(Lane.EVENTS, outgoing("too large", body=bytes(200_000)))
            now += 10
    first = await inbox.next()
    queue.ack(first)
    assert names([first, await inbox.next()]) == ["first", "second"]
    await queue.close()


async def test_disk_filled_by_the_wal_recovers(file: Path) -> None:
    """The content of the write-ahead log is moved into the file, so a disk filled by that log recovers."""
    queue = SqliteQueue(SqliteOptions(path=file))
    await queue.open()
    for number in range(50):
        await queue.publish(Lane.EVENTS, outgoing(str(number)))
    with full_disk(at=file.with_name("queue.db-wal").stat().st_size):
        with pytest.raises(QueueUnavailable, match=str(file)):
            await queue.publish(Lane.EVENTS, outgoing("no room"))
        await queue.publish(Lane.EVENTS, outgoing("room"))
    assert queue.status().problem is None
    assert (await queue.depths())[Lane.EVENTS].ready == 51
    await queue.close()


async def test_a_start_on_a_full_disk(file: Path) -> None:
    """Delays that the last run left come due although the first turn after the start fails."""
    now = 1_000_000.0
    queue = SqliteQueue(SqliteOptions(path=file, delay_clock=lambda: now))
    inbox = Inbox()
    await queue.open()
    await delay(queue, 1, outgoing("delayed"))
    await queue.publish(Lane.EVENTS, outgoing("event"))
    await queue.close()
    now += 10
    await queue.open()
    with full_disk(at=WAL_HEADER):  # the start changes nothing, the first turn would take
        await queue.consume(inbox)
        with pytest.raises(QueueUnavailable):
            await queue.publish(Lane.BULK, outgoing("no room"))
        assert inbox.empty()
    assert sorted(map(str, names(await inbox.some(2)))) == ["delayed", "event"]
    await queue.close()


async def test_a_row_of_another_release(file: Path) -> None:
    """A kind unknown to this release is kept, so that it can be deferred, and blocks no message behind it."""
    queue, inbox = SqliteQueue(SqliteOptions(path=file)), Inbox()
    await queue.open()
    write_row(file, kind="notifier.later")
    await queue.publish(Lane.EVENTS, outgoing("behind"))
    await queue.consume(inbox)
    foreign, behind = await inbox.some(2)
    assert (foreign.kind, foreign.message_id, behind.message_id) == ("notifier.later", "foreign", "behind")
    await queue.close()


@pytest.mark.parametrize("written", ["text", 10**10])
async def test_pauses_of_another_type_are_malformed(file: Path, written: object) -> None:
    """They end no thread and take no memory, and the next change is refused."""
    queue = SqliteQueue(SqliteOptions(path=file))
    await queue.open()
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("INSERT OR REPLACE INTO register VALUES ('pauses', ?)", (written,))
    with pytest.raises(QueueError, match="is malformed"):
        await queue.register.read()
    with pytest.raises(QueueError, match="is malformed"):
        await queue.register.change(lambda document: document)
    await queue.close()


async def test_a_dead_thread_ends_the_service(tmp_path: Path, file: Path) -> None:
    """If an internal fault ends the thread, the process exits 1 and logs it: a supervisor can restart it."""
    site = Site(tmp_path, f"sqlite:{file}")
    site.write_clients([])
    async with worker(site) as running:
        write_row(file, kind=None, headers=f'{{"number": {"1" * 5000}}}')  # more digits than Python reads
        assert await running.ended() == 1
        assert f"the thread that serves the queue {file} has ended" in running.log
