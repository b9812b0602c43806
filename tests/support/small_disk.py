"""A file system of a few MiB, to be filled to its last byte."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def disk_if_we_may(folder: Path, mib: int) -> Iterator[bool]:
    """A file system of so many MiB at the folder, which is made; whether we may. Only root may."""
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
    """The same, without which the test is skipped."""
    with disk_if_we_may(folder, mib) as mounted:
        if not mounted:
            pytest.skip("only root may mount a file system of its own")
        yield folder


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Fill that file system to the last byte."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        ballast.unlink()
