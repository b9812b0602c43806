"""Folders that tests keep for the next run."""

import contextlib
import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alone(kept: Path) -> Iterator[None]:
    """Hold a lock between processes: one creates the folder; the others wait and then find it."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.with_name(f"{kept.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def made_whole(kept: Path) -> Iterator[Path]:
    """Return a folder to fill; move it into place when complete, so that a partial folder is never used."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{kept.name}.", dir=kept.parent, ignore_cleanup_errors=True) as part:
        folder = Path(part, "made")
        folder.mkdir()
        yield folder
        with contextlib.suppress(OSError):  # another process was faster
            folder.rename(kept)
    assert kept.exists(), f"{kept} cannot be made"
