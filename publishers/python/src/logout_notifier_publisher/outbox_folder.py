"""A numbered folder below the outbox's, which one process at a time owns by a lock on a file in it.

The kernel gives the lock back however the process ends. The lock file is never deleted: two could then hold it.
A forked child lets go of its parent's lock at once, which would else outlive the parent.

Any user who can write to such a folder can publish events. A folder that is a link, belongs to another user, or is open
to groups other than this process's is therefore not used, and no event is taken from it. The outbox's own folder may be
open: a Kubernetes volume is.
"""

import contextlib
import errno
import fcntl
import os
import stat
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Self

from logout_notifier_publisher import outbox_files
from logout_notifier_publisher.outbox_files import PART, PENDING, READY, NotOurOwnError

MOST = 1000
LOCK = "lock"
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
        """The first folder that is ours alone, and that no living process owns. Raises OSError."""
        _make(root)
        refused = None
        for number in range(MOST):
            path = root / str(number)
            _make(path)
            try:
                with _opened(path) as folder, _locked(folder) as lock:
                    if lock is not None:
                        _remove_unfinished(folder)
                        outbox_files.sync(root)  # the folder may be new
                        return cls(path, os.dup(lock))
            except (NotOurOwnError, PermissionError) as error:
                refused = error
        raise refused or OSError(f"{MOST} processes own a folder below {root}")

    def is_there(self) -> bool:
        """False once somebody has deleted it, or put one of his in its place. Raises OSError."""
        try:
            now = (self.path / LOCK).lstat()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False
        return self._lock is not None and os.path.samestat(now, os.fstat(self._lock))

    def take_over(self, failed: Callable[[Path, OSError], None]) -> int:
        """Move the files of dead processes into this folder. Calls `failed` for each folder that cannot be moved."""
        taken = 0
        for other in sorted(self.path.parent.iterdir()):
            if other == self.path or not other.name.isdigit():
                continue
            try:
                for folder, name in self._left_in(other):
                    os.rename(name, self.path / name, src_dir_fd=folder)
                    taken += 1
            except OSError as error:
                failed(other, error)
        if taken:
            outbox_files.sync(self.path)
        return taken

    def _left_in(self, other: Path) -> Iterator[tuple[int, str]]:
        """Its files, by the open folder and their names, while it is held. Nothing if its process lives."""
        with _opened(other) as folder:
            if not any(name.endswith((PART, PENDING, READY)) for name in _names(folder)):
                return
            with _locked(folder) as lock:
                if lock is not None:
                    _remove_unfinished(folder)
                    yield from ((folder, name) for name in _names(folder) if name.endswith((PENDING, READY)))

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
    with contextlib.suppress(FileExistsError):  # a link that leads nowhere, too
        folder.mkdir(mode=0o700, parents=True)  # events name users


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The folder, judged as it is open: nobody puts another in its place in between. Raises OSError."""
    why = _why_not_ours(path.lstat())
    if why is None:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            why = _why_not_ours(os.fstat(folder))
            if why is None:
                yield folder
                return
        finally:
            os.close(folder)
    raise NotOurOwnError(
        errno.EPERM,
        f"{path} {why}, so anybody may have put its events there: look through them, then chmod 700 or chown it, or"
        " name another folder in outbox",
    )


def _why_not_ours(status: os.stat_result) -> str | None:
    """Kubernetes opens a volume to the pod's `fsGroup` at each start, so our own groups may write to it."""
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if status.st_uid != os.geteuid():
        return f"belongs to another user ({status.st_uid}; this process runs as {os.geteuid()})"
    if mode & stat.S_IWOTH:
        return f"may be written to by others (mode {mode:04o})"
    if mode & stat.S_IWGRP and status.st_gid not in {os.getegid(), *os.getgroups()}:
        return f"may be written to by others (mode {mode:04o}, and group {status.st_gid} is not this process's)"
    return None


def _names(folder: int) -> list[str]:
    """In order, of the open folder, whatever has its path now. Raises OSError."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries)


def _remove_unfinished(folder: int) -> None:
    for name in _names(folder):
        if name.endswith(PART):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)


@contextlib.contextmanager
def _locked(folder: int) -> Iterator[int | None]:
    """Yield a descriptor that holds the open folder, None if a living process does. Raises OSError.

    The lock file must belong to this user: another user could hold theirs forever.
    """
    lock = outbox_files.open_ours(LOCK, os.O_RDWR | os.O_CREAT, folder)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD:
                raise
            yield None
        else:
            yield lock
    finally:
        os.close(lock)
