"""What the embedded queue keeps beyond the contract: kills, second workers, foreign files, a full disk, a slow one."""

import asyncio
import contextlib
import os
import re
import resource
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest

from notifier.model.documents.dead_letter import load_dead_letter
from notifier.model.errors import QueueError, QueueUnavailable, TopologyMismatch
from notifier.model.message import DEAD, Kind, Lane, MessageDraft
from notifier.model.outcome import DeadReason
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from notifier.queues.sqlite.file import open_file, recognise
from notifier.queues.sqlite.lock import WorkerLock, has_worker
from tests.contract.queues import PATIENCE, Inbox, Place, dead, delay, eventually, names, outgoing, ready

Child = asyncio.subprocess.Process
PAGE = 4096  # bytes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the queue is."""
    return tmp_path / "queue.db"


@pytest.fixture
async def place(file: Path) -> AsyncIterator[Place]:
    """The queue at `file`."""

    def make(prefetch: Mapping[Lane, int]) -> SqliteQueue:
        return SqliteQueue(SqliteOptions(path=file, prefetch=prefetch))

    made = Place(make)
    yield made
    await made.leave()


@contextlib.asynccontextmanager
async def child(*arguments: object) -> AsyncIterator[Child]:
    """Another process at the queue; killed (SIGKILL) at the end where it has not ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.queues.sqlite.sqlite_child",
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def facts(process: Child) -> AsyncIterator[tuple[str, str]]:
    """Read the child's output, word and name."""
    assert process.stdout is not None
    while line := await asyncio.wait_for(process.stdout.readline(), PATIENCE):
        word, _, name = line.decode().strip().partition(" ")
        yield word, name


