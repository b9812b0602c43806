"""A headless Chromium, for pages that people look at: this machine's own, installed by apt where we may.

It runs without a sandbox, since the tests are root, and with a profile of its own; it is given files alone.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 90.0  # seconds; it starts in one on a quiet machine
WAYS_OUT = "Chromium is needed for this test and was not found: apt-get install -y --no-install-recommends chromium"
LOCK = Path(tempfile.gettempdir()) / "notifier-tests-chromium.lock"


class ChromiumMissing(Exception):  # noqa: N818  a state of the machine; the text says what to do
    """Chromium can be neither found nor installed here."""


@dataclass(frozen=True, slots=True)
class Chromium:
    """The browser's program."""

    program: str

    def dom(self, page: Path) -> str:
        """What the page has become in the browser."""
        return self._run("--dump-dom", page.as_uri()).decode()

    def screenshot(self, page: Path, picture: Path) -> bytes:
        """What is seen of it, as PNG."""
        self._run(f"--screenshot={picture}", "--window-size=1120,1900", "--hide-scrollbars", page.as_uri())
        return picture.read_bytes()

    def _run(self, *arguments: str) -> bytes:
        with tempfile.TemporaryDirectory(prefix="chromium.", ignore_cleanup_errors=True) as profile:
            command = [
                self.program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--no-first-run", f"--user-data-dir={profile}", *arguments,
            ]  # fmt: skip
            done = subprocess.run(
                command, capture_output=True, timeout=PATIENCE, check=False, env={**os.environ, "HOME": profile}
            )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout


def find_chromium() -> Chromium:
    """Installed if need be. Raises ChromiumMissing."""
    if (found := _found()) is None:
        with LOCK.open("w") as lock:  # one process of a test run at a time
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _found() is None:
                _install()
        found = _found()
    if found is None:
        raise ChromiumMissing(WAYS_OUT)
    return Chromium(found)


def _found() -> str | None:
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


def _install() -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    waiting = ("-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3")
    for command in (
        ["apt-get", *waiting, "update"],
        ["apt-get", *waiting, "install", "-y", "--no-install-recommends", "chromium"],
    ):
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, env=environment, capture_output=True, timeout=600, check=False)
