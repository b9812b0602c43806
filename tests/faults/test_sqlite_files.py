"""The file of the embedded queue: damage, other programs, a second worker, and the command line."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.embedded_rig import EmbeddedRig, embedded
from tests.system.command import command, environment
from tests.system.worker_process import worker

PAGE = 4096
PATIENCE = 120.0  # seconds, for workers that start again and again


def truncated(file: Path) -> str:
    """Half of it is gone."""
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2 // PAGE * PAGE)
    return f"is damaged (database disk image is malformed); it was left as it is: `sqlite3 {file} .recover`"


def overwritten_in_the_middle(file: Path) -> str:
    """A page of messages is somebody else's."""
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        root = "SELECT rootpage FROM sqlite_master WHERE name = 'messages'"
        [page] = database.execute(root).fetchone()
    with file.open("r+b") as opened:
        opened.seek((page - 1) * PAGE)
        opened.write(b"\xde\xad\xbe\xef" * (PAGE // 4))
    return "it was left as it is: `sqlite3"


async def fill(made: EmbeddedRig) -> None:
    """Make a queue in which events wait, without a worker."""
    async with worker(made.site) as running:
        assert await running.stop() == 0
    code, _, _ = await notifier(made, "publish", stdin=events(made, range(500)))
    assert code == 0


def events(made: EmbeddedRig, numbers: range) -> str:
    """As JSON Lines."""
    return "\n".join(json.dumps(made.publisher.event(number)) for number in numbers)


async def notifier(made: EmbeddedRig, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """The command line at the same configuration: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *command([*arguments, "-c", str(made.site.file)]),
        cwd=made.site.folder, env=environment(),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("harm", [truncated, overwritten_in_the_middle])
@pytest.mark.timeout(600)
async def test_a_damaged_file_is_refused_and_kept(tmp_path: Path, harm: Callable[[Path], str]) -> None:
    """Exit 1, which file it is, what is wrong and the way out; not one of its bytes is changed, by the worker or by
    the command line."""
    async with embedded(tmp_path) as made:
        await fill(made)
        text = harm(made.file)
        before = made.file.read_bytes()
        async with worker(made.site, ready=False) as refused:
            assert await refused.ended() == 1
        assert f"{made.file} " in refused.log
        assert text in refused.log
        assert "Traceback" not in refused.log
        code, _, err = await notifier(made, "publish", stdin=events(made, range(1)))
        assert code == 1
        assert text in err
        assert made.file.read_bytes() == before
        assert made.clients.hits == []


@pytest.mark.timeout(600)
async def test_an_empty_file_with_a_log_is_refused_and_kept(tmp_path: Path) -> None:
    """SQLite would take it as new, and delete the log, with every message in it."""
    async with embedded(tmp_path) as made:
        await fill(made)
        log = made.file.with_name("queue.db-wal")
        with contextlib.closing(sqlite3.connect(made.file)) as database:
            database.execute("UPDATE lanes SET taken_to = 1")
            database.commit()
            kept = log.read_bytes()
        made.file.write_bytes(b"")
        log.write_bytes(kept)
        async with worker(made.site, ready=False) as refused:
            assert await refused.ended() == 1
        assert "is damaged (it is empty, and its write-ahead log is not)" in refused.log
        assert (made.file.read_bytes(), log.read_bytes()) == (b"", kept)


@pytest.mark.timeout(600)
async def test_damage_under_a_running_worker(tmp_path: Path) -> None:
    """The worker ends and says why."""
    async with embedded(tmp_path) as made:
        async with worker(made.site) as running:
            await fill_beside(made)
            await made.until_settled(PATIENCE)
            with contextlib.closing(sqlite3.connect(made.file)) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            text = overwritten_in_the_middle(made.file)
            status, _ = await running.post(made.publisher.event(1000))
            assert status == 503
            assert await running.ended() == 1
        assert f"the queue file {made.file} is damaged" in running.log
        assert text in running.log
        assert "Traceback" not in running.log


async def fill_beside(made: EmbeddedRig) -> None:
    """More than one page of dead letters."""
    await made.publisher.publish(range(0, 350, 7), rate=200)
