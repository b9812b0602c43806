"""Permits one worker at a time on a queue file, by an flock on `<path>.lock`. The kernel releases it with the process.

The path is resolved, as a symbolic link is another name of the same file. The lock file has the worker's pid, for a
second worker's error, and device and inode of the queue file. It is never deleted: a lock on a deleted file would not
exclude other workers.
"""

import errno
import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from notifier.model.errors import QueueUnavailable

# `has_worker` holds the lock for microseconds, so a worker that starts at that time retries.
_MAX_TRIES = 10
_RETRY_SECONDS = 0.02
_PID_WIDTH = 31  # characters of the first line; earlier releases read 20 bytes, and strip blanks

FileId: TypeAlias = tuple[int, int]
"""Device and inode of a file."""


def file_id_of(path: Path) -> FileId | None:
    """Return the device and inode of the file at `path`; None if there is none to be found. Opens nothing.

    Never open a queue file outside SQLite: closing it releases SQLite's locks of this process.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class WorkerLock:
    """The lock of `path` (its id: `file`), held until `release`. Raises QueueUnavailable if another worker holds it."""

    def __init__(self, path: Path, file: FileId) -> None:
        lock_file = _lock_file(path)
        try:
            self._fd = _open_regular(lock_file, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise QueueUnavailable(f"cannot open the lock file {lock_file}: {error.strerror}") from error
        if not _try_lock(self._fd):
            pid = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            self.release()
            raise QueueUnavailable(
                f"{path} is in use by another worker (pid {pid}, lock file {lock_file}): the embedded queue serves one "
                "worker; stop that one, or use another file, or RabbitMQ for several workers"
            )
        with suppress(OSError):  # on a full disk the lock is held all the same
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid():<{_PID_WIDTH}}\n{file[0]} {file[1]}\n".encode(), 0)

    def release(self) -> None:
        """Release the lock."""
        os.close(self._fd)


def _open_regular(lock_file: Path, flags: int) -> int:
    """Open a regular file only: another user may have created a link or FIFO, if the folder permits it."""
    fd = os.open(lock_file, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return fd


def _try_lock(fd: int) -> bool:
    for _ in range(_MAX_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_RETRY_SECONDS)
        else:
            return True
    return False


def has_worker(path: Path) -> bool:
    """Return True if a worker of any process consumes the queue at `path` now."""
    return _read_holder(path) is not None


def find_moved_file(path: Path) -> str | None:
    """Return an error if a worker has another file open than `path` refers to now; otherwise None."""
    words = (_read_holder(path) or "").split()  # pid, device and inode; earlier releases wrote the pid only
    here = file_id_of(path)
    if words and (here is None or (len(words) == 3 and words[1:] != [str(part) for part in here])):
        return describe_move(path, here, f"the worker with pid {words[0]}")
    return None


def describe_move(path: Path, here: FileId | None, who: str) -> str:
    """Return the error that the file that `who` has open was moved. `here`: the file now at `path`, or None."""
    change = "is gone" if here is None else "is another file now"
    return (
        f"the queue file {path} {change}: {who} has the former one open; move that one back, or stop the worker first"
        " and start it again"
    )


def _read_holder(path: Path) -> str | None:
    """Return the contents of the lock file if a worker holds the lock, else None."""
    try:
        fd = _open_regular(_lock_file(path), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(fd, 100, 0).decode("ascii", "replace") or "unknown"
    finally:
        os.close(fd)
    return None


def _lock_file(path: Path) -> Path:
    resolved = path.resolve()
    return resolved.with_name(f"{resolved.name}.lock")
