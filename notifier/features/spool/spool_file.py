"""An open file of the spool. Each method blocks."""

import fcntl
import os
from contextlib import suppress

from notifier.model.errors import NotifierError, describe_error


class UnusableFolderError(NotifierError, OSError):
    """The folder cannot be used: it is full, or its file system has no locks."""


class SpoolFile:
    """`end`: the offset behind the last line that was read or written; 0 if the file is to be read in whole."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.end = 0
        self.is_ours = False

    @property
    def is_writable(self) -> bool:
        """Return whether this process has the lock, and has read the file, which may have entries before."""
        return self.is_ours and self.end > 0

    def lock(self) -> bool:
        """Lock the file. Return False if another process has its lock. Raises UnusableFolderError."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise UnusableFolderError(f"its file system has no locks ({describe_error(error)})") from None
        return True

    def write(self, data: bytes) -> None:
        """Write at the end of the file. Raises OSError, after the file is as long as before."""
        begin = self.end
        try:
            while data:
                written = os.pwrite(self.descriptor, data, self.end)
                self.end, data = self.end + written, data[written:]
        except OSError:
            self.cut(begin)
            raise

    def cut(self, end: int) -> None:
        """Remove what follows `end`, if the disk permits it; the next lines are written there."""
        self.end = end
        with suppress(OSError):
            os.ftruncate(self.descriptor, end)
