"""Builds programs from Go modules. Go verifies the downloads against its public checksum database."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

BUILD_SECONDS = 3600


class GoMissing(Exception):  # noqa: N818  a state of the machine; the text says what to do
    """A program is not built yet, or cannot be built."""


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
