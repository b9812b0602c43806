"""Detects that watched files have changed and then stayed unchanged for a while, by polling `os.stat`.

inotify would miss network file systems, and the symlink swaps of Kubernetes ConfigMaps, which a poll detects by the new
inode. `FileWatch` decides without I/O, and `watch_files` polls. Callers must take the stamps before they read a file.
Otherwise a change in between is never detected.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


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
    return {path: _stamp_of(path) for path in paths}


def _stamp_of(path: Path) -> Stamp | None:
    try:
        stat = os.stat(path)  # noqa: PTH116  hundreds of files a second; pathlib doubles the cost
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return Stamp(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


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
        """Return True if the files must be read again now. `now`: seconds of a monotonic clock."""
        if stamps != self._seen:
            self._seen = dict(stamps)
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
        self._known = dict(baseline)


async def watch_files(
    watch: FileWatch, changed: Callable[[], Awaitable[None]], *, clock: Callable[[], float], interval: float = 1.0
) -> None:
    """Poll every `interval` seconds and await `changed` after each settled change, until cancelled.

    If `changed` cannot use the new files, it is called again only after a further change. An error that it raises ends
    the watch.
    """
    while True:
        await asyncio.sleep(interval)
        stamps = await asyncio.to_thread(stamps_of, watch.paths)  # an unresponsive file system must not block the loop
        if watch.observe(stamps, clock()):
            await changed()
