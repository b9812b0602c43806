"""Whether a folder, or a file in it, is ours alone, so that what it holds may be believed.

Where an operator names a folder that is not (a Kubernetes `emptyDir` has mode 0777, a claim belongs to root), a folder
of our own is made within it, and that one is judged.
"""

import stat
from typing import Protocol

OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Status(Protocol):
    """What `lstat` says, or `fstat` of what was opened without following a link."""

    @property
    def st_mode(self) -> int:
        """Its kind and its mode."""

    @property
    def st_uid(self) -> int:
        """Its owner."""


def why_not_own(status: Status, user: int) -> str | None:
    """Say why this process, which runs as `user`, does not believe it; None if it is its own alone."""
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    if status.st_uid != user:
        return f"belongs to another user ({status.st_uid}; this one is {user})"
    if status.st_mode & OTHERS_MAY_WRITE:
        return f"may be written to by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return None
