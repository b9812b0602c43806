"""Gives a process a share of a core, by a control group of the kernel (v1 or v2).

On a machine with two cores, two workers can each be given the same share of one core, and everything else the other.
"""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

PERIOD = 10_000  # µs: short, so that a worker is never stopped for long at a time
V1 = Path("/sys/fs/cgroup/cpu")
V2 = Path("/sys/fs/cgroup")


class Share:
    """A control group: its processes together get a share of one core. Made by `share`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, pid: int) -> None:
        """Add this process, with its threads and later children."""
        (self._folder / "cgroup.procs").write_text(str(pid))


def available() -> bool:
    """True if we may make control groups."""
    try:
        with share(0.5):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def share(of_a_core: float) -> Iterator[Share]:
    """Make a group with this share. Its processes must end before the block. Raises OSError if we may not."""
    v1 = (V1 / "cpu.cfs_quota_us").parent if (V1 / "cgroup.procs").exists() else None
    folder = (v1 or V2) / f"notifier-bench-{secrets.token_hex(4)}"
    folder.mkdir()
    quota = round(of_a_core * PERIOD)
    try:
        if v1 is not None:
            (folder / "cpu.cfs_period_us").write_text(str(PERIOD))
            (folder / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (folder / "cpu.max").write_text(f"{quota} {PERIOD}")
        yield Share(folder)
    finally:
        folder.rmdir()
