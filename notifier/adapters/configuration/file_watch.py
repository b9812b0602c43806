"""Notices that a watched file has changed, and has then stayed the same for a while. It polls `os.stat`.

inotify misses network file systems and the symlink swaps of Kubernetes ConfigMaps. `os.stat` follows symlinks, so a
swap shows as another inode. `Watch` decides without I/O; `watch_files` polls and calls. The stamp to compare with is
taken before a file is read: with one taken after, a change in between would be missed for ever.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stamp:
    """Distinguishes one state of a file from another. ctime also shows a chmod, which may make a file readable."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


Stamps = Mapping[Path, Stamp | None]
"""None: there is no such file, or it cannot be looked at."""


def stamps_of(paths: Iterable[Path]) -> dict[Path, Stamp | None]:
    """The stamps of these files. Take them before you read the files."""
    return {path: stamp_of(path) for path in paths}


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of this file, None if it cannot be read."""
    try:
        stat = os.stat(path)  # noqa: PTH116  hundreds of files each second: pathlib's detour costs as much again
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return Stamp(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


class Watch:
    """Reports a change once, when all files have been unchanged for `settle` seconds.

    It waits for all, because files that are written together (a registry, its keys) must be read together.
    """

    def __init__(self, baseline: Stamps, *, settle: float = 1.0) -> None:
        """`baseline` holds the files to watch, with their stamps from before they were read."""
        self._known = dict(baseline)
        self._seen = dict(baseline)
        self._since = float("-inf")
        self._settle = settle

    @property
    def paths(self) -> tuple[Path, ...]:
        """The watched files."""
        return tuple(self._known)

    def look(self, stamps: Stamps, now: float) -> bool:
        """True if it is time to read the files again. `now` is in seconds of any steady clock."""
        if stamps != self._seen:
            self._seen = dict(stamps)
            self._since = now
        if self._seen == self._known or now - self._since < self._settle:
            return False
        self._known = dict(self._seen)
        return True

    def add(self, paths: Iterable[Path]) -> None:
        """Watch these files too. One that exists counts as changed once, since it may be new."""
        self._known = {**dict.fromkeys(paths), **self._known}

    def rebase(self, baseline: Stamps) -> None:
        """Watch these files from now on. They were read after `baseline` was taken."""
        self._known = dict(baseline)


async def watch_files(
    watch: Watch,
    changed: Callable[[], Awaitable[None]],
    *,
    clock: Callable[[], float],
    interval: float = 1.0,
) -> None:
    """Poll every `interval` seconds and await `changed` when it is time, until cancelled.

    `changed` keeps the old configuration if the new one is wrong. It is called again only after a further change. If it
    raises, the watch ends.
    """
    while True:
        await asyncio.sleep(interval)
        stamps = await asyncio.to_thread(stamps_of, watch.paths)  # a hanging file system must not hold the loop
        if watch.look(stamps, clock()):
            await changed()
