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
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from notifier.model.errors import QueueUnavailable

# `has_worker` holds the lock for microseconds, so a worker that starts at that time retries.
_MAX_TRIES = 10
_RETRY_SECONDS = 0.02
_PID_WIDTH = 31  # characters of the first line; earlier releases read 20 bytes, and strip blanks

_SUFFIXES = ("", "-wal", "-shm")  # the log has what the file lacks, and the shared memory has the locks

FileId: TypeAlias = tuple[int, int]
"""Device and inode of a file."""
FileIds: TypeAlias = tuple[FileId | None, ...]
"""Of the queue file, its write-ahead log and its shared memory; None for one that does not exist."""
FileSizes: TypeAlias = list[int]
"""Of the queue file and its write-ahead log."""


def names_of(path: Path) -> Sequence[str]:
    """Return the names of the files of the queue at `path`. SQLite stores the others next to the resolved file."""
    return str(path), *(f"{path.resolve()}{suffix}" for suffix in _SUFFIXES[1:])


def stat_files(names: Sequence[str]) -> tuple[os.stat_result | None, ...]:
    """Return the status of each file; None for one that does not exist. Opens nothing.

    Never open a queue file outside SQLite: closing it releases SQLite's locks of this process.
    """
    return tuple(map(_stat_file, names))


def _stat_file(name: str) -> os.stat_result | None:
    try:
        return os.stat(name)  # noqa: PTH116  one call
    except OSError:
        return None


def file_ids_of(files: Iterable[os.stat_result | None]) -> FileIds:
    """Return the ids of the files."""
    return tuple([None if each is None else (each.st_dev, each.st_ino) for each in files])


def sizes_of(files: Sequence[os.stat_result | None]) -> FileSizes:
    """Return the sizes of the files in bytes; 0 for one that does not exist."""
    return [0 if each is None else each.st_size for each in files[:2]]


class WorkerLock:
    """The lock of `path` (ids: `files`), held until `release`. Raises QueueUnavailable if another worker holds it."""

    def __init__(self, path: Path, files: FileIds) -> None:
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
            ids = "\n".join(f"{file[0]} {file[1]}" for file in files if file is not None)
            os.pwrite(self._fd, f"{os.getpid():<{_PID_WIDTH}}\n{ids}\n".encode(), 0)

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
    """Return an error if a worker has other files open than `path` refers to now; otherwise None."""
    words = (_read_holder(path) or "").split()  # pid and ids; earlier releases wrote the pid, or one id
    if not words:
        return None
    numbers = [int(word) for word in words[1:] if word.isdecimal()]
    files = tuple(zip(numbers[::2], numbers[1::2], strict=False)) or ((0, 0),)
    here = file_ids_of(stat_files(names_of(path)))
    if len(numbers) < 2 and here[0] is not None:
        return None
    return describe_move(path, files, here, f"the worker with pid {words[0]}")


def describe_move(path: Path, files: FileIds, here: FileIds, who: str) -> str | None:
    """Return an error if one of the `files` that `who` has open is no longer among those `here`; otherwise None."""
    for suffix, file, present in zip(_SUFFIXES, files, here, strict=False):
        if file is not None and file != present:
            change = "is gone" if present is None else "is another file now"
            return (
                f"the queue file {path}{suffix} {change}: {who} has the former one open; move that one back, or stop"
                " the worker first and start it again"
            )
    return None


def _read_holder(path: Path) -> str | None:
    """Return the contents of the lock file if a worker holds the lock, else None."""
    try:
        fd = _open_regular(_lock_file(path), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(fd, 200, 0).decode("ascii", "replace") or "unknown"
    finally:
        os.close(fd)
    return None


def _lock_file(path: Path) -> Path:
    resolved = path.resolve()
    return resolved.with_name(f"{resolved.name}.lock")
