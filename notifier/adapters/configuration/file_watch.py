"""Notices that a watched file has changed and has then been left alone for a while, by looking at `os.stat`.

Polling, because inotify misses network file systems and the symlink swaps of Kubernetes ConfigMaps; a look follows
symlinks, so a swap shows as another inode. `Watch` decides and holds no I/O; `watch_files` looks and calls.
What is to be compared with is taken before a file is read, never after: a change in between would be missed for good.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one state of a file from another. The ctime also shows a chmod, which may mend an unreadable file."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


Stamps = Mapping[Path, Stamp | None]
"""None: there is no such file, or it cannot be looked at."""


def stamps_of(paths: Iterable[Path]) -> dict[Path, Stamp | None]:
    """How these files stand now. To be taken before they are read."""
    return {path: stamp_of(path) for path in paths}


def stamp_of(path: Path) -> Stamp | None:
    """How this file stands now; None where it cannot be looked at."""
    try:
        stat = os.stat(path)  # noqa: PTH116  hundreds of files each second: pathlib's detour costs as much again
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return Stamp(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


class Watch:
    """Tells once that something changed, when all files have been unchanged for `settle` seconds.

    All of them, because what is written together (a registry, its keys) must be read together.
    """

    def __init__(self, baseline: Stamps, *, settle: float = 1.0) -> None:
        """`baseline`: the stamps of the files as they were taken before they were read; their keys are watched."""
        self._known = dict(baseline)
        self._seen = dict(baseline)
        self._since = float("-inf")
        self._settle = settle

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files to look at."""
        return tuple(self._known)

    def look(self, stamps: Stamps, now: float) -> bool:
        """Whether it is time to read the files again. `now` in seconds of any steady clock."""
        if stamps != self._seen:
            self._seen = dict(stamps)
            self._since = now
        if self._seen == self._known or now - self._since < self._settle:
            return False
        self._known = dict(self._seen)
        return True

    def add(self, paths: Iterable[Path]) -> None:
        """From now on watch these files too. One that is there is told once, since who knows when it came."""
        self._known = {**dict.fromkeys(paths), **self._known}

    def rebase(self, baseline: Stamps) -> None:
        """From now on watch these files, which have been read as they stood at `baseline`."""
        self._known = dict(baseline)


async def watch_files(
    watch: Watch,
    changed: Callable[[], Awaitable[None]],
    *,
    clock: Callable[[], float],
    interval: float = 1.0,
) -> None:
    """Look every `interval` seconds and await `changed` when it is time, until cancelled.

    `changed` keeps the old and says so when the new cannot be used; it is called again only after a further change.
    An error it raises ends the watch.
    """
    while True:
        await asyncio.sleep(interval)
        stamps = await asyncio.to_thread(stamps_of, watch.paths)  # a hanging file system must not hold the loop
        if watch.look(stamps, clock()):
            await changed()
