"""Detects that watched files have changed and then stayed unchanged for a while, by polling `os.stat`.

inotify would miss network file systems, and the symlink swaps of Kubernetes ConfigMaps, which a poll detects by the new
inode. `FileWatch` decides without I/O, and `watch_files` polls. Callers must take the stamps before they read a file.
Otherwise a change in between is never detected.

A file of a dead network file system hangs whoever examines it. So an event loop examines files by `read_each`, in a
thread, which leaves out those that hang.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from notifier.model.own_thread import run_in_thread
from notifier.model.shared_resources import shared_thread_lock

T = TypeVar("T")

PATIENCE_SECONDS = 1.0  # after which a file hangs
PATIENCE_AFTER_HANG_SECONDS = 0.1  # the same after another file, probably of the same file system
HANGS = "does not answer: its file system may be unreachable"


@dataclass(frozen=True, slots=True)
class Stamp:
    """The identity of a file's state. The ctime also changes by a chmod, which may make a file readable."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


Stamps = Mapping[Path, Stamp | None]
"""By file; None if the file does not exist or cannot be examined."""


def stamps_of(paths: Iterable[Path]) -> dict[Path, Stamp | None]:
    """Return the current stamps of these files. Call it before reading the files."""
    return {path: stamp_of(path) for path in paths}


def stamp_of(path: Path) -> Stamp | None:
    """Return the current stamp of a file. Blocks if its file system is dead."""
    try:
        stat = os.stat(path)  # noqa: PTH116  hundreds of files a second; pathlib doubles the cost
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return Stamp(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def open_file(path: Path) -> None:
    """Open the file, and close it. `stat` may answer from a cache although the file's server is dead."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except (OSError, ValueError):
        return  # its reader names the reason


_hanging: set[Path] = set()
"""Files for which a thread still waits. It belongs to the process, as its threads do."""


class _Examination(Generic[T]):
    """Examines files in one thread, until it is abandoned."""

    def __init__(self, paths: list[Path], examine: Callable[[Path], T]) -> None:
        self._paths = paths
        self._examine = examine
        self._lock = shared_thread_lock()
        self._is_abandoned = False
        self.results: dict[Path, T] = {}

    def run(self) -> None:
        for path in self._paths:
            result = self._examine(path)
            with self._lock:
                if self._is_abandoned:
                    _hanging.discard(path)
                    return
                self.results[path] = result

    def abandon(self) -> list[Path]:
        """Record that the present file hangs, and return the files after it."""
        with self._lock:
            rest = self._paths[len(self.results) :]
            if rest:
                self._is_abandoned = True
                _hanging.add(rest[0])
        return rest[1:]


async def read_each(paths: Iterable[Path], examine: Callable[[Path], T]) -> dict[Path, T]:
    """Return the results of `examine` by file, from a thread. Leave out the files that hang.

    Such a file occupies one thread, and is left out until that returns. `examine` must not raise.
    """
    results: dict[Path, T] = {}
    rest, patience = [path for path in dict.fromkeys(paths) if path not in _hanging], PATIENCE_SECONDS
    while rest:
        examination = _Examination(rest, examine)
        thread, count = run_in_thread(examination.run, "state of files"), -1
        while not thread.done() and len(examination.results) > count:
            count = len(examination.results)
            await asyncio.wait({thread}, timeout=patience)
        if thread.done():
            thread.result()
        rest = examination.abandon()
        results |= examination.results
        patience = PATIENCE_AFTER_HANG_SECONDS
    return results


async def find_hanging(paths: Iterable[Path]) -> list[Path]:
    """Return the files that hang whoever opens them."""
    paths = list(paths)
    answered = await read_each(paths, open_file)
    return [path for path in paths if path not in answered]


class FileWatch:
    """Reports a change once, when all watched files have been unchanged for `settle` seconds.

    The wait is for all files, because files that are written together, such as keys and clients, must be read together.
    """

    def __init__(self, baseline: Stamps, *, settle: float = 1.0) -> None:
        """`baseline`: the stamps of the watched files, taken before the files were read."""
        self._known = dict(baseline)
        self._seen = dict(baseline)
        self._since = float("-inf")
        self._settle = settle

    @property
    def paths(self) -> tuple[Path, ...]:
        """The watched files."""
        return tuple(self._known)

    def observe(self, stamps: Stamps, now: float) -> bool:
        """Return True if the files must be read again now. `now`: seconds of a monotonic clock.

        A file without a stamp hangs, and counts as unchanged.
        """
        stamps = {path: stamps.get(path, self._seen.get(path, known)) for path, known in self._known.items()}
        if stamps != self._seen:
            self._seen = stamps
            self._since = now
        if self._seen == self._known or now - self._since < self._settle:
            return False
        self._known = dict(self._seen)
        return True

    def add(self, paths: Iterable[Path]) -> None:
        """Watch further files. A file that exists is reported once, since it may be new."""
        self._known = {**dict.fromkeys(paths), **self._known}

    def rebase(self, baseline: Stamps) -> None:
        """Watch these files instead. They were read in the state of `baseline`."""
        self._known, self._seen = dict(baseline), dict(baseline)


async def watch_files(
    watch: FileWatch, changed: Callable[[], Awaitable[None]], *, clock: Callable[[], float], interval: float = 1.0
) -> None:
    """Poll every `interval` seconds and await `changed` after each settled change, until cancelled.

    If `changed` cannot use the new files, it is called again only after a further change. An error that it raises ends
    the watch.
    """
    while True:
        await asyncio.sleep(interval)
        if watch.observe(await read_each(watch.paths, stamp_of), clock()):
            await changed()