@contextlib.contextmanager
def full_disk(*, at: int) -> Iterator[None]:
    """No file of this process can grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_kill_loses_nothing_confirmed(place: Place, file: Path) -> None:
    """After SIGKILL in the midst of work, every confirmed publish that was not acked is there."""
    confirmed: set[str | None] = set()
    acking: set[str | None] = set()
    async with child("churn", file) as process:
        async for word, name in facts(process):
            (confirmed if word == "confirmed" else acking).add(name)
            if len(confirmed) == 400:
                process.send_signal(signal.SIGKILL)  # and read on: the last output counts
    assert len(acking) > 100
    queue = await place.open()
    count, inbox = (await queue.depths())[Lane.EVENTS].ready, Inbox(on_take=queue.ack)
    await queue.consume(inbox)  # the dead process keeps no lock
    assert confirmed - acking <= set(names(await inbox.some(count)))
    await ready(queue, Lane.EVENTS, 0)


async def test_a_kill_counts_as_a_delivery(place: Place, file: Path) -> None:
    """Messages that a killed worker had taken return first, marked as redelivered; the others return as new."""
    async with child("hold", file) as process:
        reported = facts(process)
        first = [await anext(reported) for _ in range(3)]
    assert {word for word, _ in first} == {"taken", "published"}
    _, inbox = await place.consume()
    taken = await inbox.some(4)
    assert [(message.message_id, message.delivery_count) for message in taken] == [
        ("0", 1),
        ("1", 1),
        ("2", 0),
        ("3", 0),
    ]


BODIES = (b"first", b"second")


async def test_a_dead_letter_replaces_its_copy(place: Place, file: Path) -> None:
    """A delivery whose worker was killed before its ack is given up again. Other messages may have the same id."""
    queue = await place.open()
    letters = [MessageDraft(kind=Kind.DEAD_LETTER, message_id=name, body=body) for body in BODIES for name in "abb"]
    for letter in letters:
        await queue.publish(DEAD, letter)
        await queue.publish(Lane.RETRIES, outgoing("a"))
    await asyncio.gather(*(queue.publish(DEAD, letter) for letter in letters))
    await queue.close()
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        rows = database.execute("SELECT queue, message_id, body FROM messages ORDER BY queue, message_id").fetchall()
        assert rows[:2] == [("dead", "a", b"second"), ("dead", "b", b"second")]
        assert [row[:2] for row in rows[2:]] == [("retries", "a")] * len(letters)
        database.execute("DROP INDEX messages_dead")  # as in a file of an earlier build
    queue = await place.open()
    await queue.publish(DEAD, letters[0])
    assert (await queue.depths())[DEAD].ready == 2


async def test_message_returned_a_hundred_times_dead_letters(place: Place, file: Path) -> None:
    """As on RabbitMQ: unchanged, with the reason `delivery_limit`; messages never taken meanwhile stay."""
    queue = await place.open()
    await queue.publish(Lane.EVENTS, outgoing("killer", body=b"whatever it was"))
    for number in range(3):
        await queue.publish(Lane.RETRIES, outgoing(f"waits-{number}"))
    await queue.close()
    with contextlib.closing(sqlite3.connect(file)) as database, database:  # by now it was given back so often
        database.execute("UPDATE messages SET delivery_count = 97 WHERE message_id = 'killer'")
    for life in range(97, 101):
        queue, inbox = await place.consume({Lane.RETRIES: 1})
        taken = {message.lane: message for message in await inbox.some(2)}
        assert taken[Lane.EVENTS].delivery_count == life
        queue.ack(taken[Lane.RETRIES])
        await queue.publish(Lane.RETRIES, outgoing(f"waits-{life + 3}"))
        await queue.close()  # and so gives back
    queue, inbox = await place.consume()
    assert {message.lane for message in await inbox.some(3)} == {Lane.RETRIES}
    assert inbox.empty()
    [given_up] = await dead(queue)
    assert (given_up.message_id, given_up.body, given_up.kind) == ("killer", b"whatever it was", Kind.DELIVERY)
    dead_letter = load_dead_letter(given_up)
    assert dead_letter.reason is DeadReason.DELIVERY_LIMIT
    assert abs(dead_letter.dead_since - time.time()) < PATIENCE


async def test_a_second_worker_is_refused(place: Place, file: Path) -> None:
    """Another consuming process gets an error with the file and the pid; publishing beside the worker is permitted."""
    async with child("hold", file) as process:
        async for word, _ in facts(process):
            if word == "published":
                break
        second = await place.open()
        with pytest.raises(QueueUnavailable, match=rf"{file}.*pid {process.pid}\b.*{file}\.lock"):
            await second.consume(Inbox())
        assert not second.status().consuming
        await second.publish(Lane.BULK, outgoing("beside"))
        depths = await second.depths()
        assert (depths["events"].ready, depths["events"].consumers, depths["bulk"].ready) == (2, 1, 1)
    await second.consume(Inbox())


@pytest.mark.parametrize("through", ["file", "folder"])
@pytest.mark.parametrize("first", ["link", "name"])
async def test_a_symbolic_link_is_the_same_queue(place: Place, file: Path, through: str, first: str) -> None:
    """Whichever worker comes first. Both would take each event."""
    link = file.parent / "link" / file.name
    if through == "file":
        link.parent.mkdir()
        link.symlink_to(file)
    else:
        link.parent.symlink_to(file.parent)
    names_of_it = (link, file) if first == "link" else (file, link)
    queues = [SqliteQueue(SqliteOptions(path=path)) for path in names_of_it]
    for queue in queues:
        await queue.open()
    await queues[0].consume(Inbox())
    with pytest.raises(QueueUnavailable, match="in use by another worker"):
        await queues[1].consume(Inbox())
    for queue in queues:
        await queue.close()
    assert {path.stat().st_mode & 0o777 for path in file.parent.glob("queue.db*")} == {0o600}


def move(file: Path, name: str) -> None:
    """Within its folder."""
    file.rename(file.with_name(name))


@pytest.mark.parametrize("replaced", [True, False])
async def test_a_file_that_was_moved_takes_nothing(place: Place, file: Path, replaced: bool) -> None:
    """Neither by the worker nor by a publisher that comes later: nobody would read it. Moved back, it is taken."""
    async with child("hold", file) as process:
        async for word, _ in facts(process):
            if word == "published":
                break
        beside = await place.open()
        if replaced:
            other = SqliteQueue(SqliteOptions(path=file.with_name("other.db")))
            await other.open()
            await other.close()
        move(file, "away.db")
        if replaced:
            move(file.with_name("other.db"), file.name)
        later = SqliteQueue(SqliteOptions(path=file))
        await later.open()
        for queue in (beside, later):
            with pytest.raises(QueueUnavailable, match=f"{file} is {'another file now' if replaced else 'gone'}"):
                await queue.publish(Lane.EVENTS, outgoing("nobody reads it"))
            assert not queue.status().connected
        assert ("queue.db" in {path.name for path in file.parent.glob("*.db")}) is replaced
        assert "move that one back" in str((await later.examine()).fault)
        move(file.with_name("away.db"), file.name)
        for queue in (beside, later):
            await queue.publish(Lane.EVENTS, outgoing("back"))
            assert queue.status().connected
        await later.close()


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize("replaced", [True, False])
async def test_a_kill_after_the_log_was_removed_loses_nothing(
    place: Place, file: Path, suffix: str, *, replaced: bool
) -> None:
    """The worker copies it into the file, and takes nothing more until a restart. Nor does a later publisher."""
    async with child("hold", file) as process:
        async for word, _ in facts(process):
            if word == "published":
                break
        removed = file.with_name(f"{file.name}{suffix}")
        removed.unlink()
        if replaced:
            removed.touch()
        later = SqliteQueue(SqliteOptions(path=file))
        await later.open()
        with pytest.raises(QueueUnavailable, match=f"{removed} is {'another file now' if replaced else 'gone'}"):
            await later.publish(Lane.EVENTS, outgoing("it would be lost"))
        await later.close()
        await eventually(lambda: count_without_log(file) == 4)
    for rest in file.parent.glob("queue.db-*"):
        rest.unlink()
    _, inbox = await place.consume()
    assert {*names(await inbox.some(4))} == {"0", "1", "2", "3"}


@pytest.mark.parametrize("suffix", ["", "-wal"])
async def test_a_truncated_file_ends_the_worker(place: Place, file: Path, suffix: str) -> None:
    """A confirm after that would be for a message behind a hole, which a restart would not find."""
    queue, _ = await place.consume()
    await queue.publish(Lane.EVENTS, outgoing("in the file"))
    if suffix:
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    await queue.publish(Lane.EVENTS, outgoing("in the log"))
    with file.with_name(f"{file.name}{suffix}").open("r+b") as truncated:
        truncated.truncate()
    with pytest.raises(QueueUnavailable, match="another program truncated"):
        await queue.publish(Lane.EVENTS, outgoing("behind a hole"))
    with pytest.raises(QueueError, match="another program truncated"):
        await queue.wait_until_broken()
    await queue.close()
    if suffix:
        _, inbox = await place.consume()
        assert names(await inbox.some(1)) == ["in the file"]


@pytest.mark.parametrize("statement", ["PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM"])
async def test_sqlite_itself_may_shorten_the_files(place: Place, file: Path, statement: str) -> None:
    """An operator's `sqlite3` may run beside the worker."""
    queue, inbox = await place.consume()
    await asyncio.gather(*(queue.publish(DEAD, outgoing(str(n), body=bytes(9000))) for n in range(100)))
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("DELETE FROM messages")
        other.execute(statement)
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    for name in "ab":
        await queue.publish(Lane.EVENTS, outgoing(name))
    assert names(await inbox.some(2)) == ["a", "b"]


