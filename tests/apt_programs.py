"""Programs of Debian's that tests run and that are not Python's: found here, or installed by apt where we may."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


class ProgramMissing(Exception):  # noqa: N818  a state of the machine; the text says what to do
    """It can be neither found nor installed here."""


def program(name: str, package: str) -> str:
    """The path of a program, of this package. Raises ProgramMissing, which says the way out."""
    if (found := shutil.which(name)) is not None:
        return found
    with Path(tempfile.gettempdir(), f"notifier-tests-apt.{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in two processes
        if shutil.which(name) is None and os.geteuid() == 0 and shutil.which("apt-get"):
            _install(package)
    if (found := shutil.which(name)) is None:
        text = f"{name} is needed for this test and was not found: apt-get install -y --no-install-recommends {package}"
        raise ProgramMissing(text)
    return found


def _install(package: str) -> None:
    """Whether it has worked, the caller sees."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # installed, not started
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300"]
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", package]):
        subprocess.run([*apt, *arguments], env=environment, capture_output=True, timeout=600, check=False)
