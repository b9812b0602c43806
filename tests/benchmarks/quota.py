"""A share of a core for a process, by a control group of the kernel (v1 or v2), where we may make one.

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
    """So much of one core for all of its processes together. Made by `share`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, pid: int) -> None:
        """This process too, with all its threads and what it will start."""
        (self._folder / "cgroup.procs").write_text(str(pid))


def available() -> bool:
    """Whether we may make such a group."""
    try:
        with share(0.5):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def share(of_a_core: float) -> Iterator[Share]:
    """A group with this share; its processes have to have ended when it is left. Raises OSError where we may not."""
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
