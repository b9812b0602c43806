"""Checks whether another user of this machine may have written a folder or file that determines what is sent where."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from notifier.model.errors import NotifierError
from notifier.model.record import record

OWN_FOLDER = "notifier"  # the subfolder that is used in a folder that other users may write to


class UnusableFileError(NotifierError, ValueError):
    """The file or folder is readable, but must not be used. The text has the reason."""


@record
class UnixIdentity:
    """A user and its groups. `reason_against` checks that no other user may write to a folder or file.

    The folder must not be a link, must belong to the user, and only the user and its groups may write to it. Kubernetes
    opens a volume to the pod's `fsGroup` at each start, so that a pod with another `fsGroup` makes the volume unusable.

    If the configured folder does not qualify (a Kubernetes `emptyDir` has mode 0777, and a volume claim belongs to
    root), its user creates a subfolder, which is checked instead.
    """

    user: int
    groups: frozenset[int]

    @classmethod
    def process(cls) -> Self:
        """Return the user of this process."""
        return cls(user=os.geteuid(), groups=frozenset({os.getegid(), *os.getgroups()}))

    @classmethod
    def owner(cls, status: os.stat_result) -> Self:
        """Return the owner of a file, for commands of root, which read the files of the service's user."""
        return cls(user=status.st_uid, groups=frozenset({status.st_gid}))

    def reason_against(self, status: os.stat_result) -> str | None:
        """Return why others may write to the file with this status; None if they may not.

        `status`: from `lstat`, or from a descriptor that was opened without following links.
        """
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


def check_own_folder(path: Path, content: str) -> Path:
    """Return the path of a configured folder. Raises ValueError if another user may have written its `content`.

    The folder may be missing or inaccessible. Root may run `notifier check`, so for root any owner is accepted.
    """
    try:
        if os.path.lexists(path) and not path.is_dir():
            kind = "a link that leads to no folder" if path.is_symlink() else "a file"
            raise ValueError(f"{path} is {kind}; it must be a folder, which is made if it is missing")
        folder = path if _reason_against_folder(path) is None else path / OWN_FOLDER
        reason = _reason_against_folder(folder)
    except OSError:
        return path
    if reason is not None:
        remedy = (
            "delete it, and it is created again with mode 0700; or check its files, then chmod 700 or chown it; or"
            " name another folder"
        )
        raise ValueError(f"{folder} {reason}, so another user may have written its {content}: {remedy}")
    return path


def _reason_against_folder(path: Path) -> str | None:
    status = path.lstat()
    identity = UnixIdentity.process() if os.geteuid() else UnixIdentity.owner(status)
    return identity.reason_against(status)


@contextmanager
def open_own_folder(root: Path, *, make: bool = False, of_owner: bool = False) -> Iterator[int]:
    """Open a folder for this user's files, and yield its descriptor. Raises OSError, UnusableFileError.

    If others may write to `root`, a subfolder in it is used. `make`: create missing folders. `of_owner`: accept the
    folder of its owner, whoever it is.
    """
    if make:
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError:
            raise UnusableFileError(f"{root} is a file, or a link that leads to no folder") from None
    try:
        folder = _open_checked(root, of_owner=of_owner)
    except UnusableFileError:
        if make:
            with suppress(FileExistsError):
                (root / OWN_FOLDER).mkdir(mode=0o700)
        folder = _open_checked(root / OWN_FOLDER, of_owner=of_owner)
    try:
        yield folder
    finally:
        os.close(folder)


def _open_checked(path: Path, *, of_owner: bool) -> int:
    try:
        return open_owned(path, os.O_RDONLY | os.O_DIRECTORY, of_owner=of_owner)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise UnusableFileError(f"{path} is a link or a file") from None
        raise


def open_owned(
    path: str | Path, flags: int, *, dir_fd: int | None = None, of_owner: bool = False, regular: bool = False
) -> int:
    """Open a file or folder, without following links, unless `check_owner` refuses it. Return the descriptor.

    Raises OSError, UnusableFileError.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    try:
        check_owner(descriptor, str(path), of_owner=of_owner, regular=regular)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_owner(descriptor: int, name: str, *, of_owner: bool = False, regular: bool = False) -> None:
    """Raise UnusableFileError, which names the file, if others than its user may write to it.

    `regular`: also unless it is a regular file with one name.
    """
    status = os.fstat(descriptor)
    if regular and not (stat.S_ISREG(status.st_mode) and status.st_nlink == 1):
        raise UnusableFileError(f"{name} is not a regular file with one name")
    identity = UnixIdentity.owner(status) if of_owner else UnixIdentity.process()
    reason = identity.reason_against(status)
    if reason is not None:
        raise UnusableFileError(f"{name} {reason}")


_BESIDE_QUEUE = ("", "-wal", "-shm", "-journal", ".lock", ".subject-key")
"""What is appended to the name of the queue's file in the names of the files that SQLite and notifier use with it."""


def find_foreign_queue_file(path: Path) -> str | None:
    """Return which file of the embedded queue another user may have put there, and the remedy; None if there is none.

    The file that a link names is examined too.
    """
    files = dict.fromkeys((path, Path(os.path.realpath(path))))  # `resolve` raises an error at a loop of links
    return find_foreign_file(*(file.with_name(f"{file.name}{suffix}") for file in files for suffix in _BESIDE_QUEUE))


def find_foreign_file(*files: Path) -> str | None:
    """Return which of these files another user may have put there, and the remedy; None if there is none.

    Only a folder that others may write to is examined. There a file must not be a link, and must belong to this user,
    to root, or to the owner of the folder.
    """
    for file in files:
        try:
            folder, status = file.parent.stat(), file.lstat()
        except OSError:  # it is missing, or opening it reports the error
            continue
        identity = UnixIdentity(user=folder.st_uid, groups=UnixIdentity.process().groups)
        if identity.reason_against(folder) is None:
            continue
        owner = status.st_uid if status.st_uid in (0, folder.st_uid) else os.geteuid()
        reason = UnixIdentity(user=owner, groups=identity.groups | {folder.st_gid}).reason_against(status)
        if reason is not None:
            where = f"others may write to its folder (mode {stat.S_IMODE(folder.st_mode):04o})"
            remedy = "remove it if it is not yours, and use a folder that only this user may write to"
            return f"{file} {reason}, and {where}: {remedy}"
    return None
