"""A numbered folder below the outbox's, which one process at a time owns by a lock on a file in it.

The kernel gives the lock back however the process ends. The lock file is never deleted: two could then hold it.
A forked child lets go of its parent's lock at once, which would else outlive the parent.
"""

import contextlib
import errno
import fcntl
import os
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Self

from notifier.publisher import outbox_files
from notifier.publisher.outbox_files import PART, PENDING, READY

MOST = 1000
_HELD = (errno.EACCES, errno.EAGAIN)


class OutboxFolder:
    """One that this process owns. All of it blocks: it runs on threads."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=partial(_let_go, reference))

    @classmethod
    def claim(cls, root: Path) -> Self:
        """The first folder that no living process owns. Raises OSError."""
        _make(root)
        for number in range(MOST):
            path = root / str(number)
            _make(path)
            lock = _lock(path)
            if lock is None:
                continue
            try:
                for part in path.glob(f"*{PART}"):
                    part.unlink(missing_ok=True)
                outbox_files.sync(root)  # the folder may be new
            except BaseException:
                os.close(lock)
                raise
            return cls(path, lock)
        raise OSError(f"{MOST} processes own a folder below {root}")

    def take_over(self, failed: Callable[[Path, OSError], None]) -> int:
        """Move what dead processes left into this folder. `failed` is told of a folder that does not let us."""
        taken = 0
        for other in sorted(self.path.parent.iterdir()):
            if other == self.path or not other.name.isdigit():
                continue
            try:
                for left in self._left_in(other):
                    left.rename(self.path / left.name)
                    taken += 1
            except OSError as error:
                failed(other, error)
        if taken:
            outbox_files.sync(self.path)
        return taken

    def _left_in(self, other: Path) -> Iterator[Path]:
        """Its files, while it is held. Nothing if its process lives."""
        if not any(path.suffix in (PART, PENDING, READY) for path in other.iterdir()):
            return
        lock = _lock(other)
        if lock is None:
            return
        try:
            for part in other.glob(f"*{PART}"):
                part.unlink(missing_ok=True)
            yield from (left.path for left in outbox_files.left_in(other))
        finally:
            os.close(lock)

    def close(self) -> None:
        """Let another process have it."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _let_go(reference: "weakref.ref[OutboxFolder]") -> None:
    folder = reference()
    if folder is not None:
        with contextlib.suppress(OSError):
            folder.close()


def _make(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # events name users


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder, None if a living process does. Raises OSError."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if error.errno in _HELD:
            return None
        raise
    except BaseException:
        os.close(lock)
        raise
    return lock
