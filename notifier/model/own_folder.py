"""Judges whether a folder, or a file in it, is ours alone, so that its content may be believed.

Such a folder is no link, belongs to our user, and only our user and our groups may write to it: Kubernetes opens a
volume to the pod's `fsGroup` at each start, and a pod with another `fsGroup` that shares the volume takes it from us.

If an operator names a folder that is not ours alone (a Kubernetes `emptyDir` has mode 0777, a claim belongs to root), a
folder of our own is made in it, and that one is judged.
"""

import os
import stat
from typing import Self

from notifier.model.frozen import frozen


@frozen
class Whose:
    """A user, and the groups that are its own. A status is that of `lstat`, or of what was opened without links."""

    user: int
    groups: frozenset[int]

    @classmethod
    def process(cls) -> Self:
        """This process."""
        return cls(user=os.geteuid(), groups=frozenset({os.getegid(), *os.getgroups()}))

    @classmethod
    def owner(cls, status: os.stat_result) -> Self:
        """Whoever has it: root looks at what a service's user has made."""
        return cls(user=status.st_uid, groups=frozenset({status.st_gid}))

    def why_not(self, status: os.stat_result) -> str | None:
        """Say why it is not theirs alone; None if it is."""
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISLNK(status.st_mode):
            return "is a link"
        if status.st_uid != self.user:
            return f"belongs to another user ({status.st_uid}; this one is {self.user})"
        if mode & stat.S_IWOTH:
            return f"may be written to by others (mode {mode:04o})"
        if mode & stat.S_IWGRP and status.st_gid not in self.groups:
            return f"may be written to by others (mode {mode:04o}, and group {status.st_gid} is not this process's)"
        return None
