"""Builds programs from Go modules. Go verifies the downloads against its public checksum database."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from notifier.model.record import record
from tests.support.keycloak_installation import KeycloakMissing, cache
from tests.support.made_whole import alone

BUILD_SECONDS = 3600


class GoMissing(Exception):  # noqa: N818  a state of the machine; the text says what to do
    """A program is not built yet, or cannot be built."""


@record
class GoProgram:
    """A program that is built once, and kept in /var/cache/notifier-tests or the user's own cache.

    `source`: its main.go. `write_module` writes a folder's go.mod for it. `part`: the tests' part that builds it.
    """

    name: str
    version: str
    source: Path
    part: str
    write_module: Callable[[Path], None]

    def find(self) -> Path:
        """Return the program, if it has been built. Raise GoMissing."""
        if (program := self._place()).exists():
            return program
        advice = f"`make test-everything PART={self.part}` does it"
        raise GoMissing(f"{self.name} {self.version} is not built yet in {program.parent}: {advice}")

    def build(self) -> Path:
        """Return the program, and build it if needed. Raise GoMissing."""
        program = self._place()
        if program.exists():
            return program
        check_go(self.name)
        with alone(program), tempfile.TemporaryDirectory(prefix=f"{self.name}.", dir=program.parent) as work:
            if not program.exists():
                say(f"building {self.name} {self.version} …")
                folder = Path(work, "module")
                folder.mkdir()
                shutil.copy(self.source, folder)
                self.write_module(folder)
                go_build(folder, folder / "made")
                for old in program.parent.glob(f"{self.name}-*"):
                    if old.suffix != ".lock":
                        old.unlink()
                (folder / "made").rename(program)
        return program

    def _place(self) -> Path:
        """Return the path, which depends on the version and the source."""
        digest = hashlib.sha256(self.source.read_bytes()).hexdigest()
        try:
            return cache() / f"{self.name}-{self.version}-{digest[:12]}"
        except KeycloakMissing as missing:
            raise GoMissing(str(missing)) from None


def check_go(what: str) -> None:
    """Raise GoMissing unless a Go is installed that can download the required version."""
    output = go(["version"], Path("/")) if shutil.which("go") else "none"
    number = re.search(r"go1\.(\d+)", output)
    if number is None or int(number[1]) < 21:
        raise GoMissing(f"Go 1.21 or newer is needed to build {what}, from https://go.dev or apt; here: {output}")


def got_module(module: str, what: str) -> Path:
    """Download a module and return its folder (`Dir`) or go.mod (`GoMod`). Raise GoMissing."""
    return Path(json.loads(go(["mod", "download", "-json", module], Path("/")))[what])


def go_build(folder: Path, made: Path, *, package: str = ".", linked: str = "") -> None:
    """Build a package of the module in this folder. `linked`: linker flags. Raise GoMissing."""
    go(["build", "-trimpath", "-ldflags", f"-s -w {linked}", "-o", str(made), package], folder)


def go(words: Sequence[str], folder: Path) -> str:
    """Return Go's output. The machine's settings select the module proxy. Raise GoMissing."""
    settings = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=mod -p=2" if folder != Path("/") else ""}
    env = {**os.environ, **settings}
    run = subprocess.run(
        ["nice", "-n", "10", "go", *words], cwd=folder, env=env,
        capture_output=True, text=True, timeout=BUILD_SECONDS, check=False,
    )  # fmt: skip
    if run.returncode:
        raise GoMissing(f"go {' '.join(words[:3])} … failed: {run.stderr.strip()[-600:]}")
    return run.stdout.strip()


def say(text: str) -> None:
    """Print progress for the person who waits."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201
