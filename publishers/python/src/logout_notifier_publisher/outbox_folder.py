"""A numbered sub-folder of the outbox. The process that holds the lock on a file in it owns the sub-folder.

The kernel releases the lock when the process ends. The lock file is never deleted, because two processes could then own
the folder. A forked child closes its copy of the lock, which would otherwise stay locked after the parent's end.

A user who can write to a sub-folder can publish events. A sub-folder that is a link, belongs to another user, or is
writable for others is therefore not used, and no event is taken from it. The outbox folder itself may be writable for
others, as a Kubernetes volume is.
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
from logout_notifier_publisher.outbox_files import PART, PENDING, READY, UntrustedFileError

MAX_FOLDERS = 1000
LOCK = "lock"
_LOCKED_ERRNOS = (errno.EACCES, errno.EAGAIN)


class OutboxFolder:
    """A sub-folder that this process owns. All methods block: call them on threads."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=partial(_release_after_fork, reference))

    @classmethod
    def claim(cls, root: Path) -> Self:
        """Claim the first sub-folder that only this user can write to and no running process owns. Raises OSError."""
        _create(root)
        refused = None
        for number in range(MAX_FOLDERS):
            path = root / str(number)
            _create(path)
            try:
                with _open_checked(path) as folder, _try_lock(folder) as lock:
                    if lock is not None:
                        _remove_unfinished(folder)
                        outbox_files.sync(root)  # the folder may be new
                        return cls(path, os.dup(lock))
            except (UntrustedFileError, PermissionError) as error:
                refused = error
        raise refused or OSError(f"{MAX_FOLDERS} processes own a folder below {root}")

    def exists(self) -> bool:
        """Return False if the folder was deleted or replaced. Raises OSError."""
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
                for folder, name in self._list_abandoned(other):
                    os.rename(name, self.path / name, src_dir_fd=folder)
                    taken += 1
            except OSError as error:
                failed(other, error)
        if taken:
            outbox_files.sync(self.path)
        return taken

    def _list_abandoned(self, other: Path) -> Iterator[tuple[int, str]]:
        """Yield the open folder and each file name, while it is locked. Yields nothing if its process is running."""
        with _open_checked(other) as folder:
            if not any(name.endswith((PART, PENDING, READY)) for name in _list_names(folder)):
                return
            with _try_lock(folder) as lock:
                if lock is not None:
                    _remove_unfinished(folder)
                    yield from ((folder, name) for name in _list_names(folder) if name.endswith((PENDING, READY)))

    def close(self) -> None:
        """Release the folder."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _release_after_fork(reference: "weakref.ref[OutboxFolder]") -> None:
    folder = reference()
    if folder is not None:
        with contextlib.suppress(OSError):
            folder.close()


def _create(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):  # also a dangling link
        folder.mkdir(mode=0o700, parents=True)  # events contain user ids


@contextlib.contextmanager
def _open_checked(path: Path) -> Iterator[int]:
    """Open and check a folder. The open folder is checked, so that it cannot be replaced in between. Raises OSError."""
    why = _find_distrust_reason(path.lstat())
    if why is None:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            why = _find_distrust_reason(os.fstat(folder))
            if why is None:
                yield folder
                return
        finally:
            os.close(folder)
    raise UntrustedFileError(
        errno.EPERM,
        f"{path} {why}, so others may have written its events: inspect them, then chmod 700 or chown it, or set"
        " another folder as outbox",
    )


def _find_distrust_reason(status: os.stat_result) -> str | None:
    """Return why a folder is not used. This process's groups may write, such as `fsGroup` in Kubernetes."""
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if status.st_uid != os.geteuid():
        return f"belongs to another user ({status.st_uid}; this process runs as {os.geteuid()})"
    if mode & stat.S_IWOTH:
        return f"is writable for others (mode {mode:04o})"
    if mode & stat.S_IWGRP and status.st_gid not in {os.getegid(), *os.getgroups()}:
        return f"is writable for others (mode {mode:04o}, and group {status.st_gid} is not this process's)"
    return None


def _list_names(folder: int) -> list[str]:
    """Return the sorted names of the open folder's files. Raises OSError."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries)


def _remove_unfinished(folder: int) -> None:
    for name in _list_names(folder):
        if name.endswith(PART):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)


@contextlib.contextmanager
def _try_lock(folder: int) -> Iterator[int | None]:
    """Yield a descriptor that holds the folder's lock, None if a running process holds it. Raises OSError.

    The lock file must belong to this user, because another user could hold the lock forever.
    """
    lock = outbox_files.open_own(LOCK, os.O_RDWR | os.O_CREAT, folder)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _LOCKED_ERRNOS:
                raise
            yield None
        else:
            yield lock
    finally:
        os.close(lock)