def count_without_log(file: Path) -> int:
    """Return the number of messages that the file has without its log; 0 while it is written."""
    with contextlib.closing(sqlite3.connect(f"file:{file}?immutable=1", uri=True)) as database:
        try:
            return int(database.execute("SELECT count(*) FROM messages").fetchone()[0])
        except sqlite3.DatabaseError:
            return 0


async def test_an_examination_leaves_the_locks_of_the_worker(place: Place, file: Path) -> None:
    """The kernel drops a process's locks on a file as soon as the process closes it once, wherever that is."""

    def locks() -> list[str]:
        ours = f":{file.stat().st_ino} "
        return sorted(
            line.split(maxsplit=1)[1] for line in Path("/proc/locks").read_text().splitlines() if ours in line
        )

    queue, _ = await place.consume()
    await queue.publish(Lane.EVENTS, outgoing("a"))
    held = locks()
    assert held
    await queue.examine()
    again = await place.open()
    await again.depths()
    assert set(held) <= set(locks())


def thesis(path: Path) -> str:
    """A file of no database."""
    path.write_bytes(b"the only copy of somebody's thesis\n" * 1000)
    return "not a SQLite file"


def other_program(path: Path) -> str:
    """A database of somebody else."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE theirs (id)")
    return "another program"


def filled(path: Path) -> Path:
    """A queue with many events."""

    async def fill() -> None:
        queue = SqliteQueue(SqliteOptions(path=path))
        await queue.open()
        await asyncio.gather(*(queue.publish(Lane.EVENTS, outgoing(str(n), body=bytes(200))) for n in range(500)))
        await queue.close()

    asyncio.run(fill())
    return path


def truncated(path: Path) -> str:
    """Half of a queue is gone."""
    with filled(path).open("r+b") as opened:
        opened.truncate(path.stat().st_size // 2 // PAGE * PAGE)
    return f"is damaged (database disk image is malformed); it was left as it is: `sqlite3 {path} .recover`"


def overwritten(path: Path) -> str:
    """A page of messages is somebody else's."""
    return overwrite(filled(path))


