"""A file system of a few MiB that tests fill completely."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def disk_if_we_may(folder: Path, mib: int) -> Iterator[bool]:
    """Mount a file system of this many MiB at the folder, created if missing; return whether that is permitted (root
    only).
    """
    folder.mkdir(mode=0o700, parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """Do as `disk_if_we_may`, and skip the test if not permitted."""
    with disk_if_we_may(folder, mib) as mounted:
        if not mounted:
            pytest.skip("only root may mount a file system of its own")
        yield folder


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Fill the file system completely."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        ballast.unlink()
