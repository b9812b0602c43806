"""Lets one worker at a time use a queue file, by an flock on `<path>.lock`. The kernel drops it with the process.

The lock file holds the pid of the worker, for the error that a second worker gets. It is never deleted: a lock on a
deleted file keeps nobody out.
"""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from notifier.model.errors import QueueUnavailable

# `worker_at` holds the lock for microseconds while it looks. A worker that starts in that moment tries again.
_TRIES = 10
_PAUSE = 0.02  # seconds


class WorkerLock:
    """The lock, held until `release`. Raises QueueUnavailable if another worker holds it."""

    def __init__(self, path: Path) -> None:
        file = _lock_file(path)
        try:
            self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise QueueUnavailable(f"cannot open the lock file {file}: {error.strerror}") from error
        if not self._try():
            pid = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise QueueUnavailable(
                f"{path} is in use by another worker (pid {pid}, lock file {file}): the embedded queue serves one "
                "worker; stop that one, or use another file, or RabbitMQ for several workers"
            )
        with suppress(OSError):  # on a full disk: the lock is what counts
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def _try(self) -> bool:
        for _ in range(_TRIES):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_PAUSE)
            else:
                return True
        return False

    def release(self) -> None:
        """Release the lock."""
        os.close(self._fd)


def worker_at(path: Path) -> bool:
    """True if a worker, of this process or another, consumes the queue at `path` now."""
    try:
        fd = os.open(_lock_file(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")
