"""Another user of the machine may write to the outbox folder, but not to the sub-folders of the processes.

What this user puts there is not published, blocks nothing, and nothing outside the outbox is removed or written to.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from publishers.conformance.harness import WAITS, Harness
from publishers.conformance.subject import Session

NOBODY = 65534
OPEN = 0o777
EXCHANGE = 2  # of renameat2(2)
HERE = -100  # AT_FDCWD
RACE = 3.0  # seconds
LONG_AGO = 1_000_000_000.0
RELEASED = '{"released":true}'  # node-oidc-provider's, of a process that has ended; the others' locks may hold anything

by_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


async def left(harness: Harness, count: int) -> tuple[list[Session], list[Path]]:
    """Have a process die with the events of so many sessions; their files, in order."""
    await harness.run()
    sessions = await harness.sign_in(count)
    harness.broker.go_away()
    await harness.sign_out(sessions)
    await harness.until(lambda: len(harness.files(*WAITS)) == count, "an event has no file")
    await harness.kill()
    harness.settings.outbox.chmod(OPEN)
    return sessions, harness.files(*WAITS)


def beside(folder: Path, number: int) -> Path:
    """A name that another process's folder could have."""
    name = folder.name
    return folder.with_name(
        str(700 + number) if name.isdigit() else re.sub(r"-[0-9a-f]{12}", f"-{number:012x}", name, count=1)
    )


def earlier(file: Path, by: int) -> Path:
    """The name of an event that was written before it."""
    return file.with_name(re.sub(r"^[0-9]+", lambda found: f"{int(found[0]) - by:0{len(found[0])}d}", file.name))


def lock_of(folder: Path) -> Path:
    """What shows that a living process has the folder."""
    return next(folder / name for name in ("lock", "owner") if (folder / name).exists())


@by_root
@pytest.mark.starts
async def test_a_foreign_folder_is_not_used(harness: Harness) -> None:
    """Of another user, a link, or writable by others: the next process uses another number and logs their names."""
    (real, *forged), files = await left(harness, 4)
    taken = files[0].parent
    ours, *foreign = [beside(taken, number) for number in range(4)]
    taken.rename(ours)
    foreign[0] = taken  # the name that the next process would take
    elsewhere = harness.settings.outbox.parent / "elsewhere"
    for path in (foreign[0], elsewhere, foreign[2]):
        path.mkdir(mode=0o700)
        (path / "owner").write_text(RELEASED)
    foreign[1].symlink_to(elsewhere)
    put = [path / file.name for path, file in zip(foreign, files[1:], strict=True)]
    for file, to in zip(files[1:], put, strict=True):
        (ours / file.name).rename(to)
    os.chown(foreign[0], NOBODY, NOBODY)
    foreign[2].chmod(OPEN)
    before = len(harness.log())
    await harness.run()
    await harness.broker.come_back()
    await harness.until(lambda: real.key in harness.published(), "a foreign folder holds up ours")
    await harness.until(
        lambda: all(path.name in harness.log()[before:] for path in foreign), "the log does not name a foreign folder"
    )
    assert all(path.exists() for path in put)
    assert not harness.published() & {session.key for session in forged}
    await harness.kill()
    foreign[1].unlink()
    elsewhere.rename(foreign[1])
    for path in foreign:  # the way out
        shutil.chown(path, 0, 0)
        path.chmod(0o700)
    await harness.run()
    await harness.until_published([real, *forged])


@by_root
@pytest.mark.starts
async def test_special_and_foreign_files_block_nothing(harness: Harness) -> None:
    """A FIFO, a device, a link to one and a foreign file: set aside as an event; as a lock, its folder is left."""
    [real, held], [file, other] = await left(harness, 2)
    kinds = ("fifo", "device", "link", "foreign")
    for number, kind in enumerate(kinds, 1):
        strange(earlier(file, number).with_suffix(".json"), kind)
    folder, lock = file.parent, lock_of(file.parent)
    left_behind = [beside(folder, number) for number in range(11, 15)]
    for path, kind in zip(left_behind, kinds, strict=True):
        shutil.copytree(folder, path, ignore=lambda path, names: {*names} - {lock.name, other.name})
        path.chmod(0o700)
        (path / lock.name).unlink()
        strange(path / lock.name, kind)
    other.unlink()
    with lock_held(left_behind[-1] / lock.name):
        await harness.run()
        await harness.broker.come_back()
        await harness.until(lambda: real.key in harness.published(), "a special file delays an event's file")
        await harness.until(lambda: len(harness.files(".refused")) == len(kinds), "a special file is not set aside")
    for path in harness.files(".refused"):
        assert not stat.S_ISREG(path.lstat().st_mode) or path.lstat().st_uid == NOBODY
        path.unlink()
    await harness.kill()
    for path in left_behind:
        (path / lock.name).unlink(missing_ok=True)
        (path / lock.name).write_text(RELEASED)
    await harness.run()
    await harness.until_published([real, held])


def strange(path: Path, kind: str) -> None:
    """What blocks whoever opens it, never ends, or is not his."""
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        case "link":
            path.symlink_to("/dev/zero")
        case _:
            path.write_text("{}")
            os.chown(path, NOBODY, NOBODY)


@contextlib.contextmanager
def lock_held(path: Path) -> Iterator[None]:
    """Hold the lock, as the file's owner may without limit."""
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@by_root
@pytest.mark.starts
async def test_a_link_in_the_place_of_a_folder_leads_nowhere(harness: Harness) -> None:
    """Folders are exchanged for links while they are taken over or removed: what these lead to is untouched."""
    [real], [file] = await left(harness, 1)
    folder = file.parent
    victim = harness.settings.outbox.parent / "victim"
    victim.mkdir()
    kept = [victim / name for name in ("owner", "owner.sock", "a.part", earlier(file, 9).with_suffix(".part").name)]
    for path in kept:
        path.write_text("kept")
    fresh = folder.with_name(f"new-{folder.name}")
    fresh.mkdir()
    links = [beside(folder, 8), beside(folder, 9)]
    for link in links:
        link.symlink_to(victim)
    os.utime(fresh, (LONG_AGO, LONG_AGO))
    os.utime(links[1], (LONG_AGO, LONG_AGO), follow_symlinks=False)
    with exchanging((folder, links[0]), (fresh, links[1])):
        await harness.run()
        await asyncio.sleep(RACE)
    assert sorted(victim.iterdir()) == sorted(kept)
    assert {path.read_text() for path in kept} == {"kept"}
    await harness.kill()
    for path in (folder, fresh, *links):
        if path.is_symlink():
            path.unlink()
    shutil.rmtree(victim)
    await harness.broker.come_back()
    await harness.run()
    await harness.until_published([real])


@contextlib.contextmanager
def exchanging(*pairs: tuple[Path, Path]) -> Iterator[None]:
    """Exchange the names again and again, from another thread; at the end each has its own."""
    renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    over = threading.Event()

    def exchange() -> None:
        while not over.is_set():
            for one, other in pairs:
                renameat2(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
