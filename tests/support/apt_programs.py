"""Programs of Debian's that tests run and that are not Python's: found here, or installed by apt where we may."""

import fcntl
import glob
import os
import shutil
import tempfile
from pathlib import Path

from tests.support.installing import apt_install


class ProgramMissing(Exception):  # noqa: N818  a state of the machine; the text says what to do
    """It can be neither found nor installed here."""


def program(name: str, package: str, folders: str | None = None) -> str:
    """The path of a program, of this package, or of several with blanks between. Raises ProgramMissing: the way out.

    `folders`: a pattern of where it is if not on the path. The last one of several is taken: the newest version.
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
