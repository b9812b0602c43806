"""A headless Chromium, for pages that people look at: this machine's own, installed by apt where we may.

It runs without a sandbox, since the tests are root, and with a profile of its own; it is given files alone.
"""

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.apt_programs import program

PATIENCE = 90.0  # seconds; it starts in one on a quiet machine
TRIES = 3  # where it hangs, which a browser may do on a machine that has no room for it


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
        for tries_left in reversed(range(TRIES)):
            try:
                return self._once(*arguments)
            except subprocess.TimeoutExpired:
                if not tries_left:
                    raise
        raise AssertionError("unreachable")

    def _once(self, *arguments: str) -> bytes:
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
    """Installed if need be. Raises ProgramMissing."""
    return Chromium(program("chromium", "chromium"))