def overwrite(path: Path) -> str:
    """Overwrite a page of messages. Return a part of the expected error."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        root = "SELECT rootpage FROM sqlite_master WHERE name = 'messages'"
        [page] = database.execute(root).fetchone()
    with path.open("r+b") as opened:
        opened.seek((page - 1) * PAGE)
        opened.write(b"\xde\xad\xbe\xef" * (PAGE // 4))
    return "it was left as it is: `sqlite3"


def emptied(path: Path) -> str:
    """Empty the file but not its write-ahead log, which SQLite would delete. Return a part of the expected error."""
    log = path.with_name("queue.db-wal")
    with contextlib.closing(sqlite3.connect(filled(path))) as database:
        database.execute("UPDATE lanes SET taken_to = 1")
        database.commit()
        kept = log.read_bytes()
    path.write_bytes(b"")
    log.write_bytes(kept)
    return "is damaged (it is empty, and its write-ahead log is not)"


@pytest.mark.parametrize("write", [thesis, other_program, truncated, overwritten, emptied])
def test_file_of_another_kind_is_refused(file: Path, write: Callable[[Path], str]) -> None:
    """A file of something else, or a damaged one, is refused by name and with the reason, and stays as it is."""
    text = write(file)
    before = {path.name: path.read_bytes() for path in file.parent.iterdir()}

    async def try_it() -> None:
        queue = SqliteQueue(SqliteOptions(path=file))
        await queue.open()
        with pytest.raises(TopologyMismatch, match=rf"{file}.*{re.escape(text)}"):
            await queue.wait_until_ready()
        with pytest.raises(QueueUnavailable, match=re.escape(text)):
            await queue.publish(Lane.EVENTS, outgoing("a"))
        assert not queue.status().connected
        assert text in str(queue.status().problem)
        await queue.close()

    asyncio.run(try_it())
    after = {path.name: path.read_bytes() for path in file.parent.iterdir()}
    assert before.items() <= after.items()
    assert len(after) == len(before) or text.endswith(
        ("recover`", "`sqlite3")
    )  # SQLite itself looks by its shared memory


async def test_a_file_of_a_newer_notifier(place: Place, file: Path) -> None:
    """Another schema version is refused, and both versions are named."""
    await (await place.open()).close()
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(TopologyMismatch, match="schema version 99, this notifier knows 1"):
        await place.open()


async def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    """A file that cannot be made is named with the cause; once it can be made, the next publish succeeds."""
    folder = tmp_path / "not yet"
    queue = SqliteQueue(SqliteOptions(path=folder / "queue.db"))
    await queue.open()
    with pytest.raises(QueueUnavailable, match=r"not yet/queue\.db for writing: No such file or directory"):
        await queue.wait_until_ready()
    folder.mkdir()
    await queue.publish(DEAD, outgoing("a"))
    assert queue.status().problem is None
    await queue.close()


async def test_only_its_owner_may_read(place: Place, file: Path) -> None:
    """The files hold `sub` and `sid`, so their mode is 0600, whatever the umask."""
    queue, _ = await place.consume()
    await queue.publish(Lane.EVENTS, outgoing("a"))
    modes = {path.name: path.stat().st_mode & 0o777 for path in file.parent.iterdir()}
    assert modes == dict.fromkeys(["queue.db", "queue.db-wal", "queue.db-shm", "queue.db.lock"], 0o600)


async def test_the_loop_goes_on_while_the_file_is_locked(place: Place, file: Path) -> None:
    """All SQLite work is on the writer's thread: a publish that waits for another's lock holds nobody else up."""
    queue = await place.open()
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        publishing = asyncio.ensure_future(queue.publish(Lane.EVENTS, outgoing("a")))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not publishing.done()
        other.execute("ROLLBACK")
    await asyncio.wait_for(publishing, PATIENCE)


async def test_message_due_while_the_lane_is_full_follows(file: Path) -> None:
    """It leaves its delay at once and waits for room, so that the thread need not look for it again and again."""
    now = 1_000_000.0
    queue, inbox = SqliteQueue(SqliteOptions(path=file, prefetch={Lane.RETRIES: 1}, delay_clock=lambda: now)), Inbox()
    await queue.open()
    await queue.consume(inbox)
    await queue.publish(Lane.RETRIES, outgoing("first"))
    first = await inbox.next()
    await delay(queue, 1, outgoing("second"))
    now += 1
    await ready(queue, Lane.RETRIES, 1)
    queue.ack(first)
    assert names([await inbox.next()]) == ["second"]
    await queue.close()


async def test_unencodable_text_fails_its_publish_only(place: Place) -> None:
    """Half of a surrogate pair cannot be stored: its publisher gets an error, and other calls succeed."""
    queue, inbox = await place.consume()
    with pytest.raises(ValueError, match="surrogates not allowed"):
        await queue.send_event(Lane.EVENTS, b"{}", message_id="\ud800")
    await queue.publish(Lane.EVENTS, outgoing("b"))
    assert names([await inbox.next()]) == ["b"]


async def test_a_cancelled_publish(place: Place) -> None:
    """A publisher that gives up waiting leaves the others alone; its message may have become durable."""
    queue, inbox = await place.consume()
    publishing = asyncio.ensure_future(queue.publish(Lane.EVENTS, outgoing("a")))
    await asyncio.sleep(0)
    publishing.cancel()
    await queue.publish(Lane.EVENTS, outgoing("b"))
    assert names(await inbox.some(2)) == ["a", "b"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_dead_thread_fails_all_pending_calls(file: Path) -> None:
    """If an internal fault ends the thread, pending calls fail, status shows it, and the lock is free."""
    broken = threading.Event()

    def clock() -> float:
        if broken.is_set() and threading.current_thread() is not threading.main_thread():
            raise ArithmeticError("no clock")
        return 0.0

    queue = SqliteQueue(SqliteOptions(path=file, delay_clock=clock))
    await queue.open()
    await queue.consume(Inbox())
    broken.set()
    with pytest.raises(QueueUnavailable, match="closed"):
        await asyncio.wait_for(queue.publish(Lane.EVENTS, outgoing("a")), PATIENCE)
    assert not queue.status().connected
    broken.clear()
    await queue.open()
    await queue.consume(Inbox())
    await queue.close()


async def test_publisher_of_the_file_is_trusted(place: Place) -> None:
    """Whoever may write to it is the operator. What a worker wrote for somebody else is not theirs."""
    queue, inbox = await place.consume()
    await queue.send_event(Lane.EVENTS, b"{}", message_id="theirs")
    await queue.publish(Lane.EVENTS, outgoing("ours"))
    found = {message.message_id: message.vouched for message in await inbox.some(2)}
    assert found == {"theirs": True, "ours": False}


@pytest.mark.parametrize("kind", ["link", "FIFO"])
def test_a_lock_file_that_is_no_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    """Another user of the folder may have put it there: nothing is written through a link, and no FIFO blocks."""
    file, victim = tmp_path / "queue.db", tmp_path / "victim"
    victim.write_text("precious")
    lock_file = tmp_path / "queue.db.lock"
    if kind == "link":
        lock_file.symlink_to(victim)
    else:
        os.mkfifo(lock_file)
    assert not has_worker(file)
    with pytest.raises(QueueUnavailable, match=r"cannot open the lock file .*queue\.db\.lock"):
        WorkerLock(file, ())
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["queue.db", "queue.db-wal", "queue.db.lock"])
def test_a_link_in_a_shared_folder_is_refused(tmp_path: Path, name: str) -> None:
    """Another user may have put it there. In a folder of this user a link is another name of the file."""
    file, target = tmp_path / "shared" / "queue.db", tmp_path / "target"
    target.mkdir()
    (target / "theirs").touch(0o600)
    file.parent.mkdir()
    file.with_name(name).symlink_to(target / "theirs")
    file.parent.chmod(0o1777)
    with pytest.raises(
        TopologyMismatch, match=rf"is not used: .*/{name} is a link, and others may write to its folder"
    ):
        open_file(file)
    with pytest.raises(TopologyMismatch, match="is a link"):
        recognise(file)
    assert not (target / "theirs").stat().st_size
    if name == "queue.db":
        file.parent.chmod(0o755)
        open_file(file).close()


def test_a_link_into_a_shared_folder_is_examined_there(tmp_path: Path) -> None:
    """The file that it names, and those beside it."""
    link, shared = tmp_path / "queue.db", tmp_path / "shared"
    shared.mkdir()
    link.symlink_to(shared / "queue.db")
    (shared / "queue.db-wal").symlink_to(tmp_path)
    shared.chmod(0o777)
    with pytest.raises(TopologyMismatch, match=r"shared/queue\.db-wal is a link"):
        open_file(link)
