"""Finds Debian programs that tests run, and installs missing ones by apt if permitted."""

import fcntl
import glob
import os
import shutil
import tempfile
from pathlib import Path

from tests.support.installing import apt_install


class ProgramMissing(Exception):  # noqa: N818  a state of the machine; the text says what to do
    """The program is not installed and cannot be installed."""


def program(name: str, package: str, folders: str | None = None) -> str:
    """Return the path of a program of this package (or packages, separated by blanks). Raise ProgramMissing with a
    remedy.

    `folders`: a glob pattern for programs outside the path. The last match, the newest version, is used.
    """
    if (found := _which(name, folders)) is not None:
        return found
    why = ""
    with Path(tempfile.gettempdir(), f"notifier-tests-apt.{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in two processes
        if _which(name, folders) is None and os.geteuid() == 0 and shutil.which("apt-get"):
            why = apt_install(package)
    if (found := _which(name, folders)) is None:
        text = f"{name} is needed for this test and was not found: apt-get install -y --no-install-recommends {package}"
        raise ProgramMissing(f"{text}: {why}" if why else text)
    return found


def _which(name: str, folders: str | None) -> str | None:
    others = sorted(glob.glob(folders)) if folders else []  # noqa: PTH207  an absolute pattern
    return shutil.which(name) or next(
        (found for folder in others[::-1] if (found := shutil.which(name, path=folder))), None
    )
