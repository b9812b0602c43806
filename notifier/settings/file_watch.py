"""Notices that watched files have changed and have then stayed the same for a while. It polls `os.stat`.

inotify would miss network file systems and the symlink swaps of Kubernetes ConfigMaps. A poll follows symlinks, so a
swap shows as another inode. `Watch` decides and does no I/O; `watch_files` polls and calls.

Take the stamps to compare with before you read a file. Otherwise a change in between is missed for good.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells two states of a file apart. The ctime also shows a chmod, which may make a file readable."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


Stamps = Mapping[Path, Stamp | None]
"""By file; None if there is no such file, or it cannot be looked at."""


def stamps_of(paths: Iterable[Path]) -> dict[Path, Stamp | None]:
    """Return the stamps of these files now. Take them before you read the files."""
    return {path: _stamp_of(path) for path in paths}


def _stamp_of(path: Path) -> Stamp | None:
    try:
        stat = os.stat(path)  # noqa: PTH116  hundreds of files a second; pathlib doubles the cost
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return Stamp(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


class Watch:
    """Reports a change once, when all files have been unchanged for `settle` seconds.

    It waits for all files, since files that are written together (a registry, its keys) must be read together.
    """

    def __init__(self, baseline: Stamps, *, settle: float = 1.0) -> None:
        """`baseline`: the stamps of the watched files, taken before the files were read."""
        self._known = dict(baseline)
        self._seen = dict(baseline)
        self._since = float("-inf")
        self._settle = settle

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files to look at."""
        return tuple(self._known)

    def look(self, stamps: Stamps, now: float) -> bool:
        """True if it is time to read the files again. `now` in seconds of any steady clock."""
        if stamps != self._seen:
            self._seen = dict(stamps)
            self._since = now
        if self._seen == self._known or now - self._since < self._settle:
            return False
        self._known = dict(self._seen)
        return True

    def add(self, paths: Iterable[Path]) -> None:
        """Watch these files too. A file that exists is reported once, since it may be new."""
        self._known = {**dict.fromkeys(paths), **self._known}

    def rebase(self, baseline: Stamps) -> None:
        """Watch these files instead. They were read in the state of `baseline`."""
        self._known = dict(baseline)


async def watch_files(
    watch: Watch, changed: Callable[[], Awaitable[None]], *, clock: Callable[[], float], interval: float = 1.0
) -> None:
    """Poll every `interval` seconds and await `changed` when it is time, until cancelled.

    If `changed` cannot use the new files, it is called again only after a further change. An error that it raises ends
    the watch.
    """
    while True:
        await asyncio.sleep(interval)
        stamps = await asyncio.to_thread(stamps_of, watch.paths)  # a hanging file system must not hold the loop
        if watch.look(stamps, clock()):
            await changed()
